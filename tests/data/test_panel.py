"""From a table to series: sorting, gaps, several series, and what is refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidegate.data import Grid, Panel, read_panel
from tidegate.errors import DataError


def frame(**columns: list[object]) -> pl.DataFrame:
    return pl.DataFrame(columns, strict=False)


def complaint(data: object, target: str = "v", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_panel(data, target, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_without_times_rows_are_steps() -> None:
    panel = read_panel(frame(v=[3, 1, 2]), "v")
    assert panel.grid == Grid("step", 1, 0)
    assert panel.series[0].values.tolist() == [3.0, 1.0, 2.0]
    assert (panel.series[0].start, panel.series[0].stop, panel.notes) == (0, 3, ())


def test_rows_are_sorted_and_gaps_filled() -> None:
    panel = read_panel(frame(t=[5, 1, 2, 4], v=[50, 10, None, 40], x=[5, 1, 2, 4]), "v", time="t", covariates=["x"])
    np.testing.assert_array_equal(panel.series[0].values, [10, np.nan, np.nan, 40, 50])
    np.testing.assert_array_equal(panel.series[0].covariates, [[1], [2], [np.nan], [4], [5]])
    assert panel.notes == (
        "The rows were not in the order of 't' and have been sorted.",
        "At 1 of 5 steps of 1 step there was no row; their values are missing.",
        "2 of 5 values of 'v' are missing; no forecast is scored on them.",
    )


def test_missing_ends_are_cut_off() -> None:
    panel = read_panel(frame(t=[0, 1, 2, 3], v=[None, 1, 2, None], x=[9, 8, 7, 6]), "v", time="t", covariates=["x"])
    [series] = panel.series
    assert (series.start, series.stop, series.values.tolist()) == (1, 3, [1.0, 2.0])
    assert series.covariates.tolist() == [[8.0], [7.0]]


def test_several_series_in_the_order_of_their_names() -> None:
    data = frame(s=["b", "a", "b", "a", "c"], t=[1, 0, 2, 1, 0], v=[1, 2, 3, 4, None])
    panel = read_panel(data, "v", time="t", id="s")
    assert [(one.name, one.start, one.values.tolist()) for one in panel.series] == [
        ("b", 1, [1.0, 3.0]),
        ("a", 0, [2.0, 4.0]),
    ]
    assert panel.notes == ("Series 'c' has no value of 'v' and was omitted.",)


def test_pandas_like_frames_and_files_agree(tmp_path: Path) -> None:
    data = frame(t=["2020-01", "2020-02", "2020-04"], v=[1.5, 2.5, 3.5])
    data.write_csv(tmp_path / "a.csv")
    for panel in (read_panel(data, "v", time="t"), read_panel(tmp_path / "a.csv", "v", time="t")):
        np.testing.assert_array_equal(panel.series[0].values, [1.5, 2.5, np.nan, 3.5])


@pytest.mark.parametrize(
    ("columns", "options", "sentence"),
    [
        (
            {"v": [None, None]},
            {},
            "the frame has no value in column 'v'. Expected a number in most of its rows.",
        ),
        (
            {"t": [1, 2, 1], "v": [1, 2, 3]},
            {"time": "t"},
            "the frame, row 2, column 't': 1 is also in row 0. Expected each time once in a series. The table "
            "may hold several series: name the column that tells them apart, --id NAME (in Python id='NAME').",
        ),
        (
            {"t": [1, 2, 2], "v": [1, 2, 3], "s": ["a", "b", "b"]},
            {"time": "t", "id": "s"},
            "the frame, row 2, column 't': 2 of series 'b' is also in row 1. Expected each time once in a "
            "series. Remove a row.",
        ),
        (
            {"t": [0, 2, 4, 6, 7], "v": [1, 2, 3, 4, 5]},
            {"time": "t"},
            "the frame, row 4, column 't': 7 is between the steps of 2 steps, the distance found most often. "
            "Expected equal steps. Leave the time column out to count rows.",
        ),
        (
            {"t": [0, 1, 9999], "v": [1, 2, 3]},
            {"time": "t"},
            "the frame, column 't': 3 rows are spread over 10000 steps of 1 step, so most values would be missing. "
            "Expected a row for most steps; bring the rows onto a coarser step.",
        ),
        (
            {"v": [1, 2], "s": ["a", None]},
            {"id": "s"},
            "the frame, row 1, column 's' is empty. Expected the name of a series in every row.",
        ),
        (
            {"t": [1, 2], "v": [1, 2]},
            {"time": "t", "grid": Grid("us", 1, 0)},
            "the frame, column 't' holds whole numbers, but the forecaster was fitted on time stamps without a time "
            "zone. Give rows whose times are written as in the data of the fit.",
        ),
        (
            {"t": ["2020-01-01 01:00", "2020-01-01 02:00"], "v": [1, 2]},
            {"time": "t", "grid": Grid("us", 3_600_000_000, 0, zone="+02:00")},
            "the frame, column 't' holds time stamps without a time zone, but the forecaster was fitted on time stamps "
            "with a time zone. Give rows whose times are written as in the data of the fit.",
        ),
        (
            {"t": ["2020-01-01 01:00Z", "2020-01-01 02:00Z"], "v": [1, 2]},
            {"time": "t", "grid": Grid("us", 3_600_000_000, 0)},
            "the frame, column 't' holds time stamps with a time zone, but the forecaster was fitted on time stamps "
            "without a time zone. Give rows whose times are written as in the data of the fit.",
        ),
        (
            {"t": ["2020-01-01", "2020-01-02"], "v": [1, 2]},
            {"time": "t", "grid": Grid("step", 1, 0)},
            "the frame, column 't' holds time stamps without a time zone, but the forecaster was fitted on whole "
            "numbers. Give rows whose times are written as in the data of the fit.",
        ),
    ],
)
def test_what_is_refused(columns: dict[str, list[object]], options: dict[str, object], sentence: str) -> None:
    assert complaint(frame(**columns), **options) == sentence


def test_a_grid_given_is_the_grid_used() -> None:
    grid = Grid("step", 5, 100)
    panel: Panel = read_panel(frame(t=[110, 120], v=[1, 2]), "v", time="t", grid=grid)
    assert (panel.grid, panel.series[0].start, len(panel.series[0])) == (grid, 2, 3)
