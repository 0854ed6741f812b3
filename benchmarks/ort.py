"""onnxruntime's LSTM, GRU and RNN as peers, for inference: a model of one node, built here from the cell's weights.

The runtime itself is in a process of its own, `ort_worker.py`: its threads spin, and slow whatever shares theirs.
"""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.machine import ROOT
from benchmarks.problem import Problem
from benchmarks.timing import Elsewhere
from tidegate.errors import TidegateError

try:
    import onnx
except ModuleNotFoundError:
    onnx = None

LACKS = None if onnx and find_spec("onnxruntime") else "onnx and onnxruntime"

Array = NDArray[Any]
Names = tuple[str | None, ...]

_OPSET, _IR = 17, 9


class _Node:
    """By our cell: ONNX's operator, which of our weights make its W, R and B (None is zeros), and its options."""

    def __init__(self, kind: str, W: Names, R: Names, B: Names, **options: Any) -> None:
        self.kind, self.stacks, self.options = kind, {"W": W, "R": R, "B": B}, options


def _all(gates: str, end: str) -> Names:
    return tuple(f"{gate}{end}" for gate in gates)


NODES: Mapping[str, _Node] = {
    "lstm": _Node("LSTM", _all("iofg", ".x"), _all("iofg", ".h"), (*_all("iofg", ".bias"), *[None] * 4)),
    "gru_reset_after": _Node(
        "GRU",
        _all("zrn", ".x"),
        ("z.h", "r.h", "m.h"),
        (*_all("zrn", ".bias"), None, None, "m.bias"),
        linear_before_reset=1,
    ),
    "elman": _Node("RNN", ("h.x",), ("h.h",), ("h.bias", None)),
}


class Session:
    """A sequence, or with T = 1 a step. `forward` runs from the problem's states; `step` goes on from the last one."""

    def __init__(self, problem: Problem) -> None:
        states = {name: state.unsqueeze(0).numpy() for name, state in problem.states.items()}
        self._worker = _Worker(_model(problem).SerializeToString(), {"X": problem.x.numpy(), **states})
        self.forward = Elsewhere(partial(self._worker.seconds, "forward"))
        self.step = Elsewhere(partial(self._worker.seconds, "step"))

    def named(self, raw: object = None) -> dict[str, Tensor]:
        """What the last `forward` left, under the names of `problem.solve`."""
        return self._worker.results()

    @property
    def output(self) -> Tensor:
        """What the last call put out, `[T, B, H]`."""
        return self._worker.results()["y"].squeeze(1)

    def training(self) -> None:
        """The runtime only infers."""
        raise NotImplementedError


class _Worker:
    """The other process; it ends with this."""

    def __init__(self, model: bytes, inputs: Mapping[str, Array]) -> None:
        folder = TemporaryDirectory()
        self._folder = Path(folder.name)
        (self._folder / "model.onnx").write_bytes(model)
        np.savez(self._folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
        command = [sys.executable, "-m", "benchmarks.ort_worker", folder.name, str(torch.get_num_threads())]
        with (self._folder / "errors.txt").open("w") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        weakref.finalize(self, _end, self._process, folder)

    def seconds(self, what: str, count: int) -> float:
        """Those of one call, of so many."""
        return float(self._ask(f"{what} {count}"))

    def results(self) -> dict[str, Tensor]:
        """What the last call left."""
        self._ask("results")
        with np.load(self._folder / "results.npz") as found:
            return {name: torch.from_numpy(found[name]) for name in found.files}

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            said = (self._folder / "errors.txt").read_text("utf-8").strip()
            raise TidegateError(f"onnxruntime failed in its own process: {said[-500:]}")
        return answer


def _end(process: subprocess.Popen[str], folder: TemporaryDirectory[str]) -> None:
    process.kill()
    with process:  # closes its pipes and waits for it
        folder.cleanup()


def _model(problem: Problem) -> Any:
    node, shape = NODES[problem.cell.name], problem.shape
    T, B, H = shape.T, shape.B, shape.H
    states = list(problem.states)
    ends = [f"{name} at the end" for name in states]
    call = onnx.helper.make_node(
        node.kind, ["X", "W", "R", "B", "", *states], ["Y", *ends], hidden_size=H, **node.options
    )
    inputs = [_info("X", T, B, shape.I), *(_info(name, 1, B, H) for name in states)]
    outputs = [_info("Y", T, 1, B, H), *(_info(name, 1, B, H) for name in ends)]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in _weights(problem, node).items()]
    graph = onnx.helper.make_graph([call], problem.cell.name, inputs, outputs, weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=_IR)


def _info(name: str, *size: int) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size)


def _weights(problem: Problem, node: _Node) -> dict[str, Array]:
    named = problem.cell_weights
    zeros = torch.zeros(problem.shape.H)
    stacks = {k: torch.cat([zeros if n is None else named[n] for n in names]) for k, names in node.stacks.items()}
    return {name: stack.unsqueeze(0).numpy() for name, stack in stacks.items()}
