"""The first call of a cell that was never seen: in a process of its own, with and without what a cache keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from benchmarks.cells import OWN
from benchmarks.contestants import layer, module
from benchmarks.contests import Setting
from benchmarks.machine import ROOT
from benchmarks.problem import difference, of_cell, of_torch, solve
from benchmarks.rows import COLD, WARM, Row
from benchmarks.shapes import FEW, Shape
from benchmarks.timing import of_samples
from tidegate.cells import CELLS
from tidegate.errors import TidegateError

_CELLS = {"lstm": CELLS["lstm"], **OWN}
_CALL = "import sys; from benchmarks.start import report; report(sys.argv[1], sys.argv[2])"


def first_calls(case: str, setting: Setting) -> Iterator[Row]:
    """A training step's first call: the layer is made, and goes forward and backward."""
    shape = FEW[0]
    for name in ("two_stages",) if setting.quick else ("lstm", "lstm_layer_norm", "two_stages"):
        pairs = [_cold_and_warm(name) for _ in range(1 if setting.quick else 3)]
        for what, found in zip((COLD, WARM), zip(*pairs, strict=True), strict=True):
            seconds = of_samples([f["seconds"] for f in found])
            yield Row(case, name, shape, what, "-", seconds, difference=max(f["difference"] for f in found))


def _cold_and_warm(name: str) -> tuple[dict[str, float], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        return _in_own_process(name, folder), _in_own_process(name, folder)


def _in_own_process(name: str, cache: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "found.json"
        run = subprocess.run(
            [sys.executable, "-c", _CALL, name, str(path)],
            cwd=ROOT,
            env=os.environ | {"TIDEGATE_CACHE": cache},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            raise TidegateError(f"the first call of {name} failed in its own process: {run.stderr.strip()[-500:]}")
        found: dict[str, float] = json.loads(path.read_text("utf-8"))
        return found


def report(name: str, path: str) -> None:
    """What the other process does: measure a cell's first call, and write it to a file."""
    Path(path).write_text(json.dumps(first_call(name, FEW[0])), "utf-8")


def first_call(name: str, shape: Shape) -> dict[str, float]:
    """Seconds that a cell's first training step takes, and how far its results are off."""
    module(of_torch("LSTM", shape), nn).training()  # torch's own first call is none of ours
    problem = of_cell(_CELLS[name], shape)
    start = time.perf_counter()
    contestant = layer(problem)
    raw = contestant.training()
    seconds = time.perf_counter() - start
    off = difference(contestant.named(raw), solve(problem, training=True))
    return {"seconds": seconds, "difference": off}
