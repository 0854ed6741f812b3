"""Uninitialised tensors for kernels; large ones reuse memory from call to call."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.native.run.workspace import OWN_BYTES, WORKSPACE


class Allocator:
    """Allocates uninitialised tensors of one shape and type."""

    __slots__ = ("_bytes", "_kind", "_like", "_shape")

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, kind: np.dtype[Any]) -> None:
        self._shape, self._kind, self._bytes = shape, kind, math.prod(shape) * kind.itemsize
        self._like = torch.empty(shape, dtype=dtype) if self._bytes < OWN_BYTES else None

    def __call__(self) -> Tensor:
        """A new tensor."""
        if self._like is not None:
            return torch.empty_like(self._like)  # half the time of torch.empty with a shape and a type
        return torch.from_numpy(WORKSPACE.lend(self._bytes).view(self._kind)).view(self._shape)
