"""Times in their usual spellings."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidegate.data import read_table
from tidegate.data.times import read_times
from tidegate.errors import DataError


def times(values: list[object], tmp_path: Path | None = None) -> np.ndarray:
    if tmp_path is None:
        return read_times(read_table(pl.DataFrame({"t": values})), "t")
    path = tmp_path / "a.csv"
    path.write_text("t\n" + "\n".join(map(str, values)) + "\n")
    return read_times(read_table(path), "t")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2024-01-30", "2024-02-01"),
        ("2024/01/30", "2024/02/01"),
        ("20240130", "20240201"),
        ("30.01.2024", "01.02.2024"),
        ("30/01/2024", "01/02/2024"),
        ("01/30/2024", "02/01/2024"),
        ("2024-01-30 00:00", "2024-02-01 00:00"),
        ("2024-01-30T00:00:00", "2024-02-01T00:00:00"),
        ("2024-01-30 00:00:00.000", "2024-02-01 00:00:00.000"),
        ("2024-01-30T00:00:00Z", "2024-02-01T00:00:00Z"),
        ("2024-01-30 02:00:00+02:00", "2024-01-31 19:00:00-05:00"),
    ],
)
def test_spellings(first: str, second: str, tmp_path: Path) -> None:
    expected = np.array(["2024-01-30", "2024-02-01"], "datetime64[us]")
    np.testing.assert_array_equal(times([first, second]), expected)
    np.testing.assert_array_equal(times([first, second], tmp_path), expected)


def test_months() -> None:
    np.testing.assert_array_equal(times(["1958-03", "1958-12"]), np.array(["1958-03", "1958-12"], "datetime64[us]"))


def test_whole_numbers_stay_numbers(tmp_path: Path) -> None:
    for found in (times([1700, 1701]), times(["1700", "1701"], tmp_path)):
        assert found.dtype == np.int64
        assert found.tolist() == [1700, 1701]


def test_dates_and_zones_of_a_frame() -> None:
    stamps = pl.Series(["2024-01-30", "2024-02-01"]).str.to_date()
    expected = np.array(["2024-01-30", "2024-02-01"], "datetime64[us]")
    np.testing.assert_array_equal(read_times(read_table(pl.DataFrame({"t": stamps})), "t"), expected)
    zoned = stamps.cast(pl.Datetime("ms")).dt.offset_by("6h").dt.replace_time_zone("Europe/Berlin")
    np.testing.assert_array_equal(
        read_times(read_table(pl.DataFrame({"t": zoned})), "t"), expected + np.timedelta64(5, "h")
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            ["2024-01-30", "soon", "2024-02-01"],
            "a.csv, row 3, column 't': 'soon' is not a time. Expected a time such as 2024-01-31 or "
            "2024-01-31 13:00:00 in every row, or whole numbers.",
        ),
        (
            ["01.02.24", "02.02.24"],
            "a.csv, row 2, column 't': '01.02.24' is not a time. Expected a time such as 2024-01-31 or "
            "2024-01-31 13:00:00 in every row, or whole numbers.",
        ),
        (
            ["2024-01-30", "NA"],
            "a.csv, row 3, column 't' is empty. Expected a time such as 2024-01-31 or 2024-01-31 13:00:00 in every "
            "row, or whole numbers.",
        ),
        (
            ["01/01/2024", "02/03/2024"],
            "a.csv, row 3, column 't': '02/03/2024' may be read as %d/%m/%Y or as %m/%d/%Y, and so may every other "
            "row. Write the times as 2024-01-31 so that day and month cannot be taken for each other.",
        ),
    ],
)
def test_what_is_no_time(values: list[object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        times(values, tmp_path)
    assert str(caught.value) == sentence


def test_a_null_in_a_frame() -> None:
    with pytest.raises(DataError) as caught:
        times([1, None])
    assert str(caught.value) == (
        "the frame, row 1, column 't' is empty. Expected a time such as 2024-01-31 or 2024-01-31 13:00:00 in every "
        "row, or whole numbers."
    )


def test_midnights_of_a_zone_are_dates(tmp_path: Path) -> None:
    expected = np.array(["2024-03-30", "2024-04-01"], "datetime64[us]")
    zoned = pl.Series(expected).dt.replace_time_zone("Europe/Berlin")
    np.testing.assert_array_equal(read_times(read_table(pl.DataFrame({"t": zoned})), "t"), expected)
    written = ["2024-03-30T00:00:00+01:00", "2024-04-01T00:00:00+02:00"]
    np.testing.assert_array_equal(times(list(written), tmp_path), expected)


def test_times_with_and_without_a_zone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        times(["2024-03-30T01:00:00+01:00", "2024-04-01T01:00:00"], tmp_path)
    assert str(caught.value) == (
        "a.csv, row 3, column 't': '2024-04-01 01:00:00' has no time zone, but the rows before it do. Write "
        "all times with a zone, or all without."
    )
