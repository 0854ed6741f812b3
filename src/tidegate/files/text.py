"""JSON that every reader takes, and text that is safe in terminals and spreadsheets."""

from __future__ import annotations

import json
import math
import re
from typing import Any

# Control characters, those that turn the direction of text, line separators, and halves of surrogate pairs.
_CONTROL = "\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNPRINTABLE, _NOT_IN_JSON = re.compile(f"[\x00-\x1f{_CONTROL}]"), re.compile(f"[{_CONTROL}]")
_FORMULA = tuple("=+-@\t\r")


def to_json(data: Any, indent: int | None = None, *, exact: bool = False) -> str:
    """Valid JSON in printable characters. A number that is not finite is null, or with `exact` a ValueError."""
    text = json.dumps(data if exact else _finite(data), indent=indent, ensure_ascii=False, allow_nan=False)
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def from_json(text: str | bytes) -> Any:
    """The data of a JSON text. Raises ValueError, also for numbers that are not finite."""
    try:
        return json.loads(text, parse_constant=_number, parse_float=_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def printable(text: str) -> str:
    """The text with control characters escaped, so that data cannot steer a terminal."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def spreadsheet_text(text: str) -> str:
    """The text with an apostrophe in front where a spreadsheet would take it for a formula; numbers are left alone."""
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is not a finite number")
    return number


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
