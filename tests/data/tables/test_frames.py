"""Frames of pandas and polars, column by column: what is read, and what is refused with its type."""

import datetime as dt
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tidegate.data import read_panel, read_table
from tidegate.data.times import read_times
from tidegate.errors import DataError

pd: Any = pytest.importorskip("pandas")


@pytest.mark.parametrize(
    "column",
    [
        [1, 2.5, None],
        ["1", "2.5", None],
        [1, "2.5", None],
        [Decimal("1"), Decimal("2.5"), None],
        pd.array([1, 2.5, None], dtype="Float64"),
        pd.array(["1", "2.5", None], dtype="string[python]"),
        pd.Categorical(["1", "2.5", None]),
        pd.Categorical([1.0, 2.5, None]),
        pd.Series([1, 2.5, np.nan], dtype=object),
        pd.Series([1, 2.5, np.nan], dtype=np.float32),
        pd.Series([1, 2.5, np.nan], dtype="Sparse[float64]"),
    ],
)
def test_numbers_of_every_type(column: Any) -> None:
    np.testing.assert_array_equal(read_table(pd.DataFrame({"v": column})).numbers("v"), [1, 2.5, np.nan])


@pytest.mark.parametrize("dtype", ["int8", "uint64", "Int64", "UInt8", "boolean", "bool", object])
def test_whole_numbers_and_truth_of_every_type(dtype: Any) -> None:
    frame = pd.DataFrame({"v": pd.Series([1, 0, 1], dtype=dtype)})
    assert read_table(frame).numbers("v").tolist() == [1, 0, 1]


HOURS = pd.date_range("2024-03-31", periods=4, freq="h", tz="Europe/Berlin")


@pytest.mark.parametrize(
    ("column", "zone"),
    [
        (HOURS, "Europe/Berlin"),
        (HOURS.tz_convert("+02:00"), "+02:00"),
        (HOURS.tz_convert("UTC"), "UTC"),
        (HOURS.astype(object), "+02:00"),
        (pd.Categorical(HOURS.map(lambda time: time.isoformat())), "+02:00"),
        (HOURS.tz_localize(None), None),
        (HOURS.tz_localize(None).to_period("h"), None),
        (HOURS.tz_localize(None).astype("datetime64[s]"), None),
        (pd.array(HOURS.tz_localize(None).astype(str), dtype="string[python]"), None),
    ],
)
def test_times_of_every_type(column: Any, zone: str | None) -> None:
    found = read_times(read_table(pd.DataFrame({"t": column})), "t")
    start = "2024-03-30T23" if zone else "2024-03-31T00"
    if zone or "2024-03-31 03" not in str(list(column)):
        assert found.zone == zone
    assert found.values[0] == np.datetime64(start, "us")
    assert len(found.values) == 4


def test_days_and_periods() -> None:
    days = [dt.date(2024, 1, 31), dt.date(2024, 2, 1)]
    months = pd.period_range("2024-01", periods=2, freq="M")
    for column, first in ((days, "2024-01-31"), (months, "2024-01-01"), (pd.Series(days, dtype=object), "2024-01-31")):
        assert read_times(read_table(pd.DataFrame({"t": column})), "t").values[0] == np.datetime64(first, "us")


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (pd.date_range("2024-01-01", periods=3, freq="MS", name="month"), "month"),
        (pd.date_range("2024-01-01", periods=3, freq="MS"), "time"),
        (pd.period_range("2024-01", periods=3, freq="M"), "time"),
    ],
)
def test_an_index_of_times_is_the_time(index: Any, name: str) -> None:
    panel = read_panel(pd.DataFrame({"v": [1, 2, 3]}, index=index), "v")
    assert (panel.time, panel.grid.spacing, panel.grid.season) == (name, "1 month", 12)
    taken = read_panel(pd.DataFrame({"v": [1, 2, 3], "time": 0}, index=index.rename(None)), "v")
    assert (taken.time, taken.grid.spacing) == ("index", "1 month")


