"""The spellings of times in text, and how a column is read by the one that fits all of its rows."""

from collections.abc import Iterator

import polars as pl

_DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d"),
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d"),
    *("%d %B %Y", "%d-%B-%Y", "%d/%B/%Y", "%d-%B-%y", "%d %B %y"),
    *("%B-%d-%Y", "%B %d %Y", "%B %d, %Y", "%Y %B %d", "%Y-%B-%d"),
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
_MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y", "%m.%Y", "%Y %B", "%Y-%B", "%B %Y", "%B-%Y", "%B-%y", "%B %y", "%YM%m")
_WEEKS = ("%G-W%V", "%GW%V")
_STYLES = {
    **{day + clock: "" for day in _DAYS for clock in _CLOCKS},
    **dict.fromkeys(_MONTHS, "-%d"),
    **dict.fromkeys(_WEEKS, "-%u"),
}
_QUARTERS = {f"{number}": f"-{month:02}" for number, month in zip(range(1, 5), (1, 4, 7, 10), strict=True)}
_QUARTER = r"^(?:(\d{4})[ -]?[Qq]([1-4])|[Qq]([1-4])[ -]?(\d{4}))$"
_ZONE = r"(\d:\d\d(?::\d\d(?:\.\d+)?)?) ?(?:[Zz]|UTC|([+-])(\d\d)(?::?(\d\d))?)$"
_HEAD = 50  # rows that a spelling is tried on before it is tried on all


def without_zone(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Texts without the zone behind their clocks, and the zones in minutes: +01, +0100, +01:00, Z; null for none."""
    parts = text.str.extract_groups(_ZONE).struct.unnest()
    clock, sign, hours, minutes = (parts.to_series(k) for k in range(4))
    size = hours.cast(pl.Int64).fill_null(0) * 60 + minutes.cast(pl.Int64).fill_null(0)
    signed = pl.select(pl.when(sign == "-").then(-size).otherwise(size)).to_series()
    return text.str.replace(_ZONE, "$1"), signed.set(clock.is_null(), None)


def plain(text: pl.Series) -> pl.Series:
    """Texts with a space between day and clock, a decimal point, and quarters as their first months."""
    text = text.str.replace(r"(\d)T(\d)", "$1 $2").str.replace(r"(:\d\d),(\d+)$", "$1.$2")
    if not text.str.contains(_QUARTER).all():
        return text
    found = text.str.extract_groups(_QUARTER).struct.unnest()
    year, quarter, quarter_first, year_last = (found.to_series(k) for k in range(4))
    months = quarter.fill_null(quarter_first).replace_strict(_QUARTERS, return_dtype=pl.String)
    return year.fill_null(year_last) + months


def readings(text: pl.Series) -> Iterator[tuple[str, pl.Series]]:
    """The spellings that fit every row, with the times; where none does, the one that fits most, with nulls."""
    head = text.head(_HEAD)
    tried = [(style, _try(head, style)) for style in _STYLES]
    fitting = [style for style, times in tried if not times.null_count()]
    whole = [(style, _try(text, style)) for style in fitting]
    complete = [(style, times) for style, times in whole if not times.null_count()]
    if complete:
        yield from complete
    else:
        style, _ = min(whole or tried, key=lambda one: one[1].null_count())
        yield style, _try(text, style)


def _try(text: pl.Series, style: str) -> pl.Series:
    ending = _STYLES[style]
    if ending:
        text = text + ("-01" if ending == "-%d" else "-1")
    times = text.str.to_datetime(style + ending, strict=False, time_unit="us", exact=True)
    return times.set(times.dt.year() < 1000, None)
