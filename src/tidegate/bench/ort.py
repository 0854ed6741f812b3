"""onnxruntime's LSTM, GRU and RNN as peers, for inference: a model of one node, built here from the cell's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidegate.bench.problem import Problem

try:
    import onnx
    import onnxruntime
except ModuleNotFoundError:
    onnx = onnxruntime = None

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
    """A sequence, or with T = 1 a step, on memory that stays bound: the runtime's fastest form of call.

    `forward` runs from the problem's states; `step` goes on from where the last one ended.
    """

    def __init__(self, problem: Problem) -> None:
        self._names = list(problem.slopes)
        self._session = _session(problem)
        rows = {name: state.unsqueeze(0).numpy() for name, state in problem.states.items()}
        T, B, H = problem.shape.T, problem.shape.B, problem.shape.H
        self._y = _value(np.zeros((T, 1, B, H), np.float32))
        self._states = [
            {n: _value(r.copy()) for n, r in rows.items()},
            {n: _value(np.zeros_like(r)) for n, r in rows.items()},
        ]
        x = _value(problem.x.numpy())
        self._calls = [self._bound(x, self._states[k], self._states[1 - k]) for k in range(2)]

    def _bound(self, x: Any, begin: Mapping[str, Any], end: Mapping[str, Any]) -> Any:
        call = self._session.io_binding()
        call.bind_ortvalue_input("X", x)
        call.bind_ortvalue_output("Y", self._y)
        for name in begin:
            call.bind_ortvalue_input(name, begin[name])
            call.bind_ortvalue_output(f"{name} at the end", end[name])
        return call

    def forward(self) -> None:
        """The whole sequence."""
        self._session.run_with_iobinding(self._calls[0])

    def step(self) -> None:
        """Go on by one call."""
        self._session.run_with_iobinding(self._calls[0])
        self._calls.reverse()
        self._states.reverse()

    def named(self, raw: object = None) -> dict[str, Tensor]:
        """What the last `forward` left, under the names of `problem.solve`."""
        values = [self._y, *self._states[1].values()]
        return {name: torch.from_numpy(v.numpy().copy()) for name, v in zip(self._names, values, strict=True)}

    @property
    def output(self) -> Tensor:
        """What the last call put out, `[T, B, H]`."""
        return torch.from_numpy(self._y.numpy().copy()).squeeze(1)

    def training(self) -> None:
        """The runtime only infers."""
        raise NotImplementedError


def _value(array: Array) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _session(problem: Problem) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    model = _model(problem).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


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
