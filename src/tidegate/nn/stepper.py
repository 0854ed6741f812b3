"""`Stepper`: one step at a time for streams, with a snapshot of the weights, on native kernels or numpy."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, Value
from tidegate.errors import ArgumentError
from tidegate.nn.arguments import check_flags
from tidegate.nn.state import State, check_is_state, check_state
from tidegate.reference import Program, bound, numpy_ops
from tidegate.runtime import support
from tidegate.runtime.bound_call import BoundStep
from tidegate.runtime.kernel_inputs import check_indices

Array = NDArray[Any]
NUMPY = (torch.float16, torch.float32, torch.float64)


class Stepper:
    """A layer's step for streaming, made by `layer.stepper(batch)`.

    The weights are a snapshot: training the layer afterwards does not change the stepper; make a new one. There is no
    autograd. `stepper(x_t)` takes `[B, I]` in numpy or torch (a mapping by input name where the cell has several),
    advances the state by one step, and returns `[B, size]` of the same kind: a view that the next call overwrites.
    `active=` `[B]` advances only the flagged rows; the others keep their state, and their output is 0. `reset(rows)`
    resets rows to the layer's initial state. `state` reads and sets the state as a State.
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
        self._weights = [{n: w.detach().cpu().clone() for n, w in named.items()} for named in weights]
        self._first = graph.inputs[0].name
        like = next(iter(self._state[0].values()))
        self._outputs = [np.zeros((len(like), *bound(graph.output_size, s)), like.dtype) for s in self._sizes]
        self._output = self._outputs[-1]
        self._as_torch = torch.from_numpy(self._output)
        self._arrays = {i.name: np.zeros((len(like), *bound(i.size, self._sizes[0])), like.dtype) for i in graph.inputs}
        self._alone = self._arrays[self._first] if len(graph.inputs) == 1 else None
        self._forget_kernels()

    def _forget_kernels(self) -> None:
        """Drop the kernels, which belong to one process; they are bound again when needed."""
        self._steps: list[BoundStep] = []
        self._index_steps: list[BoundStep] | None = None
        self._indices = np.zeros(len(self._output), np.int64)
        self._numpy: tuple[Program, list[dict[Value, Any]]] | None = None
        self._ready = False

    def __getstate__(self) -> dict[str, Any]:
        made = ("_steps", "_index_steps", "_numpy", "_as_torch")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._output, self._as_torch = self._outputs[-1], torch.from_numpy(self._outputs[-1])
        self._alone = self._arrays[self._first] if len(self._graph.inputs) == 1 else None
        self._forget_kernels()

    @property
    def batch(self) -> int:
        """The number of rows."""
        return int(self._output.shape[0])

    def __call__(self, x_t: Any, active: Any = None) -> Any:
        """Advance by one step; see the class."""
        alone = self._alone
        usual = active is None and self._steps and type(x_t) is np.ndarray
        if usual and alone is not None and x_t.shape == alone.shape and x_t.dtype == alone.dtype:
            alone[...] = x_t
            for step in self._steps:
                step()
            return self._output
        return self._general(x_t, active)

    def _general(self, x_t: Any, active: Any) -> Any:
        named = x_t if isinstance(x_t, Mapping) else {self._first: x_t}
        as_torch = any(isinstance(v, Tensor) for v in named.values())
        inputs = self._inputs(named)
        moves = self._active(active)
        steps = self._kernel_steps(one_hot=inputs[self._first].ndim == 1)
        if steps:
            self._move(steps, inputs, moves)
        else:
            self._by_numpy(inputs, moves)
        if moves is not None:
            self._output[~moves] = 0.0
        return self._as_torch if as_torch else self._output

    def _move(self, steps: list[BoundStep], inputs: dict[str, Array], moves: Array | None) -> None:
        for name, array in inputs.items():
            (self._indices if array.ndim == 1 else self._arrays[name])[...] = array
        for step in steps:
            if moves is None:
                step()
            else:
                step.move(moves)

    @np.errstate(all="ignore")  # as in torch, overflow gives infinity without a warning
    def _by_numpy(self, inputs: dict[str, Array], moves: Array | None) -> None:
        """One step on numpy, value by value."""
        graph, sizes = self._graph, self._sizes
        if self._numpy is None:
            fixed = [_prologue(graph, s, w) for s, w in zip(sizes, self._weights, strict=True)]
            self._numpy = Program(graph.roots), fixed
        program, fixed = self._numpy
        for k, (old, output) in enumerate(zip(self._state, self._outputs, strict=True)):
            env = fixed[k] | {value: inputs[name] for name, value in graph.input_values.items()}
            env |= {value: old[name] for name, value in graph.old.items()}
            y, *new = program(numpy_ops, sizes[k], env)
            y = np.array(np.broadcast_to(np.asarray(y, dtype=output.dtype), output.shape))
            fresh = {n: np.array(np.broadcast_to(v, old[n].shape)) for n, v in zip(graph.new, new, strict=True)}
            for name, value in fresh.items():  # last, because one state's new value may be another's old one
                old[name][...] = value if moves is None else np.where(moves[:, None], value, old[name])
            inputs = inputs | {self._first: y}
        self._output[...] = inputs[self._first]

    def _kernel_steps(self, one_hot: bool) -> list[BoundStep]:
        if not self._ready:
            self._steps, self._ready = self._compiled(one_hot=False), True
        if not one_hot or not self._steps:
            return self._steps
        if self._index_steps is None:
            self._index_steps = self._compiled(one_hot=True)
        return self._index_steps

    def _compiled(self, one_hot: bool) -> list[BoundStep]:
        """The layers' kernels; empty if kernels cannot run."""
        found: list[BoundStep] = []
        if not self.batch:
            return found
        for k, sizes in enumerate(self._sizes):
            tensors = [*self._weights[k].values(), *map(torch.from_numpy, self._state[k].values())]
            indices = one_hot and not k
            cell = support.cell_kernel(self._graph, sizes, tensors, indices=indices)
            if cell is None:
                return []
            first = self._outputs[k - 1] if k else self._indices if indices else self._arrays[self._first]
            inputs = [first if i.name == self._first else self._arrays[i.name] for i in self._graph.inputs]
            found.append(BoundStep(cell, self._weights[k], inputs, self._state[k], self._start[k], self._outputs[k]))
        return found

    def _inputs(self, named: Mapping[str, Any]) -> dict[str, Array]:
        wanted = {i.name: bound(i.size, self._sizes[0]) for i in self._graph.inputs}
        found = given_arrays(named, wanted)
        first = self._graph.inputs[0].name
        for name, size in wanted.items():
            one_hot = name == first and found[name].dtype.kind in "iu" and found[name].ndim == 1
            shape = (self.batch,) if one_hot else (self.batch, *size)
            if found[name].shape != shape or found[name].dtype.kind not in "fiub":
                raise ArgumentError(
                    f"input {name!r} must be numbers of shape {list(shape)}, got {list(found[name].shape)} of "
                    f"{found[name].dtype}"
                )
            if one_hot:
                check_indices(self._graph, found[name], self._sizes[0])
            else:
                found[name] = found[name].astype(self._output.dtype, copy=False)
        return found

    def _active(self, active: Any) -> Array | None:
        if active is None:
            return None
        moves = np.asarray(active.cpu() if isinstance(active, Tensor) else active)
        if moves.shape != (self.batch,) or moves.dtype.kind not in "biuf":
            raise ArgumentError(
                f"active must be one flag per row, [{self.batch}], got {list(moves.shape)} of {moves.dtype}"
            )
        check_flags("active", moves)
        return moves.astype(bool)

    def reset(self, rows: Any = None) -> None:
        """Reset these rows (default: all) to the layer's initial state."""
        chosen = slice(None) if rows is None else rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        try:
            for state, start in zip(self._state, self._start, strict=True):
                for name in state:
                    state[name][chosen] = start[name][0]
        except IndexError as error:
            raise ArgumentError(
                f"rows must be numbers from 0 to {self.batch - 1}, or one boolean per row, got {rows!r}"
            ) from error

    @property
    def state(self) -> State:
        """A copy of the current state."""
        return State([[{n: torch.from_numpy(a.copy()) for n, a in layer.items()}] for layer in self._state])

    @state.setter
    def state(self, state: State) -> None:
        check_is_state(state)
        check_state(state, self.state)
        _refuse_types_unknown_to_numpy(state)
        for mine, layer in zip(self._state, state.layers, strict=True):
            for name, array in _arrays(layer[0]).items():
                mine[name][...] = array


