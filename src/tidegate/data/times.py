"""A column of times, read: time stamps in the usual spellings, dates, or whole numbers that count steps."""

import numpy as np
import polars as pl

from tidegate.data.table import Table
from tidegate.data.values import WORDS
from tidegate.errors import DataError

_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f")
_ZONED = ("%Y-%m-%d %H:%M:%S%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z")
_MONTHS = ("%Y-%m", "%Y/%m")
_STYLES = [*(day + clock for day in _DAYS for clock in _CLOCKS), *_ZONED, *_MONTHS]
_CLOCK = r"^\d{4}-\d\d-\d\d \d\d:\d\d"
_ZONE = r":\d\d(\.\d+)?[+-]\d\d:?\d\d$"
_ZONED_MIDNIGHT = r"^\d{4}-\d\d-\d\d 00:00(:00(\.0+)?)?[+-]\d\d:?\d\d$"
_EXPECTED = "Expected a time such as 2024-01-31 or 2024-01-31 13:00:00 in every row, or whole numbers"


def read_times(table: Table, name: str) -> np.ndarray:
    """The column as datetime64[us], or as int64 where it holds whole numbers.

    Times that name a zone become UTC, unless all of them are midnights of their own zone, which are taken as dates.
    Day and month are told apart by the rows themselves; where both orders fit and differ, that is an error.
    """
    column = table.column(name)
    if column.null_count():
        raise DataError(f"{table.place(int(column.is_null().arg_max() or 0), name)} is empty. {_EXPECTED}.")
    if column.dtype == pl.Datetime and column.dtype.time_zone:  # type: ignore[attr-defined]
        local = column.dt.replace_time_zone(None)
        midnights = local.dt.truncate("1d").equals(local)
        column = local if midnights else column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if column.dtype in (pl.Datetime, pl.Date):
        return column.cast(pl.Datetime("us")).to_numpy().astype("datetime64[us]")
    if column.dtype.is_integer():
        return column.cast(pl.Int64).to_numpy()
    return _parse(table, name, table.texts(name, WORDS))


def shown_time(time: object) -> str:
    """A time as short as it can be said."""
    if not isinstance(time, np.datetime64):
        return str(time)
    return str(np.datetime_as_string(time, unit="auto")).replace("T", " ")


def _parse(table: Table, name: str, text: pl.Series) -> np.ndarray:
    if text.null_count():
        raise DataError(f"{table.place(int(text.is_null().arg_max() or 0), name)} is empty. {_EXPECTED}.")
    whole = text.cast(pl.Int64, strict=False)
    if not whole.null_count():
        days = text.str.to_datetime("%Y%m%d", strict=False, time_unit="us")
        compact = text.str.contains(r"^(18|19|20|21)\d{6}$").all() and not days.null_count()
        return days.to_numpy().astype("datetime64[us]") if compact else whole.to_numpy()
    spaced = text.str.replace(r"^(\d{4}-\d\d-\d\d)T", "$1 ").str.replace(r"Z$", "+00:00")
    if spaced.str.contains(_ZONED_MIDNIGHT).all():
        spaced = spaced.str.slice(0, 10)
    readings = [(style, _try(spaced, style)) for style in _STYLES]
    fitting = [(style, times) for style, times in readings if not times.null_count()]
    if not fitting:
        _refuse_mixed_zones(table, name, spaced)
        _, best = min(readings, key=lambda reading: reading[1].null_count())
        row = int(best.is_null().arg_max() or 0)
        raise DataError(f"{table.place(row, name)}: {text[row]!r} is not a time. {_EXPECTED}.")
    first_style, first = fitting[0]
    for style, times in fitting[1:]:
        if not times.equals(first, check_dtypes=False):
            row = int((times != first).arg_max() or 0)
            raise DataError(
                f"{table.place(row, name)}: {text[row]!r} may be read as {first_style} or as {style}, and so may every "
                "other row. Write the times as 2024-01-31 so that day and month cannot be taken for each other."
            )
    return first.to_numpy().astype("datetime64[us]")


def _refuse_mixed_zones(table: Table, name: str, spaced: pl.Series) -> None:
    zoned = spaced.str.contains(_ZONE)
    clocked = spaced.str.contains(_CLOCK)
    if clocked.all() and zoned.any() and not zoned.all():
        row = int((zoned != zoned[0]).arg_max() or 0)
        own, before = ("a", "do not") if zoned[row] else ("no", "do")
        raise DataError(
            f"{table.place(row, name)}: {spaced[row]!r} has {own} time zone, but the rows before it {before}. "
            "Write all times with a zone, or all without."
        )


def _try(text: pl.Series, style: str) -> pl.Series:
    if style in _MONTHS:
        text, style = text + "-01", style + "-%d"
    times = text.str.to_datetime(style, strict=False, time_unit="us")
    if getattr(times.dtype, "time_zone", None):
        times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return times.set(times.dt.year() < 1000, None)