def test_levels_of_an_index_are_columns() -> None:
    index = pd.MultiIndex.from_product([["a", "b"], pd.date_range("2024-01-01", periods=3)], names=["id", "day"])
    panel = read_panel(pd.DataFrame({"v": range(6)}, index=index), "v", id="id")
    assert (panel.time, [series.name for series in panel.series]) == ("day", ["a", "b"])
    assert read_panel(pd.DataFrame({"v": range(6)}), "v").time is None


def refusal(data: Any, column: str = "v") -> str:
    table = read_table(data)
    for read in (table.numbers, table.texts, lambda name: read_times(table, name)):
        with pytest.raises(DataError) as caught:
            read(column)
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pd.to_timedelta([1, 2], unit="h"), "timedelta64[ns]"),
        (pd.interval_range(0, 2), "interval[int64, right]"),
        (np.array([1j, 2j]), "complex128"),
        ([[1], [2]], "object (list)"),
        ([1, {"a": 1}], "object (dict)"),
        (pl.Series([1, 2], dtype=pl.Duration("us")), "Duration(time_unit='us')"),
        (pl.Series([[1], [2]]), "List(Int64)"),
        (pl.Series([{"a": 1}, {"a": 2}]), "Struct({'a': Int64})"),
        (pl.Series([object(), None], dtype=pl.Object), "Object (object)"),
        (pl.Series([b"1", b"2"]), "Binary"),
        (pl.Series([dt.time(1), dt.time(2)]), "Time"),
    ],
)
def test_other_types_are_refused_by_name_when_they_are_read(column: Any, kind: str, tmp_path: Path) -> None:
    polars = isinstance(column, pl.Series)
    frame = pl.DataFrame({"v": column, "w": [1, 2]}) if polars else pd.DataFrame({"v": column, "w": [1, 2]})
    sentence = f"column 'v' has the type {kind}. Expected numbers, text or times: convert the column first."
    assert refusal(frame) == f"the frame, {sentence}"
    assert read_table(frame).numbers("w").tolist() == [1, 2]
    if polars and column.dtype != pl.Object:
        frame.write_parquet(tmp_path / "a.parquet")
        assert refusal(tmp_path / "a.parquet") == f"a.parquet, {sentence}"


def test_polars_objects_and_large_whole_numbers() -> None:
    objects = pl.DataFrame({"v": pl.Series([1, 2.5, None], dtype=pl.Object)})
    np.testing.assert_array_equal(read_table(objects).numbers("v"), [1, 2.5, np.nan])
    large = read_table(pl.DataFrame({"v": pl.Series([2**63 + 1, 2**63 + 2], dtype=pl.UInt64)}))
    assert large.numbers("v").tolist() == [2.0**63, 2.0**63]
    with pytest.raises(DataError, match=r"the frame, row 0, column 'v': 9223372036854775809 is not a whole number"):
        read_times(large, "v")


def test_duplicate_names_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        read_table(pd.DataFrame([[1, 2]], columns=["v", "v"]))
    assert str(caught.value).startswith("the frame has two columns named 'v'.")
    assert read_table(pd.DataFrame([[1, 2]], columns=[3, "v"])).numbers("3").tolist() == [1]


def test_pandas_is_read_without_pyarrow(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        textwrap.dedent(
            """
            import sys
            import polars

            class Absent:
                def find_spec(self, name, path=None, target=None):
                    if name.partition(".")[0] == "pyarrow":
                        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

            sys.meta_path.insert(0, Absent())
            import pandas as pd
            from tidegate.data import read_panel

            time = pd.date_range("2024-01-01", periods=4, tz="Europe/Berlin", freq="h")
            columns = {
                "time": time,
                "id": pd.Categorical(["a", "a", "b", "b"]),
                "v": pd.array([1, None, 3, 4], dtype="Int64"),
                "x": ["1", "2", None, "4"],
                "s": pd.array(["p", "q", None, "r"], dtype="string"),
            }
            panel = read_panel(pd.DataFrame(columns), "v", time="time", id="id", covariates=["x"])
            print([series.values.tolist() for series in panel.series], panel.grid.zone)
            """
        )
    )
    found = subprocess.run([sys.executable, tmp_path / "a.py"], capture_output=True, text=True, check=False)
    assert found.stdout == "[[1.0], [3.0, 4.0]] Europe/Berlin\n", found.stderr
