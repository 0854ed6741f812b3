"""Times in their usual spellings."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidegate.data import Grid, read_table
from tidegate.data.times import Times, read_times
from tidegate.errors import DataError


def times(values: list[object], tmp_path: Path | None = None) -> np.ndarray:
    if tmp_path is None:
        return read_times(read_table(pl.DataFrame({"t": values})), "t").values
    path = tmp_path / "a.csv"
    path.write_text("t\n" + "".join(f'"{value}"\n' for value in values))
    return read_times(read_table(path), "t").values


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
        ("2024-01-30 02:00:00+02", "2024-01-31 19:00:00-05"),
        ("2024-01-30T02:00+0200", "2024-01-31T19:00-0500"),
        ("2024-01-30 05:30:00.000 +05:30", "2024-02-01 00:00:00.000 Z"),
        ("2024-01-30 00:00:00,000", "2024-02-01 00:00:00,000"),
        ("Jan-30-2024", "Feb-1-2024"),
        ("January 30 2024", "Feb 1 2024"),
        ("Jan 30, 2024", "Feb 1, 2024"),
        ("30-Jan-2024", "1-Feb-2024"),
        ("30 Jan 24", "1 Feb 24"),
        ("30.01.24", "01.02.24"),
        ("1/30/24", "2/1/24"),
        ("1/30/2024 12:00 AM", "2/1/2024 12:00 AM"),
        ("1706572800", "1706745600"),
        ("1706572800000", "1706745600000"),
    ],
)
def test_spellings(first: str, second: str, tmp_path: Path) -> None:
    expected = np.array(["2024-01-30", "2024-02-01"], "datetime64[us]")
    np.testing.assert_array_equal(times([first, second]), expected)
    np.testing.assert_array_equal(times([first, second], tmp_path), expected)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1958-04", "1958-10"),
        ("195804", "195810"),
        ("1958 Apr", "1958 October"),
        ("Apr 1958", "Oct 1958"),
        ("1958M04", "1958M10"),
        ("4/1958", "10/1958"),
        ("1958 Q2", "1958 Q4"),
        ("1958Q2", "1958Q4"),
        ("1958-Q2", "1958-Q4"),
        ("Q2 1958", "Q4 1958"),
    ],
)
def test_months_and_quarters_are_their_first_days(first: str, second: str, tmp_path: Path) -> None:
    expected = np.array(["1958-04", "1958-10"], "datetime64[us]")
    np.testing.assert_array_equal(times([first, second]), expected)
    np.testing.assert_array_equal(times([first, second], tmp_path), expected)


def test_weeks() -> None:
    np.testing.assert_array_equal(times(["2024-W01", "2024-W06"]), np.array(["2024-01-01", "2024-02-05"], "M8[us]"))


@pytest.mark.parametrize(
    ("values", "first", "unit"),
    [
        ([20240130, 20240131, 20240201], "2024-01-30", "days"),
        ([202411, 202412, 202501], "2024-11", "months"),
        ([1706572800, 1706576400, 1706580000], "2024-01-30", "seconds"),
        ([1706572800000, 1706572800100, 1706572800200], "2024-01-30", "milliseconds"),
        ([631152000, 631155600, 631159200], "1990-01-01", "seconds"),
        ([1706572800.0, 1706572800.25, 1706572800.5], "2024-01-30", "seconds"),
    ],
)
def test_numbers_that_are_times_in_every_kind_of_column(
    values: list[float], first: str, unit: str, tmp_path: Path
) -> None:
    kinds: list[pl.Series] = [
        pl.Series("t", values),
        pl.Series("t", values, pl.Float64),
        pl.Series("t", map(str, values)),
    ]
    frame = kinds[0].to_frame()
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv", float_precision=None)
    found = [read_times(read_table(data), "t") for data in (*(kind.to_frame() for kind in kinds), tmp_path / "a.csv")]
    found.append(read_times(read_table(tmp_path / "a.parquet"), "t"))
    for one in found:
        assert one.values[0] == np.datetime64(first, "us")
        np.testing.assert_array_equal(one.values, found[0].values)
        assert unit in one.note


@pytest.mark.parametrize(
    "values",
    [
        list(range(1990, 2025)),  # years
        list(range(20240101, 20240140)),  # a counter, which passes the end of a month
        list(range(202401, 202420)),
        [7, 8, 9],
        [-3, -2, -1],
        [0, 500, 1000],
        [631152000, 631152001, 631152002],
    ],
)
def test_counters_and_years_stay_numbers(values: list[int], tmp_path: Path) -> None:
    for found in (times(list(values)), times([float(value) for value in values]), times(list(values), tmp_path)):
        assert found.dtype == np.int64
        assert found.tolist() == values


def test_whole_numbers_stay_numbers(tmp_path: Path) -> None:
    for found in (times([1700, 1701]), times(["1700", "1701"], tmp_path)):
        assert found.dtype == np.int64
        assert found.tolist() == [1700, 1701]


def test_dates_and_zones_of_a_frame() -> None:
    stamps = pl.Series(["2024-01-30", "2024-02-01"]).str.to_date()
    expected = np.array(["2024-01-30", "2024-02-01"], "datetime64[us]")
    np.testing.assert_array_equal(read_times(read_table(pl.DataFrame({"t": stamps})), "t").values, expected)
    zoned = stamps.cast(pl.Datetime("ms")).dt.offset_by("6h").dt.replace_time_zone("Europe/Berlin")
    np.testing.assert_array_equal(
        read_times(read_table(pl.DataFrame({"t": zoned})), "t").values, expected + np.timedelta64(5, "h")
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
            ["01.02.24", "02.2.124"],
            "a.csv, row 3, column 't': '02.2.124' is not a time. Expected a time such as 2024-01-31 or "
            "2024-01-31 13:00:00 in every row, or whole numbers.",
        ),
        (
            ["2024-01-30", "NA"],
            "a.csv, row 3, column 't' is empty. Expected a time such as 2024-01-31 or 2024-01-31 13:00:00 in every "
            "row, or whole numbers.",
        ),
        (
            ["01/01/2024", "02/03/2024"],
            "a.csv, row 3, column 't': '02/03/2024' may be read as 2024-03-02 or as 2024-02-03, and so may every other "
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
    np.testing.assert_array_equal(read_times(read_table(pl.DataFrame({"t": zoned})), "t").values, expected)
    written = ["2024-03-30T00:00:00+01:00", "2024-04-01T00:00:00+02:00"]
    np.testing.assert_array_equal(times(list(written), tmp_path), expected)


def test_times_with_and_without_a_zone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        times(["2024-03-30T01:00:00+01:00", "2024-04-01T01:00:00"], tmp_path)
    assert str(caught.value) == (
        "a.csv, row 3, column 't': '2024-04-01T01:00:00' has no time zone, but the rows before it do. Write "
        "all times with a zone, or all without."
    )


def zoned(values: list[str], grid: Grid | None = None) -> Times:
    return read_times(read_table(pl.DataFrame({"t": values})), "t", grid)


def test_the_zone_is_kept_beside_times_in_utc() -> None:
    found = zoned(["2024-06-17T14:00:00+02:00", "2024-06-17T15:00:00+02:00"])
    assert (found.zone, found.note) == ("+02:00", "")
    np.testing.assert_array_equal(found.values, np.array(["2024-06-17T12", "2024-06-17T13"], "M8[us]"))
    for written, zone in (("2024-06-17 15:00Z", "+00:00"), ("2024-06-17 15:00-0330", "-03:30")):
        assert zoned([written, written]).zone == zone
    frame = pl.DataFrame({"t": found.values}).select(pl.col("t").dt.replace_time_zone("America/New_York"))
    assert read_times(read_table(frame), "t").zone == "America/New_York"


def test_of_several_offsets_the_last_in_time_is_kept() -> None:
    found = zoned(["2024-03-31 03:00+02", "2024-03-31 01:00+01"])
    assert found.zone == "+02:00"
    assert found.note == "The times in 't' have several offsets from UTC; they are written with the last, +02:00."


def test_one_clock_under_several_offsets_is_a_step_of_the_calendar() -> None:
    found = zoned(["2024-03-30 09:00+01", "2024-03-31 09:00+02"])
    np.testing.assert_array_equal(found.values, np.array(["2024-03-30T09", "2024-03-31T09"], "M8[us]"))
    assert found.zone is None
    assert found.note == "The times in 't' are all 09:00 on the clocks of their zone; the zone is dropped."


def test_new_rows_are_read_as_those_of_the_grid_were() -> None:
    midnight = ["2024-06-18T00:00:00+02:00"]
    assert zoned(midnight).zone is None
    assert zoned(midnight, Grid("us", 3_600_000_000, 0, zone="+02:00")).zone == "+02:00"
    assert zoned(["2024-06-18T09:00:00+02:00"], Grid("us", 86_400_000_000, 0)).zone is None
