"""Rows brought onto equal steps: `every` names the step, `how` joins the rows that fall into one."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tidegate.data.grid import Grid
from tidegate.data.rows import Placed, SeriesRows
from tidegate.data.tables.numbers import Decimal
from tidegate.data.times import Times
from tidegate.data.zones import local_clocks
from tidegate.errors import ArgumentError

How = Literal["mean", "sum", "last", "min", "max"]


@dataclass(frozen=True)
class Reading:
    """How the rows of a table become series, as in `read_panel`."""

    wide: bool = False
    every: str | None = None
    how: How = "mean"
    decimal: Decimal | None = None
    encoding: str | None = None
    known: tuple[str, ...] = ()
    static: tuple[str, ...] = ()


_SECOND = 1_000_000
_SIZES = {"ms": 1000, "s": _SECOND, "min": 60 * _SECOND, "h": 3600 * _SECOND, "d": 86_400 * _SECOND}
_SIZES["w"] = 7 * _SIZES["d"]
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_NAMES = {"sec": "s", "second": "s", "minute": "min", "hour": "h", "day": "d", "week": "w"}
_EVERY = re.compile(r"(\d*) ?([a-z]+?)s?")
_MONDAY = 4 * _SIZES["d"]  # 1970-01-05
_USUAL = {
    "ms": (1, 10, 100),
    "s": (1, 5, 10, 15, 30),
    "min": (1, 5, 10, 15, 20, 30),
    "h": (1, 2, 3, 4, 6, 8, 12),
    "d": (1,),
    "w": (1, 2),
}
_EARLY = 0.9  # of a step: later phases are those of the next step, for which clocks are early


def grid_of(every: str) -> Grid:
    """The grid of a step such as 100ms, 5min, 1h, 1d, 1w, 1month, 1quarter: whole steps from the start of a day, of
    Monday, or of a year.
    """
    found = _EVERY.fullmatch(every.strip().lower())
    unit = _NAMES.get(found[2], found[2]) if found else ""
    unit = "ms" if found and found[0].endswith("ms") else unit
    count = int(found[1] or 1) if found else 0
    if unit in _MONTHS and count:
        return Grid("month", count * _MONTHS[unit], 0)
    if unit not in _SIZES or not count:
        raise ArgumentError(
            f"every must be a step such as 5min, 1h, 1d, 1w or 1month, got {every!r}. Units are ms, s, min, h, d, w, "
            "month, quarter and year."
        )
    return Grid("us", count * _SIZES[unit], _MONDAY if unit == "w" else 0)


def suggested(gaps: np.ndarray) -> str:
    """The usual step nearest to the median of some gaps in microseconds, as text for `every`."""
    gap = float(np.median(gaps))
    steps: list[tuple[float, str]] = [
        (count * size, f"{count}{unit}") for unit, size in _SIZES.items() for count in _USUAL[unit]
    ]
    steps += [(months * 30.44 * _SIZES["d"], f"1{unit}") for unit, months in _MONTHS.items()]
    return min(steps, key=lambda step: abs(np.log(step[0] / max(gap, 1.0))))[1]


def on_days(times: Times, grid: Grid) -> Times:
    """Times in UTC as the clocks of their zone, where steps are days or months, which begin at its midnights."""
    if times.zone is None or (grid.unit != "month" and grid.step % _SIZES["d"]):
        return times
    return Times(local_clocks(times.values, times.zone), times.note)


def onto(rows: list[SeriesRows], times: np.ndarray, grid: Grid, how: How) -> tuple[list[Placed], str]:
    """The rows of each series, whose times in the table these are, joined within the steps of a grid; and a note.

    Where rows come more often than twice a step, or steps are months, those that fall into one are joined. Else each
    row belongs to a step of its own: a clock that drifts a little around the start of steps, or around any other point
    in them, is on time.
    """
    gaps = [np.diff(times[one.index].astype("datetime64[us]")).astype(np.int64) for one in rows]
    gap = float(np.median(np.concatenate(gaps))) if any(map(len, gaps)) else np.inf
    single = grid.unit == "us" and 2 * gap > grid.step
    shift = _phase(np.concatenate([times[one.index] for one in rows]), grid) if single else 0.5
    placed = []
    for one in rows:
        columns = np.column_stack([one.values, one.beside])
        places, columns = joined(_places(grid, times[one.index], shift), columns, how)
        placed.append((SeriesRows(one.name, places, columns[:, 0], columns[:, 1:], one.static), places))
    before, after = sum(len(one.index) for one in rows), sum(len(places) for _, places in placed)
    done = "moved to" if single else f"joined ({how}) in"
    return placed, f"{before} rows were {done} steps of {grid.spacing}, which gave {after}."


def _steps(times: np.ndarray, grid: Grid) -> np.ndarray:
    return (times.astype("datetime64[us]").astype(np.int64) - grid.origin) / grid.step


def _phase(times: np.ndarray, grid: Grid) -> float:
    """Where in their steps the times usually are: the circular mean, from -0.1 to 0.9."""
    phase = float(np.angle(np.exp(2j * np.pi * _steps(times, grid)).mean()) / (2 * np.pi) % 1)
    return phase - 1 if phase >= _EARLY else phase


def _places(grid: Grid, times: np.ndarray, shift: float) -> np.ndarray:
    """The step whose point at `shift` is the nearest; at 0.5 it is the step that a time falls into."""
    if grid.unit == "month":
        return times.astype("datetime64[M]").astype(np.int64) // grid.step
    return np.floor(_steps(times, grid) - shift + 0.5).astype(np.int64)


def joined(places: np.ndarray, columns: np.ndarray, how: How) -> tuple[np.ndarray, np.ndarray]:
    """The places that occur, rising, and the columns `[n, C]` joined within each: missing only where all rows are."""
    found, group = np.unique(places, return_inverse=True)
    result = np.full((len(found), columns.shape[1]), np.nan)
    for k, column in enumerate(columns.T):
        known = ~np.isnan(column)
        values, where = column[known], group[known]
        counts = np.bincount(where, minlength=len(found))
        filled = counts > 0
        if how in ("mean", "sum"):
            sums = np.bincount(where, values, minlength=len(found))
            result[filled, k] = sums[filled] / (counts[filled] if how == "mean" else 1)
        elif how == "last":
            result[where, k] = values  # of several assignments to one place, numpy keeps the last
        else:
            ends: Callable[..., None] = np.minimum.at if how == "min" else np.maximum.at
            result[filled, k] = np.inf if how == "min" else -np.inf
            ends(result[:, k], where, values)
    return found, result
