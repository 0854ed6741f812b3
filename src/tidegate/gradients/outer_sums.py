"""A vector over weights as a sum that grows by an outer product a step: known by factors for a block of steps.

While weights stand still, what UORO carries over the weights is, after each step of a block, a combination of what it
was before the block and of the steps' own outer products. Its size follows from their products with each other, and
gradients take one product of matrices a sequence, so that no step goes over all weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tidegate.native.workspace import WORKSPACE


@dataclass(frozen=True, eq=False)
class Additions:
    """What T steps of B rows add, in blocks of `steps`: outer products of `rows` `[B * n, T, r]` with what they read,
    `read` `[B * n, T, V]`. The r rows of each of n `parts` read the same. A vector over the weights is `[B, n, r, V]`.
    """

    rows: Tensor
    read: Tensor
    parts: int
    steps: int

    def squares(self) -> Tensor:
        """Of each addition with itself, `[B, T]`."""
        sizes = torch.linalg.vector_norm(self.rows, dim=2) * torch.linalg.vector_norm(self.read, dim=2)
        return self._over_parts(sizes.square())

    def each(self, into: Tensor, *, more: bool = False) -> None:
        """Write the products of the additions of each block with each other into `[B, blocks, steps, steps]`, or add
        `more` to what is there."""
        rows, read = (t.unflatten(1, (-1, self.steps)).flatten(0, 1) for t in (self.rows, self.read))
        of_rows, of_read = (room(rows, len(rows), self.steps, self.steps) for _ in range(2))
        torch.bmm(rows, rows.mT, out=of_rows)
        torch.bmm(read, read.mT, out=of_read)
        left, right = (t.unflatten(0, (len(self.rows), -1)) for t in (of_rows, of_read))
        if self.parts > 1:
            left, right = self._over_parts(left.mul_(right)), left.new_ones(())
        if more:
            into.addcmul_(left, right)
        else:
            torch.mul(left, right, out=into)

    def scale(self, factors: Tensor) -> None:
        """Multiply each by its factor `[B, T]`, in place."""
        self.rows.mul_(self._each_part(factors).unsqueeze(2))

    @cached_property
    def by_block(self) -> list[tuple[Tensor, Tensor]]:
        """Rows, and what they read, of each block; as plain matrices where that is all there is."""
        rows, read = (t[0].split(self.steps) if self._plain else t.split(self.steps, 1) for t in (self.rows, self.read))
        return list(zip(rows, read, strict=True))

    @property
    def _plain(self) -> bool:
        return len(self.rows) == 1

    def with_outer(self, outer: Tensor, block: int) -> Tensor:
        """The products of a block's additions with a vector over the weights, `[B, steps]`."""
        rows, read = self.by_block[block]
        if self._plain:
            return torch.mm(rows, outer[0, 0]).mul_(read).sum(1).unsqueeze(0)
        return self._over_parts(torch.bmm(rows, outer.flatten(0, 1)).mul_(read).sum(2))

    def onto(self, outer: Tensor, first: Tensor, factors: Tensor, block: int) -> Tensor:
        """That vector times `first` `[B, 1]`, with a block's additions times `factors` `[B, steps]`."""
        rows, read = self.by_block[block]
        if self._plain:
            return torch.addmm(outer[0, 0], (rows * factors.T).T, read, beta=first.item()).view(outer.shape)
        scaled = rows * self._each_part(factors).unsqueeze(2)
        given = (outer * first[:, :, None, None]).flatten(0, 1)
        return given.baddbmm_(scaled.mT, read).view(outer.shape)

    def summed(self, factors: Tensor) -> Tensor:
        """The sum of all additions times factors `[B, T]`, `[n, r, V]`."""
        rows = torch.mul(self.rows, self._each_part(factors).unsqueeze(2), out=room(self.rows, *self.rows.shape))
        if self.parts == 1:
            return (rows.flatten(0, 1).T @ self.read.flatten(0, 1)).unsqueeze(0)
        return torch.bmm(rows.mT, self.read).unflatten(0, (-1, self.parts)).sum(0)

    def _over_parts(self, found: Tensor) -> Tensor:
        return found if self.parts == 1 else found.unflatten(0, (-1, self.parts)).sum(1)

    def _each_part(self, factors: Tensor) -> Tensor:
        return factors if self.parts == 1 else factors.repeat_interleave(self.parts, 0)


def room(like: Tensor, *shape: int) -> Tensor:
    """A tensor of whatever was there before, in memory that is kept from call to call."""
    if not like.is_cpu:
        return like.new_empty(shape)
    lent = torch.from_numpy(WORKSPACE.lend(max(1, math.prod(shape)) * like.element_size()))
    return lent.view(like.dtype)[: math.prod(shape)].view(shape)
