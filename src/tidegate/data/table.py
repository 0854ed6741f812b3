"""A table from a file or a frame, with what an error message needs: its name and the number of each row."""

import csv
import difflib
import gzip
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tidegate.data.values import WORDS
from tidegate.errors import DataError, MissingExtraError
from tidegate.files import printable

try:
    import narwhals as nw
    import polars as pl
except ImportError:  # pragma: no cover - seen only where the extra is not installed
    raise MissingExtraError("app", "Reading tables") from None

T = TypeVar("T")
_LARGEST = 1e100
_TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")


@dataclass(frozen=True)
class Table:
    """A polars frame, the name that errors give it, and the number of its first row as its reader would count it."""

    frame: pl.DataFrame
    name: str
    first_row: int
    decimal_comma: bool = False

    def column(self, name: str) -> pl.Series:
        """The column of that name."""
        if name in self.frame.columns:
            return self.frame[name]
        raise no_column(self.name, name, self.frame.columns)

    def place(self, index: int, column: str) -> str:
        """The place of a value, for error messages."""
        return f"{self.name}, row {index + self.first_row}, column '{column}'"

    def texts(self, name: str, missing: Sequence[str] = ("",)) -> pl.Series:
        """A column as stripped text; null where a value is missing, or one of these texts in lower case."""
        column = self.column(name)
        column = column.fill_nan(None) if column.dtype.is_float() else column
        text = column.cast(pl.String).str.strip_chars()
        return text.set(text.str.to_lowercase().is_in(missing).fill_null(True), None)

    def numbers(self, name: str) -> np.ndarray:
        """A column as float64, NaN where a value is missing; text that is not a finite number is an error."""
        column = self.column(name)
        if column.dtype.is_numeric() or column.dtype == pl.Boolean:
            return self._finite(name, column.cast(pl.Float64), column.is_null() | column.cast(pl.Float64).is_nan())
        text = self.texts(name, WORDS)
        plain = text.str.replace(",", ".", literal=True) if self.decimal_comma else text
        return self._finite(name, plain.cast(pl.Float64, strict=False), text.is_null())

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


def no_column(place: str, name: str, columns: Sequence[str]) -> DataError:
    """The error of a column that is not there."""
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return DataError(f"{place} has no column '{name}'; its columns are {', '.join(columns)}.{hint}")


def read_table(data: Any) -> Table:
    """A table from a path (CSV, TSV or text, also .gz; Parquet) or from a pandas, polars or other narwhals frame.

    A text file's columns are separated by comma, semicolon or tab, whichever its first line holds most of; with
    semicolons, numbers may have a decimal comma. Rows are counted as in the file, its header being row 1; those of
    a frame or a Parquet file from 0.
    """
    if isinstance(data, str | os.PathLike):
        return _read_file(Path(data))
    frame = nw.from_native(data, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        raise DataError(f"data must be the path of a CSV, TSV or Parquet file, or a frame, got {type(data).__name__}.")
    return Table(frame.to_polars(), "the frame", 0)


def _read_file(path: Path) -> Table:
    name = printable(path.name)
    if not os.path.isfile(path):
        raise DataError(f"There is no file {printable(str(path))}. Give the path of a CSV, TSV or Parquet file.")
    if name.lower().endswith(".parquet"):
        return Table(_guarded(name, lambda: pl.read_parquet(path)), name, 0)
    if not name.lower().endswith(_TEXT):
        raise DataError(f"{name} has an unknown extension. Expected {', '.join(_TEXT)} or .parquet.")
    text = _decode(path).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    separator = max(",;\t", key=text.partition("\n")[0].count)
    _guarded(name, lambda: _check_rows(name, text, separator))
    frame = _guarded(name, lambda: pl.read_csv(text.encode(), separator=separator, infer_schema=False))
    return Table(frame, name, 2, decimal_comma=separator == ";")


def _decode(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.name.lower().endswith(".gz") else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path.name}, row {row}: a byte is not UTF-8. Save the file as UTF-8 text.") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name} cannot be read: {error}. Expected a file of text, or of gzipped text.") from None


def _check_rows(name: str, text: str, separator: str) -> None:
    header: list[str] = []
    for number, fields in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=separator), start=1):
        header = header or fields
        if len(fields) != len(header) and (fields or len(header) > 1):
            raise DataError(
                f"{name}, row {number}: {len(fields)} fields where the header has {len(header)}. "
                "Expected as many fields in every row; put quotes around text that holds the separator."
            )
    twice = next((column for column in header if header.count(column) > 1), None)
    if not header or twice is not None:
        problem = "is empty" if not header else f"has two columns named '{twice}'"
        raise DataError(f"{name} {problem}. Expected a header row that names each column once.")


def _guarded(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (pl.exceptions.PolarsError, csv.Error, OSError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{name} cannot be read as a table: {first}. Write it again from its source.") from None
