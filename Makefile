# Everything is installed into .venv, always with constraints.txt; the stamps inside it remember what for.
PYTHON ?= $(or $(shell command -v python3.11),python3)
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
RECIPE := pyproject.toml constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

# Build environments take these: -c alone does not reach them.
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

.PHONY: help demo test test-slow test-settings endurance lint golden docs initialisation diagnose gradients performance experiments wheel clean

help:  ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 21

demo: $(VENV)/app.stamp  ## forecast a shipped series; prints the verdict and where the report lies
	$(BIN)/tidegate fit forecast $(SAMPLE) $(DEMO)

test: $(VENV)/dev.stamp  ## the quick tests (more options: make test ARGS="-k lstm")
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(VENV)/dev.stamp  ## the slow tests, and the quick ones without kernels
	$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)
	TIDEGATE_NATIVE=0 $(BIN)/python -m pytest $(ARGS)

test-settings: $(VENV)/dev.stamp  ## the quick tests in six settings, as on other processors: an hour
	@failed=; while read -r setting; do \
	    echo "== $$setting"; env $$setting $(BIN)/python -m pytest $(ARGS) </dev/null || failed+="failed: $$setting"$$'\n'; \
	done <<<"$$SETTINGS"; printf '%s' "$$failed"; test -z "$$failed"

endurance: $(VENV)/dev.stamp  ## learn a stream online for STEPS steps and print speed and memory (10 million)
	OMP_NUM_THREADS=1 $(BIN)/python tests/online/endurance.py $(STEPS) $(CELL) $(DELAY)

lint: $(VENV)/dev.stamp  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: $(VENV)/dev.stamp  ## write tests/golden anew; look at the difference before you commit it
	$(BIN)/python -m pytest --golden $(ARGS)

docs: $(VENV)/dev.stamp  ## write docs/cells.md, docs/transforms.md, tables and drawings anew, from the equations
	$(BIN)/python docs/generate.py

initialisation: $(VENV)/dev.stamp  ## measure and draw what docs/initialisation.md shows: 10 minutes
	$(BIN)/python docs/initialisation/generate.py --measure $(ARGS)

diagnose: $(VENV)/dev.stamp  ## measure and draw what docs/diagnose.md shows: some seconds
	$(BIN)/python docs/diagnose/generate.py --measure

gradients: $(VENV)/dev.stamp  ## measure and draw what docs/gradients.md shows of rules: a minute
	$(BIN)/python docs/gradients/generate.py --measure

performance: $(VENV)/bench.stamp  ## measure and write docs/performance.md: 20 minutes (one case: ARGS="--case lstm")
	$(BIN)/tidegate bench --page docs/performance.md --json docs/performance/figures.json $(ARGS)

experiments: $(VENV)/dev.stamp  ## run what is not kept in runs/ and write docs/experiments.md: hours (one: ARGS=adding)
	$(BIN)/tidegate experiments --page docs/experiments.md --json docs/experiments/runs.json $(ARGS)

wheel: $(VENV)/made.stamp  ## dist/tidegate-VERSION-py3-none-any.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove what was built; .venv and runs stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made.stamp:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with: make PYTHON=python3.11")'
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
