"""onnxruntime's side of a contest, in a process of its own: it makes calls and takes their time.

    python -m benchmarks.ort_worker FOLDER THREADS

FOLDER holds `model.onnx` and `inputs.npz`. A line `forward 20` or `step 20` asks for so many calls: the answer is the
seconds of one. After `results` what the last call left is in `results.npz`. An answer comes when no thread is busy any
more: the runtime's threads spin for a while after a call, and would take a processor from whoever is next.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.timing import seconds, settle


class Session:
    """A sequence, or with T = 1 a step, on memory that stays bound: the runtime's fastest form of call.

    `forward` runs from the given states; `step` goes on from where the last one ended.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model, providers = str(folder / "model.onnx"), ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(model, options, providers=providers)
        y, *_ = self._session.get_outputs()
        with np.load(folder / "inputs.npz") as given:
            x, rows = _value(given["X"]), {name: given[name] for name in given.files if name != "X"}
        self._y = _value(np.zeros(y.shape, np.float32))
        self._states = [
            {n: _value(r) for n, r in rows.items()},
            {n: _value(np.zeros_like(r)) for n, r in rows.items()},
        ]
        self._calls = [self._bound(x, self._states[k], self._states[1 - k]) for k in range(2)]

    def _bound(self, x: Any, begin: Mapping[str, Any], end: Mapping[str, Any]) -> Any:
        call = self._session.io_binding()
        call.bind_ortvalue_input("X", x)
        call.bind_ortvalue_output("Y", self._y)
        for name in begin:
            call.bind_ortvalue_input(name, begin[name])
            call.bind_ortvalue_output(f"{name} at the end", end[name])
        return call

    def answer(self, what: str, count: str = "1") -> float | str:
        """What a line asks for."""
        calls = {"forward": self._forward, "step": self._step}
        if what in calls:
            taken = seconds(calls[what], int(count))
            settle()
            return taken
        ends = {f"{name} at the end": value.numpy() for name, value in self._states[1].items()}
        np.savez(self._folder / "results.npz", y=self._y.numpy(), **ends)
        return "written"

    def _forward(self) -> None:
        self._session.run_with_iobinding(self._calls[0])

    def _step(self) -> None:
        self._session.run_with_iobinding(self._calls[0])
        self._calls.reverse()
        self._states.reverse()


def _value(array: Any) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def main(folder: str, threads: str) -> None:
    """Answer until the standard input ends."""
    session = Session(Path(folder), int(threads))
    for line in sys.stdin:
        sys.stdout.write(f"{session.answer(*line.split())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
