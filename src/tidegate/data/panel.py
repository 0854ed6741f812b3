"""Series on one grid, with their gaps filled in and marked; nothing is dropped without being counted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tidegate.data.grid import Grid, infer_grid
from tidegate.data.tables.numbers import Decimal
from tidegate.data.tables.table import Table, read_table
from tidegate.data.times import Times, read_times, shown_time
from tidegate.errors import DataError

_MOST_STEPS_A_ROW = 4
_Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Series:
    """One series: `values[n]` and `covariates[n, C]` are those of the place `start + n` of the grid; NaN is missing."""

    name: str
    start: int
    values: np.ndarray
    covariates: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def stop(self) -> int:
        """The place after the last one."""
        return self.start + len(self.values)


@dataclass(frozen=True)
class Panel:
    """Series of one table on one grid; `notes` says in sentences what was sorted, filled or missing.

    `time` is the column of times, None where rows were counted.
    """

    name: str
    target: str
    covariates: tuple[str, ...]
    grid: Grid
    series: tuple[Series, ...]
    notes: tuple[str, ...]
    time: str | None = None


def read_panel(
    data: Any,
    target: str,
    *,
    time: str | None = None,
    id: str | None = None,
    covariates: Sequence[str] = (),
    grid: Grid | None = None,
    decimal: Decimal | None = None,
    encoding: str | None = None,
) -> Panel:
    """Series from a path or a frame, in the order in which their names first occur.

    Rows out of order are sorted; times that the grid expects and the table lacks are filled in as missing; missing
    values before the first and after the last known value of the target are cut off. A time that occurs twice in a
    series or is between the steps of the grid is an error, and so is a value that is not a number. `grid` is the grid
    of an earlier reading, which these rows must then fit; without it, it is found from the rows. `decimal` and
    `encoding` are as in `read_table`.
    """
    table = read_table(data, decimal=decimal, encoding=encoding)
    time = time or table.index
    values = table.numbers(target)
    if np.isnan(values).all():
        raise DataError(f"{table.name} has no value in column '{target}'. Expected a number in most of its rows.")
    extra = np.array([table.numbers(name) for name in covariates]).reshape(len(covariates), len(values)).T
    rows, notes = _groups(table, id), list[str]()
    if time is None:
        grid = grid or Grid("step", 1, 0)
        places = {name: np.arange(len(group)) for name, group in rows.items()}
    else:
        found = read_times(table, time, grid)
        times = found.values
        notes += [found.note] if found.note else []
        rows = _sorted(rows, times, time, notes)
        _refuse_twice(table, time, times, rows)
        grid = _agreeing(table, time, found, grid) or infer_grid([times[group] for group in rows.values()])
        grid = replace(grid, zone=found.zone)
        places = {name: _places(table, time, times, group, grid) for name, group in rows.items()}
    filled = [_fill(name, places[name], values[group], extra[group]) for name, group in rows.items()]
    series = tuple(one for one in (_trim(one) for one in filled) if len(one))
    notes += _gap_notes(target, rows, filled, series, grid)
    return Panel(table.name, target, tuple(covariates), grid, series, tuple(notes), time)


def _groups(table: Table, id: str | None) -> _Rows:
    if id is None:
        return {"": np.arange(table.frame.height)}
    names = table.texts(id)
    if names.null_count():
        raise DataError(
            f"{table.place(int(names.is_null().arg_max() or 0), id)} is empty. "
            "Expected the name of a series in every row."
        )
    found, inverse = np.unique(names.to_numpy(), return_inverse=True)
    groups = {str(name): np.flatnonzero(inverse == index) for index, name in enumerate(found)}
    return dict(sorted(groups.items(), key=lambda item: int(item[1][0])))


def _sorted(rows: _Rows, times: np.ndarray, time: str, notes: list[str]) -> _Rows:
    order = {name: group[np.argsort(times[group], kind="stable")] for name, group in rows.items()}
    if any(bool(np.any(order[name] != rows[name])) for name in rows):
        notes.append(f"The rows were not in the order of '{time}' and have been sorted.")
    return order


def _refuse_twice(table: Table, time: str, times: np.ndarray, rows: _Rows) -> None:
    for name, group in rows.items():
        again = np.flatnonzero(times[group][1:] == times[group][:-1])
        if len(again):
            first, second = (int(group[again[0] + offset]) for offset in (0, 1))
            whose = f" of series '{name}'" if name else ""
            raise DataError(
                f"{table.place(second, time)}: {shown_time(times[second])}{whose} is also in row "
                f"{table.rows[first]}. Expected each time once in a series; name the column that tells "
                "series apart, or remove a row."
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
            f"{table.place(row, time)}: {shown_time(times[row])} is between the steps of "
            f"{grid.spacing}, the distance found most often. Expected equal steps; bring the rows onto one, or leave "
            "the time column out to count rows."
        )
    whole = places.astype(np.int64)
    span = int(whole[-1] - whole[0]) + 1
    if span > _MOST_STEPS_A_ROW * len(whole) + 100:
        raise DataError(
            f"{table.name}, column '{time}': {len(whole)} rows are spread over {span} steps of {grid.spacing}, so "
            "most values would be missing. Expected a row for most steps; bring the rows onto a coarser step."
        )
    return whole


def _fill(name: str, places: np.ndarray, values: np.ndarray, extra: np.ndarray) -> Series:
    start, length = int(places[0]), int(places[-1] - places[0]) + 1
    full, full_extra = np.full(length, np.nan), np.full((length, extra.shape[1]), np.nan)
    full[places - start], full_extra[places - start] = values, extra
    return Series(name, start, full, full_extra)


def _trim(one: Series) -> Series:
    known = np.flatnonzero(~np.isnan(one.values))
    first, stop = (int(known[0]), int(known[-1]) + 1) if len(known) else (0, 0)
    return Series(one.name, one.start + first, one.values[first:stop], one.covariates[first:stop])


def _gap_notes(target: str, rows: _Rows, filled: list[Series], series: tuple[Series, ...], grid: Grid) -> list[str]:
    absent = sum(len(one) for one in filled) - sum(len(group) for group in rows.values())
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
