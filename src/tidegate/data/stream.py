"""Streams of rows, read lazily: CSV with a header, or JSON lines."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tidegate.data.tables.delimited import no_column, read_delimited
from tidegate.data.tables.numbers import Decimal, Kinds, decide, kind_of, value_of
from tidegate.data.values import WORDS, is_missing
from tidegate.errors import DataError


@dataclass
class NumberFormats:
    """The decimal mark of each column, as far as the texts seen so far tell; `decimal` and `commas` as in `Table`."""

    decimal: Decimal | None = None
    commas: bool = False
    kinds: dict[str, Kinds] = field(default_factory=dict)

    def value(self, column: str, text: str, place: str) -> float:
        """The number of a text; NaN where it is not one. Raises DataError as `decide` does."""
        kind, kinds = kind_of(text), self.kinds.setdefault(column, {})
        if not kind:
            return math.nan
        kinds.setdefault(kind, (text, place))
        return value_of(text, decide(kinds, self.decimal, self.commas))


@dataclass(frozen=True)
class Row:
    """One row: its number, its values by column (text from CSV, any type from JSON), and how text becomes numbers."""

    name: str
    number: int
    values: Mapping[str, Any]
    formats: NumberFormats = field(default_factory=NumberFormats, compare=False)

    def place(self, column: str) -> str:
        """The place of a value, for error messages."""
        return f"{self.name}, row {self.number}, column '{column}'"

    def get(self, column: str) -> Any:
        """A value, of text without the space around it; None where it is missing or empty. Words are never missing."""
        value = self.values.get(column)
        if isinstance(value, str):
            return value.strip() or None
        return None if is_missing(value) else value

    def float(self, column: str) -> float | None:
        """A number; None where it is missing. Raises DataError for what is not a finite number."""
        value = self.get(column)
        if value is None or (isinstance(value, str) and value.lower() in WORDS):
            return None
        try:
            text = isinstance(value, str)
            number = self.formats.value(column, value, self.place(column)) if text else float(value)
        except (TypeError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise DataError(
                f"{self.place(column)}: {value!r} is not a finite number. Expected a number, or an empty field where "
                "the value is missing."
            )
        return number

    def key(self, column: str) -> str:
        """The text or number that says which series a row belongs to. Raises DataError where there is none."""
        value = self.get(column)
        if not isinstance(value, str | int | float):
            got = "is empty" if value is None else f"holds {value!r:.80}"
            raise DataError(f"{self.place(column)} {got}. Expected the name of a series in every row.")
        return str(value)


def read_stream(
    lines: Iterable[str],
    name: str,
    needed: Sequence[str] = (),
    decimal: Decimal | None = None,
) -> Iterator[Row]:
    """The rows of delimited text whose header has the `needed` columns, or of JSON objects that each have them.

    A null is a missing value, a JSON object without a needed column an error. A line is read when its row is asked for:
    the rows of a pipe are given as they are written. `tidegate.data.tables.delimited` says how text is
    split into columns. The decimal mark of a column's numbers is `decimal`, or else what its rows so far tell: a number
    that leaves it open raises DataError, as does all else that cannot be read, with the number of the row.
    """
    lines = iter(_decoded(lines, name))
    blank: list[str] = []
    first = next(lines, None)
    while first is not None and not first.strip():
        blank.append(first)
        first = next(lines, None)
    if first is None:
        raise DataError(f"{name} is empty. Expected a header row that names each column once, or JSON objects.")
    text = chain(blank, [first], lines)
    if first.lstrip().startswith("{"):
        formats = NumberFormats(decimal)
        yield from _json(text, name, needed, formats)
    else:
        table = read_delimited(text, name, needed)
        formats = NumberFormats(decimal, table.separator == ",")
        for number, fields in table.rows:
            yield Row(name, number, dict(zip(table.header, fields, strict=True)), formats)


def _decoded(lines: Iterable[str], name: str) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise DataError(f"{name} holds a byte that is not UTF-8. Write it as UTF-8 text.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}. Give a file of text.") from error


def _json(lines: Iterable[str], name: str, needed: Sequence[str], formats: NumberFormats) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{name}, row {number} is not JSON: {error}. Expected one JSON object in each line."
            ) from None
        if not isinstance(values, dict):
            raise DataError(
                f"{name}, row {number}: got {type(values).__name__}. Expected one JSON object in each line."
            )
        absent = next((column for column in needed if column not in values), None)
        if absent is not None:
            told = no_column(f"{name}, row {number}", absent, list(values))
            raise DataError(f"{told} Write null where a value is missing.")
        yield Row(name, number, values, formats)
