"""Names in a stream: keys, features, labels."""

from __future__ import annotations

import math
import re
from typing import Any

Key = str | int | None
Name = str | int
Label = str | int | float | bool

_HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs, which UTF-8 cannot write


def can_be_saved(name: object) -> bool:
    """Whether a file keeps this text or number as it is: valid Unicode, finite, within 64 bits."""
    if isinstance(name, str):
        return name.isascii() or not _HALVES.search(name)
    return math.isfinite(name) if isinstance(name, float) else isinstance(name, int) and -(2**63) <= name < 2**63


def plain(value: Any) -> Any:
    """The number or text in a scalar of numpy or torch; all else as it is."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError):  # it has several elements
        return value
