"""Delimited text: its separator, header and rows, by one rule for whole files and for streams."""

import csv
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from tidegate.data.tables.numbers import kind_of
from tidegate.errors import DataError

_SEPARATORS = ",;\t|"
_EXCEL = re.compile(r"sep=(.)")  # a first line that Excel writes and reads


@dataclass(frozen=True)
class Delimited:
    """The separator, the names of the columns, and the rows, each with its number; rows are read lazily."""

    separator: str
    header: list[str]
    rows: Iterator[tuple[int, list[str]]]


def read_delimited(lines: Iterable[str], name: str, needed: Sequence[str] = ()) -> Delimited:
    """Delimited text from its lines, whose header must have the `needed` columns.

    The separator is a comma, semicolon, tab or vertical bar, whichever the header has most of outside quotes, or the
    one that a first line `sep=;` names. Blank lines are skipped, and so are lines before the header that begin with #.
    Names lose the space around them; a column without a name is called after its place, `column 3`. Rows are counted
    as in the file, from 1. Raises DataError, with the number of the row.
    """
    lines, separator = iter(lines), ""
    for skipped, line in enumerate(lines):  # noqa: B007
        named = _EXCEL.fullmatch(line.strip("\r\n"))
        separator = named[1] if named else separator
        if line.strip() and not named and not line.startswith("#"):
            break
    else:
        raise DataError(f"{name} is empty. Expected a header row that names each column once.")
    separator = separator or max(_SEPARATORS, key=re.sub(r'"[^"]*"', "", line).count)
    records = _records(chain([line], lines), name, separator, skipped + 1)
    _, fields = next(records)
    header = [field.strip() or f"column {place}" for place, field in enumerate(fields, start=1)]
    _check_header(name, header, needed)
    return Delimited(separator, header, _filled(records, name, len(header)))


def no_column(place: str, name: str, columns: Sequence[str]) -> DataError:
    """The error of a column that is not there."""
    if _looks_like_values(columns):
        return DataError(
            f"{place} has no column '{name}': its first row, {', '.join(columns)}, looks like values, not like names. "
            "Add a header row that names each column, such as time,value."
        )
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return DataError(f"{place} has no column '{name}'; its columns are {', '.join(columns)}.{hint}")


def refuse_twice(place: str, columns: Sequence[str]) -> None:
    """Raise DataError where two columns have one name."""
    seen = set[str]()
    for column in columns:
        if column in seen:
            raise DataError(f"{place} has two columns named '{column}'. {_each_once(columns)}")
        seen.add(column)


def _each_once(columns: Sequence[str]) -> str:
    hint = " Its first row looks like values: add a header row." if _looks_like_values(columns) else ""
    return f"Expected a header row that names each column once.{hint}"


def _looks_like_values(columns: Sequence[str]) -> bool:
    return any(kind_of(column) or re.match(r"\d{4}-\d\d|\d\d?[./]\d\d?[./]\d\d", column) for column in columns)


def _check_header(name: str, header: Sequence[str], needed: Sequence[str]) -> None:
    refuse_twice(name, header)
    for column in needed:
        if column not in header:
            raise no_column(name, column, header)


def _records(lines: Iterable[str], name: str, separator: str, first: int) -> Iterator[tuple[int, list[str]]]:
    number = first - 1
    try:
        for number, fields in enumerate(csv.reader(lines, delimiter=separator, strict=True), start=first):
            yield number, fields
    except csv.Error as error:
        raise DataError(
            f"{name}, row {number + 1}: {error}. Put quotes around text that holds the separator or quotes."
        ) from None


def _filled(records: Iterator[tuple[int, list[str]]], name: str, width: int) -> Iterator[tuple[int, list[str]]]:
    """The rows without blank lines; in a file of one column those between rows are empty values."""
    blank: list[int] = []
    for number, fields in records:
        if not fields:
            blank += [number] if width == 1 else []
            continue
        if len(fields) != width:
            raise DataError(
                f"{name}, row {number}: {len(fields)} fields where the header has {width}. "
                "Expected as many fields in every row; put quotes around text that holds the separator."
            )
        if blank:
            yield from ((empty, [""]) for empty in blank)
            blank.clear()
        yield number, fields
