"""A vector over weights as a sum that grows by an outer product a step: known by factors for a block of steps.

While weights stand still, what UORO carries over the weights is, after each step of a block, a combination of what it
was before the block and of the steps' own outer products. Its size follows from their products with each other, and
gradients take one product of matrices a block, so that no step goes over all weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
TINY = 1e-7


@dataclass(frozen=True)
class Additions:
    """What T steps add: outer products of `rows` `[B, n, T, r]` with what they read `[B, n, T, V]`. The r rows of each
    of n parts read the same."""

    rows: Tensor
    read: Tensor

    @classmethod
    def of(cls, rows: Tensor, read: Tensor) -> Additions:
        """Of `[T, B, rows]` and `[T, B, 1 or rows, V]`."""
        return cls(rows.unflatten(2, (read.shape[2], -1)).permute(1, 2, 0, 3), read.permute(1, 2, 0, 3))

    def between(self, start: int, stop: int) -> Additions:
        """Those of some steps."""
        return Additions(self.rows[:, :, start:stop], self.read[:, :, start:stop])

    def products(self, outer: Tensor) -> Tensor:
        """Of each addition with a vector over the weights `[B, rows, V]` and with each addition, `[B, T, 1 + T]`."""
        apart = outer.unflatten(1, (self.rows.shape[1], -1))
        first = torch.einsum("bntv,bntv->bt", self.rows @ apart, self.read)
        each = ((self.rows @ self.rows.mT) * (self.read @ self.read.mT)).sum(1)
        return torch.cat([first.unsqueeze(-1), each], 2)

    def combined(self, outer: Tensor, factors: Tensor) -> Tensor:
        """The sum of that vector and the additions times factors `[B, 1 + T]`, as `[B, rows, V]`."""
        weighted = self.rows * factors[:, None, 1:, None]
        return torch.addcmul((weighted.mT @ self.read).flatten(1, 2), outer, factors[:, 0].view(-1, 1, 1))


def course(
    A: Tensor, s: Tensor, signs: Tensor, outer: Sequence[Tensor], new: Sequence[Additions]
) -> tuple[Tensor, Tensor]:
    """UORO's vector over states after each step, `[T, B, D]`, and factors of that over weights, `[T, B, 1 + T]`.

    `A` `[T, B, D, D]` are the Jacobians, `s` `[B, D]` is the vector before, and `outer` with `new` are by groups. What
    is left to do step by step is little, and numpy's small operations are quicker than torch's.
    """
    products = torch.stack([n.products(o) for n, o in zip(new, outer, strict=True)]).sum(0)
    size = torch.cat([o.flatten(1) for o in outer], 1).norm(dim=1)
    found = _followed(*(t.cpu().numpy() for t in (A, s, signs, products.transpose(0, 1), size)))
    return found[0].to(s.device), found[1].to(s.device)


def _followed(A: Array, s: Array, signs: Array, products: Array, size: Array) -> tuple[Tensor, Tensor]:
    """The same for `products` `[T, B, 1 + T]` of the additions, and `size` `[B]` of the vector over weights before."""
    T, B, D = signs.shape
    squares = products[:, :, 1:].diagonal(axis1=0, axis2=2).T[:, :, None]
    drive = _ratio(np.sqrt(squares), np.linalg.norm(signs, axis=-1, keepdims=True))
    driven, twice, own, once = (drive * signs)[..., None], 2 / drive, squares / drive**2, 1 / drive
    vectors, factors = np.empty((T, B, D, 1), s.dtype), np.zeros((T, B, 1 + T), s.dtype)
    vector, factor, norm = s[:, :, None], np.eye(1, 1 + T, dtype=s.dtype).repeat(B, 0), size[:, None]
    for t in range(T):
        moved = np.matmul(A[t], vector)
        keep = _ratio(norm, np.sqrt(np.square(moved).sum(1)))
        factor = np.divide(factor, keep, out=factors[t])
        shared = (factor * products[t]).sum(1, keepdims=True)
        norm = np.sqrt(np.maximum(np.square(norm / keep) + twice[t] * shared + own[t], 0.0))
        factor[:, t + 1 : t + 2] = once[t]
        vector = np.add(moved * keep[:, :, None], driven[t], out=vectors[t])
    return torch.from_numpy(vectors[..., 0]), torch.from_numpy(factors)


def _ratio(weights: Array, states: Array) -> Array:
    return np.sqrt(weights / (states + TINY)) + TINY
