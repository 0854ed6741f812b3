"""A layer's call where all is as it was the last time: it tells kernels nothing but addresses.

To look at everything as the first call does takes a hundred microseconds, and a small net a few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from tidegate.native.tables import NEVER_ADDRESS, whole
from tidegate.nn import native, native_autograd
from tidegate.nn.native_call import DTYPES, NativeCell
from tidegate.nn.sequence import Sequence as OverTime
from tidegate.nn.state import Named, State
from tidegate.nn.weights import CellWeights
from tidegate.reference import bound


class Quick:
    """A call of so many steps and rows: `[T, B, I]`, and a State or None, to `[T, B, size]` and a State.

    None is the answer where something is out of the ordinary. The weights are read, and packed, at each call.
    """

    def __init__(self, weights: Sequence[CellWeights], cells: Sequence[NativeCell], steps: int, rows: int) -> None:
        self._weights, self._threads = tuple(weights), torch.get_num_threads()
        self._layers = [_Layer(w, cell, steps, rows) for w, cell in zip(weights, cells, strict=True)]
        self._first = self._layers[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _forgotten, ()  # a copy of a layer makes its own

    def serves(self, modules: Mapping[str, nn.Module | None]) -> bool:
        """Whether this still is what a layer of these modules does."""
        same = all(modules[f"l{k}"] is w for k, w in enumerate(self._weights))
        return same and torch.get_num_threads() == self._threads

    def __call__(self, x: Tensor, state: State | None) -> tuple[Tensor, State] | None:
        """Run."""
        first = self._first
        if not _as_is(x, first.x_shape, first.dtype):
            return None
        begins = [None] * len(self._layers) if state is None else state.layers
        if len(begins) != len(self._layers):
            return None
        given = [layer.given(begin) for layer, begin in zip(self._layers, begins, strict=True)]
        if None in given:
            return None
        ends, recording = [], torch.is_grad_enabled()
        for layer, tensors in zip(self._layers, given, strict=True):
            assert tensors is not None
            x, end = layer.record(x, tensors) if recording else layer(x, tensors)
            ends.append((end,))
        return x, State(ends)


def _forgotten() -> None:
    return None


def possible() -> bool:
    """Whether nothing is transformed, cast or compiled."""
    return (
        native.enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
    )


def quick(weights: Sequence[CellWeights], sequences: Sequence[OverTime], steps: int, rows: int) -> Quick | None:
    """A layer's quick call, if it has one: weights as they are given to a kernel, and one input."""
    dtype = next(iter(weights[0].tensors().values())).dtype
    if not steps * rows or dtype not in DTYPES:
        return None
    cells = [s.cell(dtype, indices=False) for s in sequences]
    found = [c for c in cells if c is not None and c.recipe.as_given is not None and len(c.inputs) == 1]
    return Quick(weights, found, steps, rows) if len(found) == len(cells) else None


class _Layer:
    """One layer's part."""

    def __init__(self, weights: CellWeights, cell: NativeCell, steps: int, rows: int) -> None:
        recipe = cell.recipe
        assert recipe.as_given is not None
        self._modules, self._children = [weights, *weights.children()], list(weights._modules.values())
        self._weights = [weights.place(name) for name in recipe.as_given]
        self._cell, self.dtype = cell, cell.dtype
        self.x_shape = torch.Size((steps, rows, *bound(recipe.graph.inputs[0].size, recipe.sizes)))
        self._y_shape = (steps, rows, recipe.width)
        self._states = [(n, torch.Size((rows, w))) for n, w in zip(recipe.states, recipe.state_widths, strict=True)]
        starts = [s.start for s in recipe.graph.states]
        with torch.inference_mode(False):
            self._starts = [
                torch.full((1, w), start, dtype=self.dtype).expand(rows, w)
                for w, start in zip(recipe.state_widths, starts, strict=True)
            ]
        self._call = cell.call(steps, rows, backwards=False, lengths=None, reset=None)
        self._free: list[_Prepared] = []

    def given(self, state: Sequence[Named] | None) -> list[Tensor] | None:
        """The weights and a state; None if they cannot be given to a kernel as they are."""
        dtype, found = self.dtype, []
        for parameters, name in self._weights:
            tensor = parameters.get(name)
            if tensor is None or tensor.dtype is not dtype or not tensor.is_contiguous() or not tensor.is_cpu:
                return None
            found.append(tensor)
        for module in self._modules:
            if module._forward_pre_hooks:
                return None
        if list(self._modules[0]._modules.values()) != self._children:
            return None
        if state is None:
            return found + self._starts
        if len(state) != 1 or len(state[0]) != len(self._states):
            return None
        named = state[0]
        for name, shape in self._states:
            tensor = named.get(name)
            if tensor is None or not _as_is(tensor, shape, dtype):
                return None
            found.append(tensor)
        return found

    def record(self, x: Tensor, given: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run, and let autograd know of it."""
        count = len(self._weights)
        y, *ends = native_autograd.run(self._call, [*given[:count], x, *given[count:], *self._starts])
        return y, {name: end for (name, _), end in zip(self._states, ends, strict=True)}

    def __call__(self, x: Tensor, given: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        try:
            prepared = self._free.pop()
        except IndexError:
            prepared = _Prepared(self._cell, self._call.shape.T, self._call.shape.B)
        arguments = prepared.arguments
        for place, tensor in zip(prepared.given, given, strict=True):
            arguments[place] = tensor.data_ptr()
        for place, tensor in zip(prepared.steps, given[len(self._weights) :], strict=True):
            arguments[place] = int(tensor.stride(0) != 0)
        y, end = self._cell.room(x, self._y_shape), {}
        arguments[prepared.x], arguments[prepared.y] = x.data_ptr(), y.data_ptr()
        for (name, shape), place in zip(self._states, prepared.ends, strict=True):
            end[name] = found = x.new_empty(shape)
            arguments[place] = found.data_ptr()
        prepared.run()
        self._free.append(prepared)
        return y, end


class _Prepared:
    """Arguments with working memory, of which one call at a time makes use, and where among them addresses stand."""

    def __init__(self, cell: NativeCell, steps: int, rows: int) -> None:
        recipe, ((x, ld),) = cell.recipe, cell.inputs
        self._tables = whole(steps, rows, backwards=False)  # kept, for what has an address must live
        given = self._tables.addresses | {"fresh": NEVER_ADDRESS, "ld.output": recipe.width}
        given |= {str(ld): bound(recipe.graph.inputs[0].size, recipe.sizes)[0]}
        given |= dict.fromkeys(cell.starts, cell.zeros_address)
        self.run = cell.kernel.bind("forward", cell.shape(steps, rows), given)
        self.arguments, place = self.run.arguments, self.run.place
        self.given = [*map(place, cell.weights), *(place(name) for name, _ in cell.begins)]
        self.steps = [place(name) for _, name in cell.begins]
        self.x, self.y, self.ends = place(x), place("output"), [place(name) for name, _ in cell.ends]


def _as_is(tensor: Tensor, shape: torch.Size, dtype: torch.dtype) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.shape == shape
        and tensor.dtype is dtype
        and tensor.is_contiguous()
        and tensor.is_cpu
        and not tensor.is_neg()
    )
