"""Numbers written as text: decimal and thousands marks are decided together, once for a whole column.

The text 1.034 is 1.034 with a decimal point and 1034 with a decimal comma. Another row of the column may tell which:
999,5 and 1.234.567 and 0.5 can be read in one way only. A column in which no row tells is refused.
"""

import math
import re
from collections.abc import Mapping
from typing import Literal

import polars as pl

from tidegate.errors import DataError

Decimal = Literal[".", ","]
Kinds = dict[str, tuple[str, str]]  # a kind, and the first text of that kind with its place in the file

_SPACES = " \u00a0\u2009\u202f'’"  # thousands marks that are never decimal marks
_MINUS = "\u2212"


def _pattern(decimal: str, thousands: str) -> str:
    grouped = rf"[1-9]\d{{0,2}}(?:{thousands}\d{{3}})+|[1-9]\d{{0,2}}(?:[{_SPACES}]\d{{3}})+"
    return rf"^[+-]?(?:(?:{grouped})(?:{decimal}\d*)?|\d+(?:{decimal}\d*)?(?:[eE][+-]?\d+)?|{decimal}\d+)$"


_POINT, _COMMA = _pattern(r"\.", ","), _pattern(",", r"\.")
_IS_POINT, _IS_COMMA, _DIGITS = re.compile(_POINT), re.compile(_COMMA), re.compile(r"[+-]?\d{4,}")


def kind_of(text: str) -> str:
    """What a number's text tells about the decimal mark of its column.

    "point" or "comma": it can only be read with that mark. "." or ",": it holds one mark before three digits, which is
    a decimal mark or a thousands mark. "whole": it has no mark; "long": nor has it a thousands mark where one would be
    expected. "": it is not a number.
    """
    text = text.replace(_MINUS, "-", 1)
    point, comma = _IS_POINT.match(text), _IS_COMMA.match(text)
    if point and comma:
        return "." if "." in text else "," if "," in text else "long" if _DIGITS.fullmatch(text) else "whole"
    return "point" if point else "comma" if comma else ""


def decide(kinds: Mapping[str, tuple[str, str]], given: Decimal | None, commas: bool) -> Decimal:
    """The decimal mark of a column from the kinds of its texts, and from the user's choice, if given.

    `commas` says that commas separate the file's columns. A point is then a decimal mark unless a row tells otherwise:
    by a decimal comma, or by a number below 1000 without any mark, as thousands marks leave them. Raises DataError
    where rows contradict each other, or none of them tells.
    """
    point, comma = kinds.get("point"), kinds.get("comma")
    if given:
        wrong = comma if given == "." else point
        if wrong:
            raise DataError(f"{wrong[1]}: {wrong[0]!r} cannot be read with the decimal mark {given!r}. {_OPTION}")
        return given
    if point and comma:
        raise DataError(
            f"{comma[1]}: {comma[0]!r} has a decimal comma, but {point[0]!r} ({point[1]}) has a decimal point. "
            "Write all numbers of a column alike."
        )
    either = kinds.get(".") or kinds.get(",")
    if point or comma or not either:
        return "," if comma else "."
    if not ("." in kinds and "," in kinds):
        mark: Decimal = "." if "." in kinds else ","
        if "long" in kinds or (mark == "." and commas and "whole" not in kinds):
            return mark
    readings = " or as ".join(f"{value_of(either[0], mark):.15g}" for mark in _MARKS)
    raise DataError(
        f"{either[1]}: {either[0]!r} may be read as {readings}, and no row of the column tells which. {_OPTION}"
    )


_MARKS: tuple[Decimal, ...] = (".", ",")
_OPTION = "Give the decimal mark of the numbers: --decimal . or --decimal , (in Python decimal='.' or decimal=',')."


def value_of(text: str, decimal: Decimal) -> float:
    """The number of a text: NaN where it is not one, infinite where it is too large for a float64."""
    text = text.replace(_MINUS, "-", 1)
    if not (_IS_POINT if decimal == "." else _IS_COMMA).match(text):
        return math.nan
    return float(re.sub(_thousands(decimal), "", text).replace(",", "."))


def kinds_in(texts: pl.Series) -> dict[str, int]:
    """The kinds of a column's texts, each with the row of its first one."""
    text = texts.str.replace(_MINUS, "-", literal=True)
    point, comma = text.str.contains(_POINT), text.str.contains(_COMMA)
    either = point & comma
    dotted, comma_in = text.str.contains(".", literal=True), text.str.contains(",", literal=True)
    whole = either & ~dotted & ~comma_in
    long = whole & text.str.contains(f"^{_DIGITS.pattern}$")
    masks = {
        "point": point & ~comma,
        "comma": comma & ~point,
        ".": either & dotted,
        ",": either & comma_in,
        "long": long,
        "whole": whole & ~long,
    }
    return {kind: int(mask.fill_null(False).arg_max() or 0) for kind, mask in masks.items() if mask.any()}


def values_of(texts: pl.Series, decimal: Decimal) -> pl.Series:
    """`value_of` for a column: null where a text is missing or not a number."""
    text = texts.str.replace(_MINUS, "-", literal=True)
    bare = text.str.replace_all(_thousands(decimal), "").str.replace(",", ".", literal=True)
    fits = text.str.contains(_POINT if decimal == "." else _COMMA).fill_null(False)
    return bare.set(~fits, None).cast(pl.Float64, strict=False)


def _thousands(decimal: Decimal) -> str:
    return f"[{_SPACES},]" if decimal == "." else rf"[{_SPACES}.]"
