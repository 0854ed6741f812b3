"""Cells without a recurrence on kernels: no step waits for another, so that steps are rows of a few long ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from tidegate.equations.graph import StateVariable
from tidegate.equations.values import SCALAR
from tidegate.runtime.bound_call import Held, HeldBackward
from tidegate.runtime.kernel_call import CellKernel

Tensors = Mapping[str, Tensor]
NOTHING = StateVariable("nothing", SCALAR)  # the state of such a cell, for every cell has to have one


class Rowwise:
    """Such a cell for T steps of B rows, which `Rowwise.held` binds to tensors that stay where they are."""

    def __init__(self, cell: CellKernel, T: int, B: int, like: Tensor) -> None:
        rows = rows_at_once(T * B)
        self.recipe, self._shape, self._rows = cell.recipe, (T, B), (T * B // rows, rows)
        self._call = cell.call(*self._rows, backwards=False, lengths=None, reset=None)
        self._nothing = {NOTHING.name: like.new_zeros(rows, 1)}

    def held(self, weights: Tensors, inputs: Tensors, given: Sequence[str], needs: Sequence[str]) -> HeldRows:
        """Bound to its inputs `[T, B, size]`, of which those that are `given` are others at each run; and its backward
        pass, for all weights and the inputs that it `needs`."""
        recipe, call = self.recipe, self._call
        named = {n: self.as_rows(inputs[n]) for n in recipe.inputs}
        tensors = recipe.tensors(weights, named, self._nothing, self._nothing)
        moving = [k for k, n in enumerate(recipe.inputs) if n in given]
        y, kept = call.output(), call.kept()
        run = Held(call, tensors, moving, y, kept)
        wanted = [*[True] * recipe.parts[0], *(n in needs for n in recipe.inputs), False, False]
        back = HeldBackward(call, tensors, moving, kept, wanted)
        return HeldRows(self, run, back, y.view(*self._shape, -1), [recipe.inputs[k] for k in moving])

    def as_rows(self, x: Tensor) -> Tensor:
        """Steps and rows as rows of the few steps."""
        return x.view(*self._rows, -1)


class HeldRows:
    """A bound cell; `y` `[T, B, size]` is the output of the last run, and `of_inputs` by name, of the same form,
    are gradients of inputs."""

    def __init__(self, cell: Rowwise, run: Held, back: HeldBackward, y: Tensor, given: Sequence[str]) -> None:
        self.y, self._cell, self._run, self._back, self._given = y, cell, run, back, given
        self.nbytes = run.nbytes + back.nbytes
        of_inputs = zip(cell.recipe.inputs, back.of_inputs, strict=True)
        self.of_inputs = {n: g.view(y.shape[0], y.shape[1], -1) for n, g in of_inputs if g is not None}
        self._weights: list[Tensor] = []
        self._inputs: list[Tensor] = []

    def __call__(self, weights: Tensors, inputs: Tensors) -> None:
        """Run, with these weights and what is given, contiguous."""
        self._weights = self._cell.recipe.fixed(weights)
        self._inputs = [self._cell.as_rows(inputs[n]) for n in self._given]
        self._run(self._weights, self._inputs)

    def backward(self, slope: Tensor) -> list[Tensor | None]:
        """From the slope in the last output the gradients of the values of weights; `of_inputs` holds the others."""
        return self._back(self._weights, self._inputs, self._cell.as_rows(slope.contiguous()))


def rows_at_once(count: int) -> int:
    """How many of so many rows make a step: a divisor of them, enough for products and few enough for a cache."""
    wanted = 2 * math.isqrt(count)
    near = next(n for n in range(min(count, wanted), 0, -1) if not count % n)
    return near if 4 * near >= wanted else count
