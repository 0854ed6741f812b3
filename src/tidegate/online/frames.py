"""Rows of a frame, an array or a list, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tidegate.errors import ArgumentError

try:
    import narwhals as nw
except ImportError:  # pragma: no cover - frames need it, and lists and arrays do without
    nw = None  # type: ignore[assignment]


def rows(X: Any) -> list[Any]:
    """The rows of a pandas or polars frame as mappings, of an array `[N, I]` or a list as they are."""
    if isinstance(X, list | tuple | np.ndarray):
        return list(X)
    frame = None if nw is None else nw.from_native(X, eager_only=True, pass_through=True)
    if nw is None or not isinstance(frame, nw.DataFrame):
        raise ArgumentError(
            f"X is a frame, an array [N, I] or a list of steps, and a {type(X).__name__} came"
            + ("; frames need the extra 'app'" if nw is None else "")
        )
    return list(frame.iter_rows(named=True))


def column(values: Any, length: int, name: str) -> Sequence[Any]:
    """One value for each row; None stands for as many that are missing."""
    if values is None:
        return [None] * length
    found = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(found) != length:
        raise ArgumentError(f"{name} has {len(found)} values, and X has {length} rows: give one for each")
    return found
