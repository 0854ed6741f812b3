"""A table from a file or a frame, with what an error message needs: its name and the number of each row."""

import codecs
import gzip
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tidegate.data.tables.delimited import no_column, read_delimited
from tidegate.data.tables.frames import columns_of, is_frame
from tidegate.data.tables.numbers import Decimal, decide, kinds_in, values_of
from tidegate.data.values import WORDS
from tidegate.errors import DataError, MissingExtraError
from tidegate.files import printable

try:
    import polars as pl
except ImportError:  # pragma: no cover - seen only where the extra is not installed
    raise MissingExtraError("app", "Reading tables") from None

T = TypeVar("T")
_LARGEST = 1e100
_TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")


@dataclass(frozen=True)
class Table:
    """A polars frame, the name that errors give it, and the number of each row as its reader would count it.

    `decimal` is the decimal mark of numbers in text, where the user gave one; `commas` says that commas separated the
    columns. `unread` are the types of columns that cannot be read, `index` is the column of times that was the frame's
    index.
    """

    frame: pl.DataFrame
    name: str
    rows: Sequence[int]
    decimal: Decimal | None = None
    commas: bool = False
    unread: Mapping[str, str] = field(default_factory=dict)
    index: str | None = None

    @property
    def columns(self) -> list[str]:
        """The names of all columns."""
        return [*self.frame.columns, *self.unread]

    def column(self, name: str) -> pl.Series:
        """The column of that name."""
        if name in self.frame.columns:
            return self.frame[name]
        if name in self.unread:
            raise DataError(
                f"{self.name}, column '{name}' has the type {self.unread[name]}. Expected numbers, text or times: "
                "convert the column first."
            )
        raise no_column(self.name, name, self.columns)

    def place(self, index: int, column: str) -> str:
        """The place of a value, for error messages."""
        return f"{self.name}, row {self.rows[index]}, column '{column}'"

    def texts(self, name: str, missing: Sequence[str] | frozenset[str] = ("",)) -> pl.Series:
        """A column as stripped text; null where a value is missing, or one of these texts in lower case."""
        column = self.column(name)
        column = column.fill_nan(None) if column.dtype.is_float() else column
        text = column.cast(pl.String).str.strip_chars()
        return text.set(text.str.to_lowercase().is_in(list(missing)).fill_null(True), None)

    def numbers(self, name: str) -> np.ndarray:
        """A column as float64, NaN where a value is missing.

        The decimal mark of text is decided for the whole column, see `tidegate.data.tables.numbers`. Raises
        DataError for text that is not a finite number, and for a column whose decimal mark cannot be told.
        """
        column = self.column(name)
        if column.dtype.is_numeric() or column.dtype == pl.Boolean:
            return self._finite(name, column.cast(pl.Float64), column.is_null() | column.cast(pl.Float64).is_nan())
        text = self.texts(name, WORDS)
        return self._finite(name, values_of(text, self.decimal_of(name, text)), text.is_null())

    def decimal_of(self, name: str, text: pl.Series) -> Decimal:
        """The decimal mark of a column of text."""
        kinds = {kind: (str(text[row]), self.place(row, name)) for kind, row in kinds_in(text).items()}
        return decide(kinds, self.decimal, self.commas)

    def _finite(self, name: str, numbers: pl.Series, missing: pl.Series) -> np.ndarray:
        values = numbers.fill_null(np.nan).to_numpy().astype(np.float64)
        gaps = missing.to_numpy()
        wrong = np.flatnonzero(~np.isfinite(values) & ~gaps)
        if len(wrong):
            got = self.column(name)[int(wrong[0])]
            raise DataError(
                f"{self.place(int(wrong[0]), name)}: {got!r} is not a finite number. "
                "Expected a number, or an empty field where the value is missing."
            )
        large = np.flatnonzero(np.abs(values) > _LARGEST)
        if len(large):
            raise DataError(
                f"{self.place(int(large[0]), name)}: {values[large[0]]:g} is too large to compute with. "
                f"Expected numbers between -{_LARGEST:g} and {_LARGEST:g}; give the column in larger units, or leave "
                "the value empty."
            )
        return np.where(gaps, np.nan, values)


def read_table(data: Any, *, decimal: Decimal | None = None, encoding: str | None = None) -> Table:
    """A table from a path (CSV, TSV or text, also .gz; Parquet) or from a pandas, polars or other narwhals frame.

    `tidegate.data.tables.delimited` says how text is split into columns. `decimal` is the decimal mark of numbers in
    text, without which each column tells; `encoding` that of a text file, UTF-8 without it. Times in the index of a
    pandas frame become a column of the index's name, or `time`. Rows are counted as in the file, its first line being
    row 1; those of a frame or a Parquet file from 0.
    """
    if isinstance(data, str | os.PathLike):
        return _read_file(Path(data), decimal, encoding)
    if not is_frame(data):
        raise DataError(f"data must be the path of a CSV, TSV or Parquet file, or a frame, got {type(data).__name__}.")
    return _framed(data, "the frame", decimal)


def _framed(data: Any, name: str, decimal: Decimal | None) -> Table:
    found = columns_of(data, name)
    rows = range(len(data))
    return Table(found.frame, name, rows, decimal, unread=found.unread, index=found.index)


def _read_file(path: Path, decimal: Decimal | None, encoding: str | None) -> Table:
    name = printable(path.name)
    if not os.path.isfile(path):
        raise DataError(f"There is no file {printable(str(path))}. Give the path of a CSV, TSV or Parquet file.")
    if name.lower().endswith(".parquet"):
        return _framed(_guarded(name, lambda: pl.read_parquet(path)), name, decimal)
    if not name.lower().endswith(_TEXT):
        raise DataError(f"{name} has an unknown extension. Expected {', '.join(_TEXT)} or .parquet.")
    text = read_delimited(io.StringIO(_decode(path, encoding), newline=""), name)
    rows = list(text.rows)
    columns = zip(*(fields for _, fields in rows), strict=True) if rows else ([] for _ in text.header)
    frame = pl.DataFrame(
        [pl.Series(column, values, pl.String) for column, values in zip(text.header, columns, strict=True)]
    )
    return Table(frame, name, [number for number, _ in rows], decimal, commas=text.separator == ",")


def _decode(path: Path, encoding: str | None) -> str:
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.name.lower().endswith(".gz") else raw
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name} cannot be read: {error}. Expected a file of text, or of gzipped text.") from None
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    chosen = encoding or ("utf-16" if wide else "utf-8-sig")
    try:
        return raw.decode(chosen)
    except LookupError:
        raise DataError(f"There is no encoding {chosen!r}. Give for example utf-8, cp1252 or latin-1.") from None
    except UnicodeDecodeError as error:
        row, shown = raw.count(b"\n", 0, error.start) + 1, "UTF-8" if encoding is None else encoding
        raise DataError(
            f"{path.name}, row {row}: a byte is not {shown}. Save the file as UTF-8, or name its encoding: "
            "--encoding cp1252 (in Python encoding='cp1252') for files of Windows."
        ) from None


def _guarded(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{name} cannot be read as a table: {first}. Write it again from its source.") from None
