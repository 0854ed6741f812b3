# Everything is installed into .venv with constraints.txt; stamp files there record the installed extras.
PYTHON ?= $(or $(shell command -v python3.11),python3)
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
RECIPE := pyproject.toml constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

# pip's isolated build environments ignore -c but read these.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

SAMPLE := src/tidegate/data/samples/co2_mauna_loa.csv
STEPS := 10000000
CELL := min_gru
DELAY := 0
DEMO := --target co2 --time month --horizon 12 --season 12 --budget 60s

# The environment of one run of the tests in each line: as it is, the library kernels of processors without AVX-512 and
# without AVX2, our kernels for AVX2, two threads, and layers without our kernels.
define SETTINGS
OMP_NUM_THREADS=1
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2 OPENBLAS_CORETYPE=Haswell
ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem
TIDEGATE_TARGET=avx2
OMP_NUM_THREADS=2
TIDEGATE_NATIVE=0
endef
export SETTINGS

.PHONY: help demo test test-slow test-settings endurance lint golden docs initialisation diagnose gradients performance forecasting experiments wheel clean

help:  ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 21

demo: $(VENV)/app.stamp  ## forecast a shipped series; prints the verdict and the path of the report
	$(BIN)/tidegate fit forecast $(SAMPLE) $(DEMO)

test: $(VENV)/dev.stamp  ## run the quick tests (with options: make test ARGS="-k lstm")
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(VENV)/dev.stamp  ## run the slow tests, and the quick ones without kernels
	$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)
	TIDEGATE_NATIVE=0 $(BIN)/python -m pytest $(ARGS)

test-settings: $(VENV)/dev.stamp  ## run the quick tests in six settings, as on other processors: an hour
	@failed=; while read -r setting; do \
	    echo "== $$setting"; env $$setting $(BIN)/python -m pytest $(ARGS) </dev/null || failed+="failed: $$setting"$$'\n'; \
	done <<<"$$SETTINGS"; printf '%s' "$$failed"; test -z "$$failed"

endurance: $(VENV)/dev.stamp  ## learn a stream online for STEPS steps (10 million); prints speed and memory
	OMP_NUM_THREADS=1 $(BIN)/python tests/online/endurance.py $(STEPS) $(CELL) $(DELAY)

lint: $(VENV)/dev.stamp  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: $(VENV)/dev.stamp  ## rewrite tests/golden; read the difference before you commit it
	$(BIN)/python -m pytest --golden $(ARGS)

docs: $(VENV)/dev.stamp  ## rewrite the pages, tables and diagrams of docs/ that follow from equations
	$(BIN)/python docs/generate.py

initialisation: $(VENV)/dev.stamp  ## measure and draw the figures of docs/initialisation.md: 10 minutes
	$(BIN)/python docs/initialisation/generate.py --measure $(ARGS)

diagnose: $(VENV)/dev.stamp  ## measure and draw the figures of docs/diagnose.md: seconds
	$(BIN)/python docs/diagnose/generate.py --measure

gradients: $(VENV)/dev.stamp  ## measure and draw the figures of docs/gradients.md: a minute
	$(BIN)/python docs/gradients/generate.py --measure

performance: $(VENV)/bench.stamp  ## measure and write docs/performance.md: 20 minutes (one case: ARGS="--case lstm")
	$(BIN)/python -m benchmarks --page docs/performance.md --json docs/performance/figures.json $(ARGS)

forecasting: $(VENV)/stats.stamp  ## measure the forecaster for docs/forecasting.md: an hour (with ETTh1: ARGS="--etth1 ETTh1.csv")
	$(BIN)/python -m benchmarks.forecasting all --page docs/forecasting.md $(ARGS)

experiments: $(VENV)/dev.stamp  ## run the experiments that are not in runs/ and write docs/experiments.md: hours (one: ARGS=adding)
	$(BIN)/python -m reproductions --page docs/experiments.md --json docs/experiments/runs.json $(or $(ARGS),--all)

wheel: $(VENV)/made.stamp  ## build dist/tidegate-VERSION-py3-none-any.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove build products; keeps .venv and runs
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks reproductions -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made.stamp:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is required, got " + sys.version.split()[0] + "; choose another with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/app.stamp: $(RECIPE) | $(VENV)/made.stamp
	$(INSTALL) --editable '.[app]'
	touch $@

$(VENV)/dev.stamp: $(RECIPE) | $(VENV)/made.stamp
	$(INSTALL) --editable '.[dev]'
	touch $(VENV)/app.stamp $@

$(VENV)/bench.stamp: $(RECIPE) | $(VENV)/made.stamp
	$(INSTALL) --editable '.[bench]'
	touch $(VENV)/app.stamp $@

$(VENV)/stats.stamp: $(RECIPE) | $(VENV)/made.stamp
	$(INSTALL) --editable '.[stats]'
	touch $(VENV)/app.stamp $@
