"""Cells without a recurrence on kernels: steps are independent, so many of them become rows of one step."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from tidegate.equations.graph import StateVariable
from tidegate.equations.values import SCALAR
from tidegate.reference.unroll import UnrollArguments
from tidegate.runtime.cell_kernel import CellKernel

Tensors = Mapping[str, Tensor]
NOTHING = StateVariable("nothing", SCALAR)  # the state of such a cell: every cell must have one


class FeedForward:
    """A cell without a recurrence for T steps of B rows."""

    def __init__(self, cell: CellKernel, T: int, B: int, like: Tensor) -> None:
        rows = rows_at_once(T * B)
        self.inputs, self._shape, self._rows = cell.inputs, (T, B), (T * B // rows, rows)
        self._call = cell.call(*self._rows)
        self._nothing = {NOTHING.name: like.new_zeros(rows, 1)}

    def rows(self, x: Tensor) -> Tensor:
        """Steps `[T, B, size]` as rows of the few long steps."""
        return x.view(*self._rows, -1)

    def forward(self, weights: Tensors, inputs: Tensors) -> tuple[Tensor, list[Tensor]]:
        """The output `[T, B, size]` from inputs as `rows`, and what `backward` takes."""
        tensors = self.inputs.tensors(UnrollArguments(weights, inputs, self._nothing, self._nothing))
        y, *_, saved = self._call.forward(tensors, saving=True)
        return y.view(*self._shape, -1), [*tensors, saved]

    def backward(
        self, dy: Tensor, forward: Sequence[Tensor], needs: Sequence[str]
    ) -> tuple[list[Tensor | None], dict[str, Tensor]]:
        """The gradients of the values of weights, and of these inputs by name, `[T, B, size]`."""
        *tensors, saved = forward
        weights = self.inputs.parts[0]
        wanted = [*[True] * weights, *(n in needs for n in self.inputs.inputs), False, False]
        found = self._call.backward(wanted, [self.rows(dy.contiguous()), None], tensors, saved)
        of_inputs = zip(self.inputs.inputs, found[weights : weights + len(self.inputs.inputs)], strict=True)
        return found[:weights], {n: g.view(*self._shape, -1) for n, g in of_inputs if g is not None}


def rows_at_once(count: int) -> int:
    """Rows per step: a divisor of `count`, large enough for products and small enough for a cache."""
    wanted = 2 * math.isqrt(count)
    near = next(n for n in range(min(count, wanted), 0, -1) if not count % n)
    return near if 4 * near >= wanted else count
