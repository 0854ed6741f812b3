"""A column of times, read: time stamps in the usual spellings, dates, or whole numbers that count steps."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tidegate.data.grid import Grid
from tidegate.data.spellings import plain, readings, without_zone
from tidegate.data.tables.table import Table
from tidegate.data.values import WORDS
from tidegate.data.zones import offset_name, written
from tidegate.errors import DataError

_EXPECTED = "Expected a time such as 2024-01-31 or 2024-01-31 13:00:00 in every row, or whole numbers"
_DAY, _MINUTE = 86_400_000_000, 60_000_000
_UNIX = {1: 1_000_000, 1_000: 1_000, 1_000_000: 1}  # ticks a second, and microseconds a tick
_UNIX_RANGE = 1_000_000_000, 4_102_444_800  # seconds: from September 2001 to 2100
_UNIX_MINUTES = 100_000_000  # seconds: from March 1973, if all are whole minutes, as counters seldom are


@dataclass(frozen=True)
class Times:
    """A column of times: `values[n]` are datetime64[us], or int64 where the column counts steps.

    Times with a `zone` are in UTC. `note` says in a sentence what was understood that the text does not say.
    """

    values: np.ndarray
    note: str = ""
    zone: str | None = None


def read_times(table: Table, name: str, grid: Grid | None = None) -> Times:
    """The column as times, or as the times of an earlier reading's grid were read.

    Times that name a zone become UTC and keep the zone, of several offsets the last. Where all of them are midnights
    of their own zone, or show one clock under several offsets, they are steps of the calendar: the zone is dropped.
    Whole numbers are dates where all of them are valid ones of eight digits, months of six digits, or seconds since
    1970; else they count steps. Day and month are told apart by the rows themselves; where both orders fit and differ,
    that is an error.
    """
    column = table.column(name)
    _refuse_missing(table, name, column)
    if column.dtype == pl.Datetime and column.dtype.time_zone:  # type: ignore[attr-defined]
        local, utc = _microseconds(column.dt.replace_time_zone(None)), _microseconds(column.dt.convert_time_zone("UTC"))
        return _zoned(name, local, (local - utc).astype(np.int64) // _MINUTE, column.dtype.time_zone, grid)  # type: ignore[attr-defined]
    if column.dtype in (pl.Datetime, pl.Date):
        return Times(_microseconds(column))
    if not column.dtype.is_numeric():
        text = table.texts(name, WORDS)
        _refuse_missing(table, name, text)
        column = text.cast(pl.Int64, strict=False)
        column = text.cast(pl.Float64, strict=False) if column.null_count() else column
        if column.null_count() or not column.is_finite().all():
            return _spelled(table, name, text, grid)
    return _numbers(table, name, column)


def shown_time(time: object, zone: str | None = None) -> str:
    """A time as short as it can be said, of one in UTC with a zone what clocks show there."""
    if not isinstance(time, np.datetime64):
        return str(time)
    if zone is not None:
        return written(np.array([time]), zone, "s")[0]
    return str(np.datetime_as_string(time, unit="auto")).replace("T", " ")


def _refuse_missing(table: Table, name: str, column: pl.Series) -> None:
    gaps = column.is_null() | column.is_nan() if column.dtype.is_float() else column.is_null()
    if gaps.any():
        raise DataError(f"{table.place(int(gaps.arg_max() or 0), name)} is empty. {_EXPECTED}.")


def _numbers(table: Table, name: str, column: pl.Series) -> Times:
    whole = column.cast(pl.Int64, strict=False)
    fractions = np.flatnonzero((whole.is_null() | (whole.cast(pl.Float64) != column.cast(pl.Float64))).to_numpy())
    if not len(fractions):
        values = whole.to_numpy()
        return _written_together(name, values) or _unix(name, values) or Times(values)
    found = _unix(name, column.cast(pl.Float64).to_numpy())
    if found is None:
        row = int(fractions[0])
        raise DataError(f"{table.place(row, name)}: {table.column(name)[row]!r} is not a whole number. {_EXPECTED}.")
    return found


def _written_together(name: str, values: np.ndarray) -> Times | None:
    """Days such as 20240131 and months such as 202401."""
    for digits, kind, style in ((8, "days", "%Y%m%d"), (6, "months", "%Y%m%d")):
        if len(values) and 18 * 10 ** (digits - 2) <= values.min() and values.max() < 22 * 10 ** (digits - 2):
            text = pl.Series(values).cast(pl.String) + ("01" if digits == 6 else "")
            days = text.str.to_datetime(style, strict=False, time_unit="us")
            if not days.null_count():
                times = days.to_numpy().astype("datetime64[us]")
                note = f"The whole numbers in '{name}' were read as {kind}: {values[0]} is {shown_time(times[0])}."
                return Times(times, note)
    return None


def _unix(name: str, values: np.ndarray) -> Times | None:
    """Seconds since 1970, or thousandths or millionths of one."""
    for ticks, size in _UNIX.items():
        low, high = _UNIX_RANGE
        if len(values) > 1 and not np.any(values % (60 * ticks)):
            low = _UNIX_MINUTES
        if len(values) and low * ticks <= values.min() and values.max() < high * ticks:
            times = np.round(values * size).astype(np.int64).astype("datetime64[us]")
            unit = {1: "seconds", 1_000: "milliseconds", 1_000_000: "microseconds"}[ticks]
            note = f"The numbers in '{name}' were read as {unit} since 1970, in UTC: the first is {times[0]}."
            return Times(times, note)
    return None


def _microseconds(column: pl.Series) -> np.ndarray:
    if column.dtype == pl.Datetime:
        column = column.dt.replace_time_zone(None)
    return column.cast(pl.Datetime("us")).to_numpy().astype("datetime64[us]")


def _zoned(name: str, local: np.ndarray, offsets: np.ndarray, zone: str | None, grid: Grid | None) -> Times:
    """Clocks `local` with their offsets in minutes, as times in UTC or as steps of the calendar."""
    clocks = np.unique(local.astype(np.int64) % _DAY)
    calendar = len(clocks) == 1 and (clocks[0] == 0 or np.ptp(offsets) > 0)
    if grid is not None:
        calendar = len(clocks) == 1 and grid.zone is None
    if calendar:
        clock = str(np.datetime64(int(clocks[0]), "us"))[11:16]
        note = f"The times in '{name}' are all {clock} on the clocks of their zone; the zone is dropped."
        return Times(local, note if clocks[0] else "")
    utc = local - offsets * np.timedelta64(_MINUTE, "us")
    if zone is not None:
        return Times(utc, zone=zone)
    last = offset_name(int(offsets[utc.argmax()]))
    note = f"The times in '{name}' have several offsets from UTC; they are written with the last, {last}."
    return Times(utc, note if np.ptp(offsets) else "", last)


def _spelled(table: Table, name: str, text: pl.Series, grid: Grid | None) -> Times:
    bare, offsets = without_zone(plain(text))
    zoned = not offsets.null_count()
    if offsets.null_count() < len(offsets) and not zoned:
        _refuse_mixed_zones(table, name, text, offsets)
    (_, first), *others = readings(bare)
    if first.null_count():
        row = int(first.is_null().arg_max() or 0)
        raise DataError(f"{table.place(row, name)}: {text[row]!r} is not a time. {_EXPECTED}.")
    for _, times in others:
        if not times.equals(first, check_dtypes=False):
            row = int((times != first).arg_max() or 0)
            one, other = (shown_time(np.datetime64(found[row])) for found in (first, times))
            raise DataError(
                f"{table.place(row, name)}: {text[row]!r} may be read as {one} or as {other}, and so may every other "
                "row. Write the times as 2024-01-31 so that day and month cannot be taken for each other."
            )
    local = first.to_numpy().astype("datetime64[us]")
    return _zoned(name, local, offsets.to_numpy(), None, grid) if zoned else Times(local)


def _refuse_mixed_zones(table: Table, name: str, text: pl.Series, offsets: pl.Series) -> None:
    zoned = offsets.is_not_null()
    row = int((zoned != zoned[0]).arg_max() or 0)
    own, before = ("a", "do not") if zoned[row] else ("no", "do")
    raise DataError(
        f"{table.place(row, name)}: {text[row]!r} has {own} time zone, but the rows before it {before}. "
        "Write all times with a zone, or all without."
    )
