"""Single values of tables and streams: which are missing, and which a file can keep."""

import math
import re
from typing import Any

WORDS = frozenset(
    ("", "na", "n/a", "#n/a", "nan", "nat", "null", "none", "<na>", "?", "-", "--", ".", "..")
)  # of a missing number, in lower case; in names they are words
_HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs, which UTF-8 cannot write


def is_missing(value: object) -> bool:
    """Whether it is None, NaN, NaT or pandas.NA."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):  # pandas.NA has no truth value, nor have arrays
        return type(value).__name__ == "NAType"


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
