"""The regular grid under a column of times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.data import Grid, infer_grid

SECOND = 1_000_000
HOUR, DAY = 3600 * SECOND, 86_400 * SECOND


def stamps(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[us]")


def us(text: str) -> int:
    return int(np.datetime64(text, "us").astype(np.int64))


def every(start: str, step: str, count: int) -> np.ndarray:
    return np.arange(np.datetime64(start), np.datetime64(start) + count, dtype=f"datetime64[{step}]").astype(
        "datetime64[us]"
    )


@pytest.mark.parametrize(
    ("times", "spacing", "season"),
    [
        (every("2020-01-31T23", "h", 50), "1 hour", 24),
        (every("2020-01-31T23:00", "m", 50), "1 minute", 60),
        (every("2020-01-31T00:00", "m", 600)[::15], "15 minutes", 96),
        (every("2020-01-31T00", "h", 60)[::7], "7 hours", 1),
        (every("2020-01-30", "D", 20), "1 day", 7),
        (every("2020-01-30", "D", 90)[::7], "1 week", 52),
        (every("2020-02", "M", 20), "1 month", 12),
        (every("2020-02", "M", 20)[::3], "3 months", 4),
        (every("2020", "Y", 9), "12 months", 1),
        (every("2020-02", "M", 20) - np.timedelta64(1, "D"), "1 month", 12),
        (every("2020-02", "M", 20) + np.timedelta64(15, "D"), "1 month", 12),
        (np.array([3, 4, 5, 9]), "1 step", 1),
        (np.array([10, 20, 30]), "10 steps", 1),
        (stamps("2020-01-30"), "1 day", 7),
    ],
)
def test_spacing_and_season(times: np.ndarray, spacing: str, season: int) -> None:
    grid = infer_grid([times])
    assert (grid.spacing, grid.season) == (spacing, season)
    places = grid.places(times)
    assert places[0] == 0
    np.testing.assert_array_equal(places, np.round(places))
    np.testing.assert_array_equal(grid.times(places.astype(np.int64)), times)


def test_weekdays() -> None:
    days = every("2024-01-01", "D", 40)
    weekdays = days[np.is_busday(days.astype("datetime64[D]"))]
    grid = infer_grid([weekdays])
    assert (grid.unit, grid.spacing, grid.season) == ("weekday", "1 weekday", 5)
    np.testing.assert_array_equal(grid.places(weekdays), np.arange(len(weekdays)))
    np.testing.assert_array_equal(grid.times(np.arange(len(weekdays))), weekdays)
    assert np.isnan(grid.places(stamps("2024-01-06"))).all()


def test_the_commonest_step_wins_over_gaps() -> None:
    assert infer_grid([every("2020-01-01", "D", 30)[[0, 1, 2, 3, 9, 10, 11]]]).spacing == "1 day"


def test_several_series_share_a_grid() -> None:
    later, earlier = every("2020-03", "M", 5), every("2019-12", "M", 5)
    grid = infer_grid([later, earlier])
    assert grid.places(earlier).tolist() == [0, 1, 2, 3, 4]
    assert grid.places(later).tolist() == [3, 4, 5, 6, 7]


def test_times_between_the_steps_are_seen() -> None:
    grid = infer_grid([every("2020-01-01T00", "h", 5)])
    assert grid.places(stamps("2020-01-01T01:30")).tolist() == [1.5]
    months = infer_grid([every("2020-01", "M", 5)])
    assert np.isnan(months.places(stamps("2020-02-02"))).all()


@given(st.integers(-5000, 5000), st.integers(1, 7))
def test_month_ends_come_back(place: int, step: int) -> None:
    grid = Grid("month", step, int(np.datetime64("2020-01-31", "us").astype(int)), month_end=True)
    [time] = grid.times(np.array([place]))
    assert (time.astype("datetime64[D]") + 1).astype("datetime64[M]").astype("datetime64[D]") == time + np.timedelta64(
        DAY, "us"
    )
    assert grid.places(np.array([time])).tolist() == [place]


@pytest.mark.parametrize(
    ("grid", "texts"),
    [
        (Grid("step", 2, 5), ["5", "7"]),
        (Grid("us", DAY, us("2024-01-31")), ["2024-01-31", "2024-02-01"]),
        (Grid("us", HOUR, us("2024-01-31T23")), ["2024-01-31 23:00:00", "2024-02-01 00:00:00"]),
        (Grid("us", 100_000, us("2024-01-31")), ["2024-01-31 00:00:00.000", "2024-01-31 00:00:00.100"]),
        (Grid("us", 50, us("2024-01-31")), ["2024-01-31 00:00:00.000000", "2024-01-31 00:00:00.000050"]),
        (Grid("month", 3, us("1991-07-01")), ["1991-07-01", "1991-10-01"]),
        (Grid("weekday", 1, us("2024-02-02T09")), ["2024-02-02 09:00:00", "2024-02-05 09:00:00"]),
        (
            Grid("us", HOUR, us("2024-06-17T14"), zone="+02:00"),
            ["2024-06-17T16:00:00+02:00", "2024-06-17T17:00:00+02:00"],
        ),
        (Grid("us", DAY, us("2024-06-17"), zone="-03:30"), ["2024-06-16T20:30:00-03:30", "2024-06-17T20:30:00-03:30"]),
        (
            Grid("us", HOUR, us("2024-10-27T00"), zone="Europe/Berlin"),
            ["2024-10-27T02:00:00+02:00", "2024-10-27T02:00:00+01:00"],
        ),
        (
            Grid("us", 1500, us("2024-06-17"), zone="+00:00"),
            ["2024-06-17T00:00:00.000000+00:00", "2024-06-17T00:00:00.001500+00:00"],
        ),
    ],
)
def test_times_as_text(grid: Grid, texts: list[str]) -> None:
    assert grid.texts(np.array([0, 1])) == texts
    clocks = [np.datetime64(text.partition("+")[0].removesuffix("-03:30")) for text in texts if "-" in text]
    assert not clocks or list(grid.clocks(np.array([0, 1]))) == clocks


def test_a_zone_that_does_not_exist_has_no_times() -> None:
    for zone in ("Mars/Base", "../etc/passwd", "+2", ""):
        assert Grid("us", HOUR, 0, zone=zone).has_times(0, 1) is (zone == "")


@pytest.mark.parametrize(
    ("step", "season"),
    [
        (100_000, 10), (SECOND, 60), (10 * SECOND, 360), (60 * SECOND, 60), (300 * SECOND, 288), (900 * SECOND, 96),
        (HOUR, 24), (DAY, 7), (7 * DAY, 52), (7 * SECOND, 1), (7, 1),
    ],
)  # fmt: skip
def test_default_seasons_are_short_enough_to_be_seen_often(step: int, season: int) -> None:
    assert Grid("us", step, 0).season == season
