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
from tidegate.reference import bound
from tidegate.reference.unroll import ReferenceUnroll, Tensors
from tidegate.runtime import autograd, operators, support
from tidegate.runtime.kernel_call import CellKernel
from tidegate.runtime.kernel_inputs import KernelInputs
from tidegate.runtime.masks import Masks, without_masks


class Unroll:
    """One cell with bound sizes, ready to run over any number of steps.

    It is `plain` where kernels are given nothing but one input and `weights`, the names in their order. `average` is
    the same with the chances of masks in their place.
    """

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.graph, self.sizes = graph, dict(sizes)
        self.state_sizes = {s.name: bound(s.size, sizes)[0] for s in graph.states}
        self.loop = ReferenceUnroll(graph, sizes)
        self._recipes = [support.recipe(graph, tuple(self.sizes.items()), indices) for indices in (False, True)]
        recipe = self._recipes[0]
        as_given = recipe.as_given if isinstance(recipe, KernelInputs) and len(recipe.inputs) == 1 else None
        self.plain, self.weights = as_given is not None, as_given or []
        self.masks, average = Masks(graph, sizes), without_masks(graph)
        self.average = self if average is graph else Unroll(average, sizes)
        self._cells: dict[tuple[torch.dtype, bool], CellKernel | None] = {}

    def __deepcopy__(self, memo: object) -> Unroll:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Unroll, (self.graph, self.sizes)

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
        native_call = self._native(weights, inputs, state, start, lengths, reset, backwards)
        if native_call is None:
            return self.loop(weights, inputs, state, start, lengths, reset, backwards=backwards)
        return native_call

    def _native(
        self,
        weights: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        state: Tensors,
        start: Mapping[str, Tensor],
        lengths: Tensor | None,
        reset: Tensor | None,
        backwards: bool,
    ) -> tuple[Tensor, Tensors] | None:
        """The same by kernels, where there are any for such a call."""
        given = [inputs[i.name] for i in self.graph.inputs]
        indices = not given[0].is_floating_point()
        recipe = self._recipes[indices]
        if torch.compiler.is_compiling():
            if isinstance(recipe, str):
                return None
            tensors = recipe.tensors(weights, inputs, state, start)
            y, *last = operators.operators(recipe, tensors, lengths, reset, backwards)
            return y, dict(zip(recipe.states, last, strict=True))
        if not support.enabled() or not given[0].is_cpu:
            return None
        if not support.fits(self.graph.name, [*weights.values(), *given[indices:], *state.values(), *start.values()]):
            return None
        try:
            ends, flags = support.plain(lengths), support.plain(reset)
        except support.Batched:
            return None
        cell = self.cell(next(iter(state.values())).dtype, indices)
        if cell is None or not cell.recipe.has_steps(given, ends):
            return None
        tensors = cell.recipe.tensors(weights, inputs, state, start)
        call = cell.call(*cell.recipe.steps_and_rows(tensors), backwards, ends, flags)
        y, *last = autograd.run(call, tensors)
        return y, dict(zip(cell.recipe.states, last, strict=True))

    def cell(self, dtype: torch.dtype, indices: bool) -> CellKernel | None:
        """The kernels for numbers of a type, if there are any."""
        key = dtype, indices
        if key not in self._cells:
            self._cells[key] = support.native_cell(self._recipes[indices], self.graph.name, dtype)
        return self._cells[key]
