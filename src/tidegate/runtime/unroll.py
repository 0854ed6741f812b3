"""`Unroll`: one direction of one layer over time, on native kernels if they can run, else on the reference path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.errors import NativeError
from tidegate.reference import bound
from tidegate.reference.unroll import ReferenceUnroll, Tensors, UnrollArguments, steps_and_rows
from tidegate.runtime import autograd, operators, support
from tidegate.runtime.kernel_inputs import KernelInputs
from tidegate.runtime.masks import Masks, without_masks


class Unroll:
    """One cell with bound sizes, ready to run over any number of steps.

    It is `plain` if its kernels need only one input and `weights`, the ordered names. `average` is the cell with masks
    replaced by their expected values.
    """

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.graph, self.sizes = graph, dict(sizes)
        self.state_sizes = {s.name: bound(s.size, sizes)[0] for s in graph.states}
        self.reference = ReferenceUnroll(graph, sizes)
        self._inputs = [_kernel_inputs(graph, self.sizes, indices) for indices in (False, True)]
        inputs = self._inputs[0]
        as_given = inputs.as_given if inputs is not None and len(inputs.inputs) == 1 else None
        self.plain, self.weights = as_given is not None, as_given or []
        self.masks, average = Masks(graph, sizes), without_masks(graph)
        self.average = self if average is graph else Unroll(average, sizes)

    def __deepcopy__(self, memo: object) -> Unroll:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Unroll, (self.graph, self.sizes)

    def __call__(self, given: UnrollArguments) -> tuple[Tensor, Tensors]:
        """The output `[T, B, size]`, zero in padding, and each row's final state."""
        y, end = self._native(given) or self.reference(given)
        if not torch.is_grad_enabled() or torch.compiler.is_compiling() or self._has_steps(given):
            return y, end
        groups = given.weights, given.inputs, given.state, given.start
        needing = [t for group in groups for t in group.values() if t.requires_grad]
        zero = sum((t.flatten()[:0].sum() for t in needing), y.new_zeros(()))  # no step: every gradient is zero
        return y + zero, {n: e + zero for n, e in end.items()}

    def _has_steps(self, given: UnrollArguments) -> bool:
        """Whether there is a step to compute."""
        T, B = steps_and_rows(self.graph, given.inputs)
        try:
            lengths = support.unwrapped(given.lengths)
        except support.Batched:
            return True
        return T * B > 0 and (lengths is None or lengths.is_meta or bool(lengths.any()))

    def _native(self, given: UnrollArguments) -> tuple[Tensor, Tensors] | None:
        """The call on kernels; None if they cannot run it."""
        inputs = [given.inputs[i.name] for i in self.graph.inputs]
        indices = not inputs[0].is_floating_point()
        prepared = self._inputs[indices]
        if torch.compiler.is_compiling():
            if prepared is None:
                return None
            y, *last = operators.operators(
                prepared, prepared.tensors(given), given.lengths, given.reset, given.backwards
            )
            return y, dict(zip(prepared.states, last, strict=True))
        try:
            lengths, reset = support.unwrapped(given.lengths), support.unwrapped(given.reset)
        except support.Batched:
            return None
        tensors = [*given.weights.values(), *inputs[indices:], *given.state.values(), *given.start.values()]
        cell = support.cell_kernel(self.graph, self.sizes, tensors, indices=indices)
        if cell is None or not cell.inputs.has_steps(inputs, lengths):
            return None
        tensors = cell.inputs.tensors(given)
        call = cell.call(*cell.inputs.steps_and_rows(tensors), given.backwards, lengths, reset)
        y, *last = autograd.run(call, tensors)
        return y, dict(zip(cell.inputs.states, last, strict=True))


def _kernel_inputs(graph: Graph, sizes: Mapping[str, int], indices: bool) -> KernelInputs | None:
    try:
        return support.kernel_inputs(graph, tuple(sizes.items()), indices)
    except NativeError:
        return None
