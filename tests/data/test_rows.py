"""Long and wide tables, steps of `--every`, known and static columns, and errors that name the way out."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tidegate.data import read_panel
from tidegate.data.resample import grid_of, joined, suggested
from tidegate.errors import ArgumentError, DataError, TidegateError


def frame(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(columns, strict=False)


def stamps(start: str, *seconds: int) -> list[str]:
    return [str(np.datetime64(start, "s") + second).replace("T", " ") for second in seconds]


def complaint(data: object, target: str = "v", **options: Any) -> str:
    with pytest.raises(TidegateError) as caught:
        read_panel(data, target, **options)
    return str(caught.value)


def drifting() -> pl.DataFrame:
    """A clock that drifts by up to 50 seconds around steps of 5 minutes; one row is absent."""
    late = [0, 7, -3, 50, 120, -50, 1]
    times = stamps("2024-01-01 23:50", *(300 * k + one for k, one in enumerate(late) if k != 4))
    return frame(t=times, v=[0, 1, 2, 3, 5, 6])


def test_rows_about_once_a_step_move_to_a_step_each() -> None:
    text = complaint(drifting(), time="t")
    assert "is between the steps of" in text
    assert "--every 5min (in Python every='5min') moves each to its own" in text
    panel = read_panel(drifting(), "v", time="t", every="5min")
    np.testing.assert_array_equal(panel.series[0].values, [0, 1, 2, 3, np.nan, 5, 6])
    assert panel.grid.texts(np.array([panel.series[0].start])) == ["2024-01-01 23:50:00"]
    assert panel.grid.spacing == "5 minutes"
    assert panel.notes[0] == "6 rows were moved to steps of 5 minutes, which gave 6."


@pytest.mark.parametrize(("hour", "day"), [(8, 1), (18, 1), (0, 1), (23.9, 2)])
def test_a_daily_clock_that_drifts_stays_on_its_days(hour: float, day: int) -> None:
    late = np.random.default_rng(0).integers(-300, 300, 30)
    data = frame(
        t=stamps("2024-01-01", *(int(hour * 3600) + 86_400 * k + int(one) for k, one in enumerate(late))),
        v=list(range(30)),
    )
    panel = read_panel(data, "v", time="t", every="1d")
    assert panel.series[0].values.tolist() == list(range(30))
    assert panel.grid.texts(np.array([panel.series[0].start])) == [f"2024-01-{day:02}"]


@pytest.mark.parametrize(
    ("how", "values"),
    [("mean", [2.0, 5.5]), ("sum", [6.0, 11.0]), ("last", [3.0, 6.0]), ("min", [1.0, 5.0]), ("max", [3.0, 6.0])],
)
def test_rows_more_often_than_steps_are_joined_from_the_start_of_each(how: Any, values: list[float]) -> None:
    times = stamps("2024-01-01 10:00", 0, 1800, 2400, 3599, 3600, 7199)
    data = frame(t=times[::-1], v=[6, 5, None, 3, 2, 1], x=[6, 5, 4, 3, 2, 1])
    panel = read_panel(data, "v", time="t", covariates="x", every="1h", how=how)
    assert panel.series[0].values.tolist() == values
    assert panel.grid.texts(np.array([panel.series[0].start])) == ["2024-01-01 10:00:00"]
    assert f"6 rows were joined ({how}) in steps of 1 hour, which gave 2." in panel.notes


def test_steps_of_days_begin_at_the_midnights_of_the_zone() -> None:
    data = frame(
        t=[f"2024-06-17T{hour:02}:30+02:00" for hour in range(0, 24, 2)] + ["2024-06-18T01:00+02:00"],
        v=[*range(12), 50],
    )
    panel = read_panel(data, "v", time="t", every="1d")
    assert panel.series[0].values.tolist() == [5.5, 50.0]
    assert panel.grid.texts(np.array([panel.series[0].start])) == ["2024-06-17"]
    hours = read_panel(data, "v", time="t", every="1h")
    assert hours.grid.texts(np.array([hours.series[0].start])) == ["2024-06-17T00:00:00+02:00"]


def test_months_and_weeks() -> None:
    data = frame(t=["2024-01-31", "2024-02-01", "2024-02-29", "2024-04-15"], v=[1, 2, 4, 5])
    panel = read_panel(data, "v", time="t", every="1 month", how="sum")
    np.testing.assert_array_equal(panel.series[0].values, [1, 6, np.nan, 5])
    assert panel.grid.texts(np.array([panel.series[0].start])) == ["2024-01-01"]
    days = frame(t=[f"2024-01-{day:02}" for day in range(1, 22)], v=list(range(21)))
    weeks = read_panel(days, "v", time="t", every="1w", how="sum")
    assert weeks.series[0].values.tolist() == [21.0, 70.0, 119.0]
    assert weeks.grid.texts(np.array([weeks.series[0].start])) == ["2024-01-01"]


def test_steps_are_named_as_people_name_them() -> None:
    for text, spacing in (
        *(("100ms", "100 milliseconds"), ("15s", "15 seconds"), ("5 min", "5 minutes"), ("minute", "1 minute")),
        *(("2hours", "2 hours"), ("1d", "1 day"), ("week", "1 week"), ("quarter", "3 months"), ("1year", "12 months")),
    ):
        assert grid_of(text).spacing == spacing
    for text in ("5", "0min", "soon", "5 fortnights", "-1h", "1.5h"):
        with pytest.raises(ArgumentError, match="every must be a step such as 5min"):
            grid_of(text)
    assert [suggested(np.array([gap * 1_000_000])) for gap in (0.1, 1.02, 297, 3590, 86_000, 2_600_000)] == [
        "100ms", "1s", "5min", "1h", "1d", "1month",
    ]  # fmt: skip
    assert complaint(frame(v=[1, 2]), every="1h").startswith("every needs the column of times.")
    assert "holds whole numbers" in complaint(frame(t=[1, 2], v=[1, 2]), time="t", every="1h")


def test_joined_rows_are_missing_only_where_all_are() -> None:
    places, columns = joined(
        np.array([3, 1, 3, 1]), np.array([[1.0, np.nan], [np.nan, np.nan], [np.nan, 4.0], [np.nan, 2]]), "mean"
    )
    assert places.tolist() == [1, 3]
    np.testing.assert_array_equal(columns, [[np.nan, 2], [1, 4]])


def test_a_wide_table_is_that_long_table(tmp_path: Path) -> None:
    wide = frame(day=["2024-01-01", "2024-01-02", "2024-01-03"], a=[1, 2, 3], b=[None, 5, 6], rain=[7, 8, 9])
    long = frame(
        day=[*wide["day"], *wide["day"]], shop=["a"] * 3 + ["b"] * 3, y=[1, 2, 3, None, 5, 6], rain=[7, 8, 9] * 2
    )
    panel = read_panel(wide, "y", time="day", covariates=["rain"], wide=True)
    other = read_panel(long, "y", time="day", id="shop", covariates=["rain"])
    for one, two in zip(panel.series, other.series, strict=True):
        assert (one.name, one.start, one.values.tolist()) == (two.name, two.start, two.values.tolist())
        assert one.covariates.tolist() == two.covariates.tolist()
    assert (panel.id, other.id) == ("series", "shop")
    assert "If each column is a series of its own, add --wide" in complaint(wide, "y", time="day")
    for options in ({"id": "a"}, {"static": "a"}):
        assert complaint(wide, "y", time="day", wide=True, **options).startswith("With wide, each column")
    assert "target='a' is a column" in complaint(wide, "a", time="day", wide=True)


def test_names_that_look_like_missing_words_are_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,v\nNA,1\nnull,2\nnan,3\nNA,4\n")
    found = read_panel(tmp_path / "a.csv", "v", id="id")
    assert [(one.name, one.values.tolist()) for one in found.series] == [
        ("NA", [1.0, 4.0]),
        ("null", [2.0]),
        ("nan", [3.0]),
    ]


def test_columns_known_in_advance_go_on_after_the_target() -> None:
    data = frame(t=[0, 1, 2, 3, 4, 5], v=[None, 1, 2, None, None, None], h=[0, 1, 0, 1, 0, None], x=[9, 8, 7, 6, 5, 4])
    panel = read_panel(data, "v", time="t", covariates="x", known="h")
    [series] = panel.series
    assert (series.start, series.values.tolist(), series.covariates.tolist()) == (1, [1.0, 2.0], [[8.0], [7.0]])
    assert series.known.tolist() == [[1.0], [0.0], [1.0], [0.0]]
    assert (panel.known, panel.covariates) == (("h",), ("x",))
    assert read_panel(data, "v", time="t").series[0].known.shape == (2, 0)


def test_static_features_are_numbers_or_text() -> None:
    data = frame(id=["a", "b", "a", "b"], v=[1, 2, 3, 4], size=["1,5", "2", "1,5", None], kind=["x", "y", None, "y"])
    panel = read_panel(data, "v", id="id", static=["size", "kind"])
    assert [one.static for one in panel.series] == [(1.5, "x"), (2.0, "y")]
    assert complaint(data, id="id", static="v2").startswith("the frame has no column 'v2'")
    varying = data.with_columns(kind=pl.Series(["x", "y", "z", "y"]))
    assert complaint(varying, id="id", static="kind") == (
        "the frame, row 2, column 'kind': 'z', but series 'a' has 'x' in row 0. Expected one value in all rows of a "
        "series; name a column that varies as a covariate."
    )


def test_a_column_has_one_role() -> None:
    data = frame(t=[1, 2], v=[1, 2], x=[1, 2])
    for options in ({"covariates": "v"}, {"known": ["v"]}):
        assert complaint(data, **options) == (
            "The target 'v' cannot be its own covariate: its past is read anyway. Leave it out of the covariates."
        )
    for options in ({"time": "v"}, {"covariates": ["x", "x"]}, {"time": "t", "id": "t"}):
        assert complaint(data, **options).endswith("is given two roles. Name each column once.")
    assert read_panel(frame(**{"v": [1, 2], "price, net": [3, 4]}), "v", covariates="price, net").covariates == (
        "price, net",
    )


def test_the_newest_row_first_is_noted_where_no_time_was_named() -> None:
    data = frame(day=["2024-01-03", "2024-01-02", "2024-01-01"], v=[3, 2, 1])
    assert read_panel(data, "v").notes == (
        "The times in 'day' fall from row to row, but rows were taken in the order of the table, the newest first. "
        "Give --time day (in Python time='day') to sort them.",
    )
    assert read_panel(data.reverse(), "v").notes == ()
    assert read_panel(data, "v", time="day").series[0].values.tolist() == [1, 2, 3]


def test_ways_out_of_times_that_occur_twice() -> None:
    days = ["2024-01-01", "2024-01-01", "2024-01-02", "2024-01-02"]
    several = frame(day=days, shop=["a", "b", "a", "b"], v=[1, 2, 3, 4])
    assert complaint(several, time="day").endswith(
        "Column 'shop' may tell several series apart: --id shop (in Python id='shop')."
    )
    assert complaint(several.drop("shop"), time="day").endswith("--id NAME (in Python id='NAME').")
    copies = frame(day=[*days[::2], "2024-01-02", "2024-01-03", "2024-01-04"], v=[1, 2, 2, 3, 4])
    assert complaint(copies, time="day").endswith("The two rows are equal, and 1 row is a copy in all: remove them.")
    hours = stamps("2024-10-27 00:00", 0, 3600, 7200, 7200, 10800, 14400)
    assert "Clocks show this hour twice in autumn" in complaint(frame(t=hours, v=list(range(6))), time="t")
    other = stamps("2024-07-27 00:00", 0, 3600, 7200, 7200, 10800, 14400)
    assert complaint(frame(t=other, v=list(range(6))), time="t").endswith("--every 1d (in Python every='1d').")


def test_a_file_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("2024-01-01,5\n2024-01-02,6\n")
    with pytest.raises(DataError) as caught:
        read_panel(tmp_path / "a.csv", "v")
    assert str(caught.value).startswith(
        "a.csv has no column 'v': its first row, 2024-01-01, 5, looks like values, not like names. Add a header row"
    )


def test_errors_show_times_in_their_zone() -> None:
    hours = ["2024-06-17T10:00+02:00", "2024-06-17T11:00+02:00", "2024-06-17T12:00+02:00", "2024-06-17T12:30+02:00"]
    assert "2024-06-17T12:30:00+02:00 is between the steps" in complaint(frame(t=hours, v=[1, 2, 3, 4]), time="t")
    assert "2024-06-17T12:00:00+02:00 is also in row 2" in complaint(
        frame(t=[*hours[:3], hours[2]], v=[1, 2, 3, 4]), time="t"
    )
    assert complaint(frame(t=[1, 2], v=[1, 2]), time="t", how="sum").startswith("how='sum' joins the rows of a step")
