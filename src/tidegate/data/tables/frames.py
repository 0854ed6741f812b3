"""Frames of pandas, polars and other libraries as polars columns; pyarrow is not needed for it.

A column of a type that is neither numbers, text nor times is kept aside: only reading it is an error.
"""

import datetime
import decimal
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidegate.data.tables.delimited import refuse_twice
from tidegate.data.values import is_missing
from tidegate.errors import MissingExtraError

try:
    import narwhals as nw
    import polars as pl
except ImportError:  # pragma: no cover - seen only where the extra is not installed
    raise MissingExtraError("app", "Reading tables") from None

_NUMBERS = (int, float, decimal.Decimal, np.number)
_WORDS = (str, bool, *_NUMBERS)
_TIMES = (datetime.date, np.datetime64)


@dataclass(frozen=True)
class FrameColumns:
    """The columns that can be read, the types of the others by name, and the name of an index that holds times."""

    frame: pl.DataFrame
    unread: dict[str, str] = field(default_factory=dict)
    index: str | None = None


def is_frame(data: Any) -> bool:
    """Whether this is an eager frame of a library that narwhals knows."""
    if nw.dependencies.is_pandas_dataframe(data):  # narwhals refuses names that occur twice
        return True
    return isinstance(nw.from_native(data, eager_only=True, pass_through=True), nw.DataFrame)


def columns_of(data: Any, name: str) -> FrameColumns:
    """The columns of a frame that errors call `name`. Raises DataError where two columns have one name."""
    if nw.dependencies.is_pandas_dataframe(data):
        return _of_pandas(data, name)
    frame = data if isinstance(data, pl.DataFrame) else nw.from_native(data, eager_only=True).to_polars()
    return _split({column: _of_polars(frame[column]) for column in frame.columns}, None)


def _split(columns: dict[str, pl.Series | str], index: str | None) -> FrameColumns:
    """The readable columns apart from those of which only the type is given."""
    read = [column.alias(name) for name, column in columns.items() if isinstance(column, pl.Series)]
    unread = {name: column for name, column in columns.items() if isinstance(column, str)}
    return FrameColumns(pl.DataFrame(read), unread, index)


def _of_polars(column: pl.Series) -> pl.Series | str:
    kind = column.dtype
    if kind == pl.Object:
        return _of_objects(column.to_list(), str(kind))
    known = kind.is_numeric() or kind in (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Date, pl.Datetime, pl.Null)
    return column if known else str(kind)


def _of_pandas(data: Any, name: str) -> FrameColumns:
    names = [str(column) for column in data.columns]
    refuse_twice(name, names)
    columns = {column: _pandas_column(data.iloc[:, k]) for k, column in enumerate(names)}
    levels, index = data.index.to_frame(index=False), None
    for k, level in enumerate(data.index.names):
        values = _pandas_column(levels.iloc[:, k])
        timed = isinstance(values, pl.Series) and values.dtype in (pl.Datetime, pl.Date)
        called = str(level) if level is not None else next(free for free in ("time", "index") if free not in columns)
        if (timed or level is not None) and called not in columns:
            columns[called] = values
            index = called if timed else index
    return _split(columns, index)


def _pandas_column(column: Any) -> pl.Series | str:
    kind, text = column.dtype, str(column.dtype)
    if text.startswith("Sparse"):
        column = column.sparse.to_dense()
        kind = column.dtype
    if isinstance(kind, np.dtype) and kind.kind in "iub":
        return pl.Series(column.to_numpy())
    if isinstance(kind, np.dtype) and kind.kind == "f":
        return pl.Series(column.to_numpy(np.float64)).fill_nan(None)
    if text.startswith("period"):
        column = column.dt.to_timestamp()
        kind, text = column.dtype, str(column.dtype)
    zone = re.fullmatch(r"datetime64\[\w+, (.*)\]", text)
    if zone and re.search(r"\d", zone[1]) and "/" not in zone[1]:  # a fixed offset, for which polars has no name
        return pl.Series([None if is_missing(time) else time.isoformat() for time in column], dtype=pl.String)
    if zone:
        utc = pl.Series(column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]"))
        return utc.dt.replace_time_zone("UTC").dt.convert_time_zone(zone[1])
    if isinstance(kind, np.dtype) and kind.kind == "M":
        return pl.Series(column.to_numpy("datetime64[us]"))
    if getattr(kind, "kind", "O") in "mcV" or text.startswith("interval"):
        return text
    return _of_objects(column.astype(object).tolist(), text)


def _of_objects(values: list[Any], kind: str) -> pl.Series | str:
    """Python values: all numbers, all times, or numbers and text, which become text; None where one is missing."""
    values = [None if is_missing(value) else value for value in values]
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        return pl.Series(values, dtype=pl.Boolean)
    if all(isinstance(value, _NUMBERS) for value in known):
        whole = all(isinstance(value, int | np.integer) and abs(int(value)) < 2**63 for value in known)
        return pl.Series([None if value is None else (int if whole else float)(value) for value in values])
    if known and all(isinstance(value, _TIMES) for value in known):
        return _of_times(values)
    if all(isinstance(value, _WORDS) for value in known):
        texts = [None if value is None else str(value) for value in values]
        return pl.Series(texts, dtype=pl.String)
    other = next(value for value in known if not isinstance(value, _WORDS))
    return f"{kind} ({type(other).__name__})"


def _of_times(values: list[Any]) -> pl.Series:
    """Dates and times as they are written, so that zones are kept."""
    return pl.Series([None if value is None else _iso(value) for value in values], dtype=pl.String)


def _iso(time: datetime.date | np.datetime64) -> str:
    return str(time) if isinstance(time, np.datetime64) else time.isoformat()
