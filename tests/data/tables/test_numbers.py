"""Decimal and thousands marks, decided for a whole column; files and streams follow one rule."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.data import Decimal, read_stream, read_table
from tidegate.data.tables.numbers import kind_of, kinds_in, value_of, values_of
from tidegate.errors import DataError

OPTION = "Give the decimal mark of the numbers: --decimal . or --decimal , (in Python decimal='.' or decimal=',')."


def column(values: list[str], separator: str = ";", decimal: Decimal | None = None) -> list[float]:
    """The column as a file and as a stream, which must agree."""
    lines = [f"t{separator}v\n", *(f'{k}{separator}"{value}"\n' for k, value in enumerate(values))]
    stream = list(read_stream(lines, "a.csv", decimal=decimal))
    return [math.nan if value is None else value for value in (row.float("v") for row in stream)]


def table(path: Path, values: list[str], separator: str = ";", decimal: Decimal | None = None) -> list[float]:
    path = path / "a.csv"
    path.write_text(f"t{separator}v\n" + "".join(f'{k}{separator}"{value}"\n' for k, value in enumerate(values)))
    return [float(value) for value in read_table(path, decimal=decimal).numbers("v")]


READ = [
    (["999,5", "1.034"], [999.5, 1034.0]),
    (["1,234.56", "2"], [1234.56, 2.0]),
    (["1.234,56", "2"], [1234.56, 2.0]),
    (["0.123", "1,034"], [0.123, 1034.0]),
    (["1.234.567", "1.034"], [1234567.0, 1034.0]),
    (["12345", "1.034"], [12345.0, 1.034]),
    (["12345", "1,034"], [12345.0, 1.034]),
    (["1 234,5", "7"], [1234.5, 7.0]),
    (["1'234.5", "7"], [1234.5, 7.0]),
    (["1\u202f234", "970"], [1234.0, 970.0]),
    (["-0,5", "\u22121,5e3", "+2"], [-0.5, -1500.0, 2.0]),
    (["1", "20", "300"], [1.0, 20.0, 300.0]),
    ([",5", "1,"], [0.5, 1.0]),
]


@pytest.mark.parametrize(("values", "numbers"), READ)
def test_marks_are_decided_by_the_rows_that_tell(values: list[str], numbers: list[float], tmp_path: Path) -> None:
    for separator in (",", ";", "\t"):
        assert column(values, separator) == numbers
        assert table(tmp_path, values, separator) == numbers


@pytest.mark.parametrize("decimal", [".", ","])
def test_a_later_row_tells_in_files(decimal: Decimal, tmp_path: Path) -> None:
    other = "," if decimal == "." else "."
    assert table(tmp_path, [f"1{other}034", "970", f"0{decimal}5"]) == [1034.0, 970.0, 0.5]


@pytest.mark.parametrize("mark", [".", ","])
@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_column_in_which_no_row_tells_is_refused(mark: str, separator: str, tmp_path: Path) -> None:
    values = [f"1{mark}034", "970"]
    for read in (lambda: column(values, separator), lambda: table(tmp_path, values, separator)):
        with pytest.raises(DataError) as caught:
            read()
        readings = "1.034 or as 1034" if mark == "." else "1034 or as 1.034"
        assert str(caught.value) == (
            f"a.csv, row 2, column 'v': '1{mark}034' may be read as {readings}, and no row of the column tells which. "
            f"{OPTION}"
        )
    for decimal, number in ((mark, 1.034), ("," if mark == "." else ".", 1034.0)):
        assert column(values, separator, decimal) == [number, 970.0]  # type: ignore[arg-type]
        assert table(tmp_path, values, separator, decimal) == [number, 970.0]  # type: ignore[arg-type]


def test_points_between_commas_are_decimal_marks_unless_a_row_lacks_one(tmp_path: Path) -> None:
    assert column(["50.053", "53.615"], ",") == table(tmp_path, ["50.053", "53.615"], ",") == [50.053, 53.615]
    for read in (lambda: column(["1.034", "970"], ","), lambda: table(tmp_path, ["1.034", "970"], ",")):
        with pytest.raises(DataError, match="may be read as"):
            read()
    with pytest.raises(DataError, match="may be read as"):
        table(tmp_path, ["1,034", "2,051"], ",")


def test_rows_that_contradict_each_other(tmp_path: Path) -> None:
    for read in (lambda: column(["0.5", "0,5"]), lambda: table(tmp_path, ["0.5", "0,5"])):
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value) == (
            "a.csv, row 3, column 'v': '0,5' has a decimal comma, but '0.5' (a.csv, row 2, column 'v') has a decimal "
            "point. Write all numbers of a column alike."
        )
    with pytest.raises(DataError) as caught:
        table(tmp_path, ["0.5"], decimal=",")
    assert str(caught.value) == f"a.csv, row 2, column 'v': '0.5' cannot be read with the decimal mark ','. {OPTION}"


def test_files_of_cases(tmp_path: Path) -> None:
    days = "".join(f"2024-01-{day:02};{text}\n" for day, text in ((1, "1.001"), (2, "970,14"), (3, "998,68")))
    (tmp_path / "a.csv").write_text("day;units\n" + days)
    assert read_table(tmp_path / "a.csv").numbers("units").tolist() == [1001.0, 970.14, 998.68]


@given(st.lists(st.text("0123456789.,- '+e", max_size=9), min_size=1, max_size=5))
def test_texts_alone_and_in_a_column_agree(texts: list[str]) -> None:
    series = pl.Series(texts)
    found = kinds_in(series)
    assert {kind: texts[row] for kind, row in found.items()} == {
        kind: next(text for text in texts if kind_of(text) == kind) for kind in map(kind_of, texts) if kind
    }
    for decimal in (".", ","):
        alone = [value_of(text, decimal) for text in texts]  # type: ignore[arg-type]
        together = values_of(series, decimal).fill_null(math.nan).to_numpy()  # type: ignore[arg-type]
        np.testing.assert_array_equal(together, alone)
