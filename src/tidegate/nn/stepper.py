"""`Stepper`: one step at a time, for streams, on numpy with a snapshot of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, Value
from tidegate.errors import ArgumentError
from tidegate.nn.arguments import check_indices
from tidegate.nn.state import State, check_state
from tidegate.reference import Program, bound, numpy_ops

Array = NDArray[Any]
NUMPY = (torch.float16, torch.float32, torch.float64)


class Stepper:
    """A layer's step for streaming, made by `layer.stepper(batch)`.

    The weights are a snapshot: training the layer afterwards does not change the stepper; make a new one. There is no
    autograd. `stepper(x_t)` takes `[B, I]` in numpy or torch (a mapping by input name where the cell has several),
    moves the state by one step, and returns `[B, size]` of the same kind: a view that the next call overwrites.
    `active=` `[B]` moves only the flagged rows; the others keep their state, and their output is 0. `reset(rows)` puts
    rows back to the layer's start. `state` reads and sets the state as a State.
    """

    def __init__(
        self,
        graph: Graph,
        sizes: Sequence[Mapping[str, int]],
        weights: Sequence[Mapping[str, Tensor]],
        state: State,
        start: State,
    ) -> None:
        self._graph, self._sizes = graph, [dict(s) for s in sizes]
        _refuse_types_unknown_to_numpy(state)
        self._start = [_arrays(layer[0]) for layer in start.layers]
        self._state = [_arrays(layer[0]) for layer in state.layers]
        self._program = Program(graph.roots)
        self._fixed = [_prologue(graph, s, w) for s, w in zip(self._sizes, weights, strict=True)]
        width = bound(graph.output_size, self._sizes[-1])
        self._output = np.zeros((state.batch_size, *width), dtype=next(iter(self._state[0].values())).dtype)

    @property
    def batch(self) -> int:
        """How many rows there are."""
        return int(self._output.shape[0])

    def __call__(self, x_t: Any, active: Any = None) -> Any:
        """Move by one step; see the class."""
        named = x_t if isinstance(x_t, Mapping) else {self._graph.inputs[0].name: x_t}
        as_torch = any(isinstance(v, Tensor) for v in named.values())
        inputs = self._inputs(named)
        moves = self._active(active)
        with np.errstate(all="ignore"):  # as torch: what overflows is infinite, and no warning
            for k, fixed in enumerate(self._fixed):
                inputs[self._graph.inputs[0].name] = self._layer(k, fixed, inputs, moves)
        self._output[...] = inputs[self._graph.inputs[0].name]
        if moves is not None:
            self._output[~moves] = 0.0
        return torch.from_numpy(self._output) if as_torch else self._output

    def _layer(self, k: int, fixed: Mapping[Value, Any], inputs: dict[str, Array], moves: Array | None) -> Array:
        old = self._state[k]
        env = dict(fixed)
        for name, value in self._graph.input_values.items():
            env[value] = inputs[name]
        for name, value in self._graph.old.items():
            env[value] = old[name]
        output, *new = self._program(numpy_ops, self._sizes[k], env)
        for name, value in zip(self._graph.new, new, strict=True):
            fresh = np.broadcast_to(np.asarray(value, dtype=old[name].dtype), old[name].shape)
            old[name] = np.array(fresh) if moves is None else np.where(moves[:, None], fresh, old[name])
        width = bound(self._graph.output_size, self._sizes[k])
        return np.broadcast_to(np.asarray(output, dtype=self._output.dtype), (self.batch, *width))

    def _inputs(self, named: Mapping[str, Any]) -> dict[str, Array]:
        wanted = {i.name: bound(i.size, self._sizes[0]) for i in self._graph.inputs}
        if set(named) != set(wanted):
            raise ArgumentError(
                f"the stepper takes the inputs {', '.join(wanted)}, and {', '.join(map(str, named)) or 'none'} came"
            )
        found = {n: v.detach().cpu().numpy() if isinstance(v, Tensor) else np.asarray(v) for n, v in named.items()}
        first = self._graph.inputs[0].name
        for name, size in wanted.items():
            one_hot = name == first and found[name].dtype.kind in "iu" and found[name].ndim == 1
            shape = (self.batch,) if one_hot else (self.batch, *size)
            if found[name].shape != shape or found[name].dtype.kind not in "fiub":
                raise ArgumentError(
                    f"input {name!r} must be numbers of {list(shape)}, and {list(found[name].shape)} of "
                    f"{found[name].dtype} came"
                )
            if one_hot:
                check_indices(self._graph, found[name], self._sizes[0])
            else:
                found[name] = found[name].astype(self._output.dtype, copy=False)
        return found

    def _active(self, active: Any) -> Array | None:
        if active is None:
            return None
        moves = np.asarray(active.cpu() if isinstance(active, Tensor) else active, dtype=bool)
        if moves.shape != (self.batch,):
            raise ArgumentError(f"active is one flag a row, [{self.batch}], and {list(moves.shape)} came")
        return moves

    def reset(self, rows: Any = None) -> None:
        """Put these rows (all, unless given) back to the layer's own start."""
        chosen = slice(None) if rows is None else rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        for state, start in zip(self._state, self._start, strict=True):
            for name in state:
                state[name][chosen] = start[name][0]

    @property
    def state(self) -> State:
        """The state as it is now; a copy."""
        return State([[{n: torch.from_numpy(a.copy()) for n, a in layer.items()}] for layer in self._state])

    @state.setter
    def state(self, state: State) -> None:
        if not isinstance(state, State):
            raise ArgumentError(f"state is a tidegate.State, as a layer returns it, and a {type(state).__name__} came")
        check_state(state, self.state)
        _refuse_types_unknown_to_numpy(state)
        new = [_arrays(layer[0]) for layer in state.layers]
        self._state = [
            {n: a.astype(old[n].dtype) for n, a in fresh.items()} for fresh, old in zip(new, self._state, strict=True)
        ]


def _refuse_types_unknown_to_numpy(state: State) -> None:
    found = {t.dtype for layer in state.layers for t in layer[0].values()} - set(NUMPY)
    if found:
        raise ArgumentError(
            f"a stepper runs on numpy, which knows no {found.pop()}: make it of a copy in float32, as in "
            "copy.deepcopy(layer).float().stepper()"
        )


def _arrays(named: Mapping[str, Tensor]) -> dict[str, Array]:
    return {n: np.array(t.detach().cpu().numpy()) for n, t in named.items()}


def _prologue(graph: Graph, sizes: Mapping[str, int], weights: Mapping[str, Tensor]) -> dict[Value, Any]:
    """The snapshot: the weights, and all that is computed from weights only."""
    env: dict[Value, Any] = {graph.weights[n]: np.array(w.detach().cpu().numpy()) for n, w in weights.items()}
    Program([v for v in graph.values if v.rate == Rate.WEIGHTS])(numpy_ops, sizes, env)
    return env
