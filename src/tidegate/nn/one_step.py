"""A layer's step without autograd, where all is as it was the last time: only addresses are told to the kernels anew.

A step of a small net takes a microsecond; to look at everything as a call over time does would take a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from tidegate.native.tables import NEVER_ADDRESS, whole
from tidegate.nn import native
from tidegate.nn.native_call import NativeCell
from tidegate.nn.sequence import Sequence as OverTime
from tidegate.nn.state import Named, State
from tidegate.nn.weights import CellWeights
from tidegate.reference import bound


class OneStep:
    """A step of so many rows: `[B, I]` and a State to `[B, size]` and a State, or None for what is out of the ordinary.

    The weights are read, and packed, at each step.
    """

    def __init__(self, weights: Sequence[CellWeights], cells: Sequence[NativeCell], rows: int) -> None:
        self._weights, self._rows, self._threads = tuple(weights), rows, torch.get_num_threads()
        self._layers = [_Layer(w, cell, rows) for w, cell in zip(weights, cells, strict=True)]

    def __reduce__(self) -> tuple[Any, ...]:
        return _forgotten, ()  # a copy of a layer makes its own

    def serves(self, modules: Mapping[str, nn.Module | None], rows: int) -> bool:
        """Whether this is still the step of a layer of these modules, for so many rows."""
        same = all(modules[f"l{k}"] is w for k, w in enumerate(self._weights))
        return same and rows == self._rows and torch.get_num_threads() == self._threads

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, State] | None:
        """Move by one step."""
        if len(state.layers) != len(self._layers) or not _as_is(x, self._layers[0].x_shape, self._layers[0].dtype):
            return None
        ready, ends = [], []
        for layer, begin in zip(self._layers, state.layers, strict=True):
            addresses = layer.addresses(begin)
            if addresses is None:
                return None
            ready.append(addresses)
        for layer, addresses in zip(self._layers, ready, strict=True):
            x, end = layer(x, addresses)
            ends.append((end,))
        return x, State(ends)


def _forgotten() -> None:
    return None


def possible() -> bool:
    """Whether nothing has to be recorded, transformed, cast or compiled."""
    return (
        not torch.is_grad_enabled()
        and native.enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
    )


def one_step(weights: Sequence[CellWeights], sequences: Sequence[OverTime], rows: int) -> OneStep | None:
    """A layer's step, if it has such a one: weights as they are given to a kernel, and one input."""
    dtype = next(iter(weights[0].tensors().values())).dtype
    cells = [s.cell(dtype, indices=False) for s in sequences]
    found = [c for c in cells if c is not None and c.recipe.as_given and len(c.recipe.inputs) == 1]
    return OneStep(weights, found, rows) if rows and len(found) == len(cells) else None


class _Layer:
    """One layer's step."""

    def __init__(self, weights: CellWeights, cell: NativeCell, rows: int) -> None:
        recipe = cell.recipe
        assert recipe.as_given is not None
        self._modules, self._children = [weights, *weights.children()], list(weights._modules.values())
        self._weights = [weights.place(name) for name in recipe.as_given]
        self._cell, self._rows, self.dtype = cell, rows, cell.dtype
        self.x_shape = torch.Size((rows, *bound(recipe.graph.inputs[0].size, recipe.sizes)))
        self._y_shape = torch.Size((rows, recipe.width))
        self._states = [(n, torch.Size((rows, w))) for n, w in zip(recipe.states, recipe.state_widths, strict=True)]
        self._free: list[_Prepared] = []

    def addresses(self, state: Sequence[Named]) -> list[int] | None:
        """Those of the weights and of a state; None if they cannot be given to a kernel as they are."""
        if len(state) != 1 or len(state[0]) != len(self._states):
            return None
        dtype, named, found = self.dtype, state[0], []
        for parameters, name in self._weights:
            tensor = parameters.get(name)
            if tensor is None or tensor.dtype is not dtype or not tensor.is_contiguous() or not tensor.is_cpu:
                return None
            found.append(tensor.data_ptr())
        for name, shape in self._states:
            tensor = named.get(name)
            if not _as_is(tensor, shape, dtype):
                return None
            found.append(tensor.data_ptr())  # type: ignore[union-attr]
        for module in self._modules:
            if module._forward_pre_hooks:
                return None
        return found if list(self._modules[0]._modules.values()) == self._children else None

    def __call__(self, x: Tensor, addresses: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        try:
            prepared = self._free.pop()
        except IndexError:
            prepared = _Prepared(self._cell, self._rows)
        arguments = prepared.arguments
        for place, address in zip(prepared.given, addresses, strict=True):
            arguments[place] = address
        y, end = x.new_empty(self._y_shape), {}
        arguments[prepared.x], arguments[prepared.y] = x.data_ptr(), y.data_ptr()
        for (name, shape), place in zip(self._states, prepared.ends, strict=True):
            end[name] = found = x.new_empty(shape)
            arguments[place] = found.data_ptr()
        prepared.run()
        self._free.append(prepared)
        return y, end


class _Prepared:
    """Arguments with working memory, of which one call at a time makes use, and where among them addresses stand."""

    def __init__(self, cell: NativeCell, rows: int) -> None:
        recipe, ((x, ld),) = cell.recipe, cell.inputs
        given = whole(1, rows, backwards=False).addresses | {"fresh": NEVER_ADDRESS, "ld.output": recipe.width}
        given |= {str(ld): bound(recipe.graph.inputs[0].size, recipe.sizes)[0]} | {step: 1 for _, step in cell.begins}
        given |= dict.fromkeys(cell.starts, cell.zeros_address)
        self.run = cell.kernel.bind("forward", cell.shape(1, rows), given)
        self.arguments, place = self.run.arguments, self.run.place
        self.given = [*map(place, cell.weights), *(place(name) for name, _ in cell.begins)]
        self.x, self.y, self.ends = place(x), place("output"), [place(name) for name, _ in cell.ends]


def _as_is(tensor: Any, shape: torch.Size, dtype: torch.dtype) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.shape == shape
        and tensor.dtype is dtype
        and tensor.is_contiguous()
        and tensor.is_cpu
        and not tensor.is_neg()
    )
