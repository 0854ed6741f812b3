"""Streams of rows, read lazily: CSV with a header, or JSON lines."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tidegate.data.table import no_column
from tidegate.data.values import WORDS, is_missing
from tidegate.errors import DataError

WITHIN = 100  # rows of JSON, in which each needed column must occur once


@dataclass(frozen=True)
class Row:
    """One row: its number, and its values by column (text from CSV, any type from JSON)."""

    name: str
    number: int
    values: Mapping[str, Any]
    decimal_comma: bool = False

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
            number = float(value.replace(",", ".") if isinstance(value, str) and self.decimal_comma else value)
        except (TypeError, ValueError, OverflowError):
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


def read_stream(lines: Iterable[str], name: str, needed: Sequence[str] = (), within: int = WITHIN) -> Iterator[Row]:
    """The rows of a text whose first line is a header with the `needed` columns, or a JSON object like all others.

    Each needed column must occur in one of the first `within` JSON objects. A line is read when its row is asked for:
    the rows of a pipe are given as they are written. Columns are separated by comma, semicolon or tab, whichever the
    header has most of; with semicolons, numbers may have a decimal comma. Rows of a CSV are counted from its header,
    which is row 1. Raises DataError, with the number of the row.
    """
    lines = iter(_decoded(lines, name))
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise DataError(f"{name} is empty. Expected a header row that names each column once, or JSON objects.")
    text = chain([first], lines)
    if first.lstrip().startswith("{"):
        yield from _with_columns(_json(text, name), name, needed, within)
    else:
        yield from _csv(text, name, first, needed)


def _decoded(lines: Iterable[str], name: str) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise DataError(f"{name} holds a byte that is not UTF-8. Write it as UTF-8 text.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}. Give a file of text.") from error


def _csv(lines: Iterable[str], name: str, first: str, needed: Sequence[str]) -> Iterator[Row]:
    separator = max(",;\t", key=first.count)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    number = 0
    try:
        header: list[str] = []
        for number, fields in enumerate(reader, start=1):
            if not header:
                header = [column.strip() for column in fields]
                _check_header(name, header, needed)
            elif fields:
                _check_fields(name, number, fields, header)
                yield Row(name, number, dict(zip(header, fields, strict=True)), separator == ";")
    except csv.Error as error:
        raise DataError(
            f"{name}, row {number + 1}: {error}. Put quotes around text that holds the separator or quotes."
        ) from None


def _check_header(name: str, header: Sequence[str], needed: Sequence[str]) -> None:
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"{name} has two columns named '{twice}'. Expected a header row that names each column once.")
    for column in needed:
        if column not in header:
            raise no_column(name, column, header)


def _check_fields(name: str, number: int, fields: Sequence[str], header: Sequence[str]) -> None:
    if len(fields) != len(header):
        raise DataError(
            f"{name}, row {number}: {len(fields)} fields where the header has {len(header)}. "
            "Expected as many fields in every row; put quotes around text that holds the separator."
        )


def _with_columns(rows: Iterable[Row], name: str, needed: Sequence[str], within: int) -> Iterator[Row]:
    """The same rows. Raises DataError once `within` of them, or all, lack a needed column."""
    seen: dict[str, None] = {}

    def check() -> None:
        absent = next((column for column in needed if column not in seen), None)
        if absent is not None:
            raise no_column(name, absent, list(seen))

    count = 0
    for count, row in enumerate(rows, start=1):
        if count <= within:
            seen |= dict.fromkeys(row.values)
        if count == within:
            check()
        yield row
    if count < within:
        check()


def _json(lines: Iterable[str], name: str) -> Iterator[Row]:
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
        yield Row(name, number, values)
