"""Tensors for kernels: uninitialised allocation, and access by an address and one stride."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.native.run.workspace import MIN_LOAN_BYTES, WORKSPACE


class Allocator:
    """Allocates uninitialised tensors of one shape and dtype."""

    __slots__ = ("_bytes", "_kind", "_like", "_shape")

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, kind: np.dtype[Any]) -> None:
        self._shape, self._kind, self._bytes = shape, kind, math.prod(shape) * kind.itemsize
        self._like = torch.empty(shape, dtype=dtype) if self._bytes < MIN_LOAN_BYTES else None

    def __call__(self) -> Tensor:
        """A new tensor."""
        if self._like is not None:
            return torch.empty_like(self._like)  # half the time of torch.empty with a shape and a dtype
        return torch.from_numpy(WORKSPACE.lend(self._bytes).view(self._kind)).view(self._shape)


def with_row_stride(tensor: Tensor) -> tuple[Tensor, int]:
    """A tensor `[T, B, size]`, or integers `[T, B]`, and the elements from row t * B + b to the next.

    The tensor is copied if its rows have no common stride.
    """
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if tensor.dim() == 2:
        return tensor.contiguous(), 1
    T, B, size = tensor.shape
    if tensor.is_contiguous():
        return tensor, size
    over_t, over_b, unit = tensor.stride()
    if unit == 1 or size == 1:
        if T == 1:
            return tensor, over_b
        if B == 1:
            return tensor, over_t
        if over_t == B * over_b:
            return tensor, over_b
    return tensor.contiguous(), size


def rows_of(tensor: Tensor) -> tuple[Tensor, int]:
    """A tensor `[B, size]`, copied if need be, and its row step: 1, or 0 if all rows are the same."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if tensor.is_contiguous():
        return tensor, 1
    if tensor.stride(0) == 0 and tensor.stride(1) == 1:
        return tensor, 0
    return tensor.contiguous(), 1
