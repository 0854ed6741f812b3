"""Rows of a frame, an array or a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals as nw
import numpy as np

from tidegate.errors import ArgumentError


def rows(X: Any) -> list[Any]:
    """The rows of a pandas or polars frame as mappings, of an array `[N, I]` or a list as they are."""
    if isinstance(X, list | tuple | np.ndarray):
        return list(X)
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        raise ArgumentError(f"X must be a frame, an array [N, I] or a list of steps, got {type(X).__name__}")
    return list(frame.iter_rows(named=True))


def column(values: Any, length: int, name: str) -> Sequence[Any]:
    """One value for each row; None for each if there are no values."""
    if values is None:
        return [None] * length
    found = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(found) != length:
        raise ArgumentError(f"{name} must have one value for each of the {length} rows of X, got {len(found)}")
    return found
