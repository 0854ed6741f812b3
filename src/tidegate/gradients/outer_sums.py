"""What steps add to a vector over weights: an outer product each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.native.run.workspace import WORKSPACE


@dataclass(frozen=True, eq=False)
class Additions:
    """What T steps of B rows add: outer products of `rows` `[B * n, T, r]` with what they read, `read` `[B * n, T, V]`.
    The r rows of each of n `parts` read the same. A vector over the weights is `[B, n, r, V]`."""

    rows: Tensor
    read: Tensor
    parts: int

    def squares(self) -> Tensor:
        """Of each addition with itself, `[B, T]`."""
        sizes = torch.linalg.vector_norm(self.rows, dim=2) * torch.linalg.vector_norm(self.read, dim=2)
        squares = sizes.square_()
        return squares if self.parts == 1 else squares.unflatten(0, (-1, self.parts)).sum(1)

    def summed(self, factors: Tensor) -> Tensor:
        """The sum of all additions times factors `[B, T]`, `[n, r, V]`."""
        each = factors if self.parts == 1 else factors.repeat_interleave(self.parts, 0)
        wide = self.rows.shape[2] > self.read.shape[2]
        narrow, other = (self.read, self.rows) if wide else (self.rows, self.read)
        narrow = torch.mul(narrow, each.unsqueeze(2), out=room(narrow, *narrow.shape))
        rows, read = (other, narrow) if wide else (narrow, other)
        if self.parts == 1:
            return (rows.flatten(0, 1).T @ read.flatten(0, 1)).unsqueeze(0)
        return torch.bmm(rows.mT, read).unflatten(0, (-1, self.parts)).sum(0)


def room(like: Tensor, *shape: int) -> Tensor:
    """A tensor of whatever was there before, in memory that is kept from call to call."""
    if not like.is_cpu:
        return like.new_empty(shape)
    lent = torch.from_numpy(WORKSPACE.lend(max(1, math.prod(shape)) * like.element_size()))
    return lent.view(like.dtype)[: math.prod(shape)].view(shape)
