"""Series on one grid, with their gaps filled in and marked; nothing is dropped without being counted."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tidegate.data.doubles import remedy
from tidegate.data.grid import Grid, infer_grid
from tidegate.data.resample import How, grid_of, on_days, onto, suggested
from tidegate.data.rows import Placed, Roles, SeriesRows, long_rows, wide_rows
from tidegate.data.tables.numbers import Decimal
from tidegate.data.tables.table import Table, read_table
from tidegate.data.times import Times, read_times, shown_time
from tidegate.errors import ArgumentError, DataError

_MOST_STEPS_A_ROW = 4
_LOOKED_AT = 50  # rows in which a column of times is looked for, where none was named
SERIES = "series"  # the name that the column of names gets where each column is a series


@dataclass(frozen=True)
class Series:
    """One series: `values[n]` and `covariates[n, C]` are those of the place `start + n` of the grid; NaN is missing.

    `known[n + a, K]` are the columns known in advance, for `a` places more than the target has; `static` are the
    features that do not change, numbers or text.
    """

    name: str
    start: int
    values: np.ndarray
    covariates: np.ndarray
    known: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    static: tuple[float | str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def stop(self) -> int:
        """The place after the last one."""
        return self.start + len(self.values)


@dataclass(frozen=True)
class Panel:
    """Series of one table on one grid; `notes` says in sentences what was sorted, filled or missing.

    `time` is the column of times, None where rows were counted; `id` that of the series' names, None for one series.
    `known` and `static` name the columns of `Series.known` and `Series.static`.
    """

    name: str
    target: str
    covariates: tuple[str, ...]
    grid: Grid
    series: tuple[Series, ...]
    notes: tuple[str, ...]
    time: str | None = None
    id: str | None = None
    known: tuple[str, ...] = ()
    static: tuple[str, ...] = ()


def read_panel(
    data: Any,
    target: str,
    *,
    time: str | None = None,
    id: str | None = None,
    covariates: Sequence[str] | str = (),
    known: Sequence[str] | str = (),
    static: Sequence[str] | str = (),
    wide: bool = False,
    every: str | None = None,
    how: How = "mean",
    decimal: Decimal | None = None,
    encoding: str | None = None,
    grid: Grid | None = None,
) -> Panel:
    """Series from a path or a frame, in the order in which their names first occur.

    Rows out of order are sorted; times that the grid expects and the table lacks are filled in as missing; missing
    values before the first and after the last known value of the target are cut off. A time that occurs twice in a
    series or is between the steps of the grid is an error, and so is a value that is not a number.

    Args:
        data: as in `read_table`, with `decimal` and `encoding`.
        target: the column to forecast; with `wide`, what to call the values of all columns.
        time: the column of times. Without it, rows are steps in the order of the table.
        id: the column that names the series of a row.
        covariates: columns whose past may be read.
        known: columns known in advance, such as holidays: read also in rows after the target's last value.
        static: columns with one value for each series.
        wide: whether each column, but for the time and the covariates, is a series.
        every: a step such as 5min, 1h or 1month that rows are brought onto. Where rows come about once a step, each is
            moved to one, however its clock drifts; where more often, those of a step are joined. Steps begin at the
            start of a day, of Monday, or of a year, and are named by their start.
        how: how rows in one step are joined: mean, sum, last, min or max.
        grid: the grid of an earlier reading, which these rows must fit. Without it, it is found from the rows.

    Raises DataError, with file, row and column, or ArgumentError where the arguments contradict each other.
    """
    table = read_table(data, decimal=decimal, encoding=encoding)
    names = [(given,) if isinstance(given, str) else tuple(given) for given in (covariates, known, static)]
    roles = Roles(target, time or table.index, id, *names)
    roles.check()
    if how != "mean" and every is None:
        raise ArgumentError(f"how='{how}' joins the rows of a step, and needs every. Give a step such as every='1d'.")
    rows = (wide_rows if wide else long_rows)(table, roles)
    placed, grid, notes = _placed(table, roles, rows, grid, every, how)
    filled = [_fill(one, places, len(roles.covariates)) for one, places in placed]
    series = tuple(one for one in map(_trim, filled) if len(one))
    notes += _gap_notes(target, sum(len(places) for _, places in placed), filled, series, grid)
    own = {"time": roles.time, "id": SERIES if wide else id, "known": roles.known, "static": roles.static}
    return Panel(table.name, target, roles.covariates, grid, series, tuple(notes), **own)  # type: ignore[arg-type]


def _placed(
    table: Table, roles: Roles, rows: list[SeriesRows], grid: Grid | None, every: str | None, how: How
) -> tuple[list[Placed], Grid, list[str]]:
    """The rows of each series in the order of their places, and these; the grid; and what there is to note."""
    time = roles.time
    if time is None:
        if every is not None:
            raise ArgumentError("every needs the column of times. Name it: --time NAME (in Python time='NAME').")
        counted = [(one, np.arange(len(one.index))) for one in rows]
        return counted, grid or Grid("step", 1, 0), _falling(table, roles)
    found = read_times(table, time, grid)
    notes = [found.note] if found.note else []
    rows, times = _sorted(rows, found.values, time, notes), found.values
    if every is not None:
        if found.values.dtype.kind != "M":
            raise ArgumentError(f"every needs times, but column '{time}' of {table.name} holds whole numbers.")
        step = grid or grid_of(every)
        found = on_days(found, step)
        grid = replace(_agreeing(table, time, found, grid) or step, zone=found.zone)
        placed, note = onto(rows, found.values, grid, how)
        return placed, grid, [*notes, note]
    _refuse_twice(table, roles, found, rows)
    grid = _agreeing(table, time, found, grid) or infer_grid([times[one.index] for one in rows])
    grid = replace(grid, zone=found.zone)
    return [(one, _places(table, time, times, one.index, grid)) for one in rows], grid, notes


def _falling(table: Table, roles: Roles) -> list[str]:
    """A note where no time was named and some column says that the newest row is the first."""
    head = replace(table, frame=table.frame.head(_LOOKED_AT))
    for name in table.frame.columns if roles.id is None else ():
        try:
            times = read_times(head, name).values
        except DataError:
            continue
        if times.dtype.kind == "M" and len(times) > 1 and np.all(np.diff(times) < np.timedelta64(0)):
            return [
                f"The times in '{name}' fall from row to row, but rows were taken in the order of the table, the "
                f"newest first. Give --time {name} (in Python time='{name}') to sort them."
            ]
    return []


def _sorted(rows: list[SeriesRows], times: np.ndarray, time: str, notes: list[str]) -> list[SeriesRows]:
    orders = [np.argsort(times[one.index], kind="stable") for one in rows]
    if any(bool(np.any(np.diff(order) < 0)) for order in orders):
        notes.append(f"The rows were not in the order of '{time}' and have been sorted.")
    return [one.taken(order) for one, order in zip(rows, orders, strict=True)]


def _refuse_twice(table: Table, roles: Roles, found: Times, rows: list[SeriesRows]) -> None:
    time, times = roles.time or "", found.values
    for one in rows:
        again = np.flatnonzero(times[one.index][1:] == times[one.index][:-1])
        if len(again):
            first, second = (int(one.index[again[0] + offset]) for offset in (0, 1))
            whose = f" of series '{one.name}'" if one.name else ""
            raise DataError(
                f"{table.place(second, time)}: {shown_time(times[second], found.zone)}{whose} is also in row "
                f"{table.rows[first]}. Expected each time once in a series. "
                + remedy(table, time, roles.id, times, first, second)
            )


def _agreeing(table: Table, time: str, times: Times, grid: Grid | None) -> Grid | None:
    if grid is None:
        return None
    own, fitted = _kind(times.values.dtype.kind == "M", times.zone), _kind(grid.unit != "step", grid.zone)
    if own != fitted:
        raise DataError(
            f"{table.name}, column '{time}' holds {own}, but the forecaster was fitted on {fitted}. "
            "Give rows whose times are written as in the data of the fit."
        )
    return grid


def _kind(stamps: bool, zone: str | None) -> str:
    if not stamps:
        return "whole numbers"
    return "time stamps with a time zone" if zone else "time stamps without a time zone"


def _places(table: Table, time: str, times: np.ndarray, group: np.ndarray, grid: Grid) -> np.ndarray:
    places = grid.places(times[group])
    off = np.flatnonzero(places != np.round(places))
    if len(off):
        row = int(group[off[0]])
        raise DataError(
            f"{table.place(row, time)}: {shown_time(times[row], grid.zone)} is between the steps of {grid.spacing}, "
            f"the distance found most often. Expected equal steps. {_way_out(times[group], grid)}"
        )
    whole = places.astype(np.int64)
    span = int(whole[-1] - whole[0]) + 1
    if span > _MOST_STEPS_A_ROW * len(whole) + 100:
        raise DataError(
            f"{table.name}, column '{time}': {len(whole)} rows are spread over {span} steps of {grid.spacing}, so "
            "most values would be missing. Expected a row for most steps; bring the rows onto a coarser step."
        )
    return whole


def _way_out(times: np.ndarray, grid: Grid) -> str:
    if grid.unit == "step":
        return "Leave the time column out to count rows."
    every = suggested(np.diff(times.astype("datetime64[us]")).astype(np.int64))
    return (
        f"Bring the rows onto one: --every {every} (in Python every='{every}') moves each to its own; or leave the "
        "time column out to count rows."
    )


def _fill(one: SeriesRows, places: np.ndarray, covariates: int) -> Series:
    """A series on all places from its first row to its last."""
    start, length = int(places[0]), int(places[-1] - places[0]) + 1
    values, beside = np.full(length, np.nan), np.full((length, one.beside.shape[1]), np.nan)
    values[places - start], beside[places - start] = one.values, one.beside
    return Series(one.name, start, values, beside[:, :covariates], beside[:, covariates:], one.static)


def _trim(one: Series) -> Series:
    """The series from the first known value of the target to the last; what is known in advance goes on."""
    there = np.flatnonzero(~np.isnan(one.values))
    first, stop = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)
    ahead = np.flatnonzero(~np.isnan(one.known).all(1)) if one.known.shape[1] else np.zeros(0, int)
    end = max(stop, int(ahead[-1]) + 1) if len(ahead) and stop else stop
    start, known = one.start + first, one.known[first:end]
    return Series(one.name, start, one.values[first:stop], one.covariates[first:stop], known, one.static)


def _gap_notes(target: str, rows: int, filled: list[Series], series: tuple[Series, ...], grid: Grid) -> list[str]:
    absent = sum(len(one) for one in filled) - rows
    missing = sum(int(np.isnan(one.values).sum()) for one in series)
    total = sum(len(one) for one in series)
    steps = sum(len(one) for one in filled)
    notes: list[str] = []
    if absent:
        notes.append(f"At {absent} of {steps} steps of {grid.spacing} there was no row; their values are missing.")
    if missing:
        notes.append(f"{missing} of {total} values of '{target}' are missing; no forecast is scored on them.")
    empty = [one.name for one in filled if np.isnan(one.values).all()]
    return [*notes, *(f"Series '{name}' has no value of '{target}' and was omitted." for name in empty)]
