"""A cell over time: one direction of one layer, on native kernels where there are any, else on the reference path.

Time-major: inputs `[T, B, size]`, states `[B, size]`, `lengths` `[B]`, `reset` `[T, B]`. The rules of `lengths` and
`reset` are those of docs/layers.md, for both directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.errors import NativeError
from tidegate.nn import native, native_autograd
from tidegate.nn.loop import Loop, Tensors
from tidegate.nn.native_call import NativeCell
from tidegate.nn.recipe import Recipe


class Sequence:
    """One cell with bound sizes, ready to run over any number of steps."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.graph, self.sizes = graph, dict(sizes)
        self.loop = Loop(graph, sizes)
        self._recipe, self._refused = _recipe(graph, sizes)
        self._cells: dict[torch.dtype, NativeCell | None] = {}

    def __deepcopy__(self, memo: object) -> Sequence:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Sequence, (self.graph, self.sizes)

    def __call__(
        self,
        weights: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        state: Tensors,
        start: Mapping[str, Tensor],
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        *,
        backwards: bool = False,
    ) -> tuple[Tensor, Tensors]:
        """The output `[T, B, size]`, zero where padded, and each row's state at its own end.

        `backwards`, each row is read from its own end.
        """
        given = self._native(weights, inputs, state, start, lengths, reset)
        if given is None:
            return self.loop(weights, inputs, state, start, lengths, reset, backwards=backwards)
        cell, tensors = given
        call = cell.call(*cell.recipe.steps_and_rows(tensors), backwards, lengths, reset)
        y, *ends = native_autograd.run(call, tensors)
        return y, dict(zip(cell.recipe.states, ends, strict=True))

    def _native(
        self,
        weights: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        state: Tensors,
        start: Mapping[str, Tensor],
        lengths: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[NativeCell, list[Tensor]] | None:
        if not native.enabled() or torch.compiler.is_compiling():
            return None
        if self._recipe is None:
            native.refuse(self.graph.name, self._refused)
            return None
        first = inputs[self._recipe.moving[0]]
        if not first.is_floating_point() or not first.numel() or (lengths is not None and not lengths.any()):
            return None
        if not native.fits(self.graph.name, [*weights.values(), *inputs.values(), *state.values(), *start.values()]):
            return None
        cell = self._cell(first.dtype)
        return None if cell is None else (cell, cell.recipe.tensors(weights, inputs, state, start))

    def _cell(self, dtype: torch.dtype) -> NativeCell | None:
        if dtype not in self._cells:
            assert self._recipe is not None
            self._cells[dtype] = native.native_cell(self._recipe, dtype)
        return self._cells[dtype]


def _recipe(graph: Graph, sizes: Mapping[str, int]) -> tuple[Recipe | None, str]:
    try:
        return Recipe(graph, sizes), ""
    except NativeError as error:
        return None, str(error)

