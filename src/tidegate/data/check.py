"""What a table holds, before anything is trained: its columns, time, steps, series, and values in doubt."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tidegate.data.doubles import telling_column
from tidegate.data.panel import Panel, Series, read_panel
from tidegate.data.resample import How
from tidegate.data.tables.numbers import Decimal, kind_of
from tidegate.data.tables.table import Table, read_table
from tidegate.data.times import read_times, shown_time
from tidegate.data.values import WORDS
from tidegate.errors import DataError, TidegateError

_FAR = 20.0  # robust standard deviations from the median of a series
_MOST_DOUBTS = 20
_MARKS = {".": "decimal point", ",": "decimal comma"}


@dataclass(frozen=True)
class ColumnCheck:
    """A column: its kind is times, numbers, text, empty, undecided (of two decimal marks), or other."""

    name: str
    kind: str
    detail: str
    missing: int


@dataclass(frozen=True)
class SeriesCheck:
    """A series: its first and last time, its steps, and those without a value."""

    name: str
    first: str
    last: str
    steps: int
    missing: int


@dataclass(frozen=True)
class Doubt:
    """A value far from the others of its series: `distance` is in robust standard deviations from the median."""

    series: str
    time: str
    value: float
    distance: float


@dataclass(frozen=True)
class TableCheck:
    """What a table holds. Where it cannot be read as series, `problem` says why, and what depends on them is empty."""

    name: str
    rows: int
    columns: tuple[ColumnCheck, ...]
    target: str | None
    time: str | None
    id: str | None
    step: str = ""
    season: int = 1
    zone: str | None = None
    series: tuple[SeriesCheck, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    problem: str = ""


def check_table(
    data: Any,
    target: str | None = None,
    *,
    time: str | None = None,
    id: str | None = None,
    covariates: Sequence[str] = (),
    known: Sequence[str] = (),
    static: Sequence[str] = (),
    wide: bool = False,
    every: str | None = None,
    how: How = "mean",
    decimal: Decimal | None = None,
    encoding: str | None = None,
) -> TableCheck:
    """What `read_panel` would make of a table. Without them, time, id and target are those that the columns suggest:
    the first column of times, one that tells equal times apart, and the last other column of numbers.

    Raises DataError where the table itself cannot be read.
    """
    table = read_table(data, decimal=decimal, encoding=encoding)
    columns = tuple(_column(table, name) for name in table.columns)
    time = time or table.index or next((one.name for one in columns if one.kind == "times"), None)
    id = id or (None if wide else _id(table, time))
    taken = {time, id, *covariates, *known, *static}
    numbers = [one.name for one in columns if one.kind in ("numbers", "undecided") and one.name not in taken]
    target = target or ("value" if wide else next(reversed(numbers), None))
    found = TableCheck(table.name, table.frame.height, columns, target, time, id)
    if target is None:
        return replace(found, problem="No column holds numbers to forecast.")
    try:
        panel = read_panel(
            data, target, time=time, id=id, covariates=covariates, known=known, static=static, wide=wide, every=every,
            how=how, decimal=decimal, encoding=encoding,
        )  # fmt: skip
    except TidegateError as error:
        return replace(found, problem=str(error))
    doubts = sorted((doubt for one in panel.series for doubt in _doubts(one, panel)), key=lambda one: -one.distance)
    return replace(
        found,
        step=panel.grid.spacing,
        season=panel.grid.season,
        zone=panel.grid.zone,
        series=tuple(_series(one, panel) for one in panel.series),
        notes=panel.notes,
        doubts=tuple(doubts[:_MOST_DOUBTS]),
    )


def _id(table: Table, time: str | None) -> str | None:
    """The column that tells rows of one time apart, where the times occur several times each."""
    if time is None or time not in table.frame.columns or table.frame[time].n_unique() > 0.7 * table.frame.height:
        return None
    return telling_column(table, time)


def _column(table: Table, name: str) -> ColumnCheck:
    if name in table.unread:
        return ColumnCheck(name, "other", f"of the type {table.unread[name]}, which cannot be read", 0)
    text = table.texts(name, WORDS)
    missing, known = text.null_count(), text.drop_nulls()
    if not len(known):
        return ColumnCheck(name, "empty", "no values", missing)
    try:
        times = read_times(replace(table, frame=table.frame.filter(text.is_not_null())), name)
    except DataError:
        times = None
    if times is not None and times.values.dtype.kind == "M":
        first, last = (shown_time(end, times.zone) for end in (times.values.min(), times.values.max()))
        return ColumnCheck(name, "times", f"{first} to {last}", missing)
    column = table.frame[name]
    if not (column.dtype.is_numeric() or all(kind_of(value) for value in known.unique())):
        return ColumnCheck(name, "text", f"{known.n_unique()} different values, such as {known[0]!r:.60}", missing)
    try:
        values = table.numbers(name)
        mark = "" if column.dtype.is_numeric() else f", {_MARKS[table.decimal_of(name, text)]}"
    except DataError as error:
        return ColumnCheck(name, "undecided", str(error), missing)
    mark = mark if known.cast(str).str.contains(r"[.,]").any() else ""
    return ColumnCheck(name, "numbers", f"{np.nanmin(values):.6g} to {np.nanmax(values):.6g}{mark}", missing)


def _series(one: Series, panel: Panel) -> SeriesCheck:
    first, last = panel.grid.texts(np.array([one.start, one.stop - 1]))
    return SeriesCheck(one.name, first, last, len(one), int(np.isnan(one.values).sum()))


def _doubts(one: Series, panel: Panel) -> list[Doubt]:
    """Values whose distance from the median is large beside the median of such distances (Hampel's rule)."""
    distances = np.abs(one.values - np.nanmedian(one.values))
    usual = 1.4826 * np.nanmedian(distances)
    if not usual > 0:
        return []
    far = np.flatnonzero(distances > _FAR * usual)
    texts = panel.grid.texts(one.start + far)
    return [
        Doubt(one.name, text, float(one.values[k]), float(distances[k] / usual))
        for k, text in zip(far, texts, strict=True)
    ]