def given_arrays(named: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Array]:
    """A step's inputs as arrays, not copied. Raises ArgumentError for other names than those wanted."""
    if set(named) != set(wanted):
        got = ", ".join(map(str, named)) or "none"
        raise ArgumentError(f"the stepper takes the inputs {', '.join(wanted)}, got {got}")
    return {n: v.detach().cpu().numpy() if isinstance(v, Tensor) else np.asarray(v) for n, v in named.items()}


def _refuse_types_unknown_to_numpy(state: State) -> None:
    found = {t.dtype for layer in state.layers for t in layer[0].values()} - set(NUMPY)
    if found:
        raise ArgumentError(
            f"steppers run on numpy, which has no {found.pop()}: make one from a float32 copy, as in "
            "copy.deepcopy(layer).float().stepper()"
        )


def _arrays(named: Mapping[str, Tensor]) -> dict[str, Array]:
    return {n: np.array(t.detach().cpu().numpy(), order="C") for n, t in named.items()}


def _prologue(graph: Graph, sizes: Mapping[str, int], weights: Mapping[str, Tensor]) -> dict[Value, Any]:
    """The snapshot: the weights, and everything computed from weights only."""
    env: dict[Value, Any] = {graph.weights[n]: np.array(w.detach().cpu().numpy()) for n, w in weights.items()}
    Program([v for v in graph.values if v.rate == Rate.WEIGHTS])(numpy_ops, sizes, env)
    return env
