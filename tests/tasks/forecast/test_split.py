"""Where series are cut, and which are too short."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from forecast_cases import waves
from tidegate.data import Panel, read_panel
from tidegate.errors import DataError
from tidegate.tasks.forecast.judging.split import Split, split, split_all


def panel_of(*lengths: int) -> Panel:
    frames = [pl.DataFrame({"who": f"s{k}", "y": waves(length, seed=k)}) for k, length in enumerate(lengths)]
    return read_panel(pl.concat(frames), "y", id="who")


@pytest.mark.parametrize(
    ("length", "horizon", "first", "expected"),
    [
        (1000, 10, 40, Split(650, 800, 1000)),  # the shares
        (200, 20, 11, Split(120, 160, 200)),  # two horizons at least
        (60, 12, 11, Split(36, 48, 60)),  # one horizon, where two do not leave enough
        (48, 12, 11, Split(24, 36, 48)),  # the shortest that is cut
        (47, 12, 11, Split(47, 47, 47)),  # trained on only
    ],
)
def test_cuts_by_hand(length: int, horizon: int, first: int, expected: Split) -> None:
    found = split(length, horizon, first)
    assert found == expected
    assert found.judged == (expected.held_out < length)


def test_short_series_are_trained_on_or_omitted_and_named() -> None:
    panel, splits = split_all(panel_of(120, 30, 6, 5), 6, 11)
    assert [series.name for series in panel.series] == ["s0", "s1"]
    assert [cut.judged for cut in splits] == [True, True]
    assert panel.notes == (
        "Series with fewer than 12 steps were omitted: 's2' (6), 's3' (5).",
        "The held-out part of 1 of 2 series is shorter than two horizons, so the judgement rests on few forecasts.",
    )
    panel, splits = split_all(panel_of(120, 20), 6, 11)
    assert [cut.judged for cut in splits] == [True, False]
    assert panel.notes == ("1 of 2 series are too short to be judged: the net was only trained on them.",)


@pytest.mark.parametrize(
    ("lengths", "words"), [((29,), "Series 's0' has"), ((20, 29, 3), "The longest of 3 series, 's1', has")]
)
def test_too_short(lengths: tuple[int, ...], words: str) -> None:
    with pytest.raises(DataError) as caught:
        split_all(panel_of(*lengths), 6, 11)
    assert str(caught.value) == (
        f"{words} 29 steps, but forecasting 6 steps needs at least 30: for training, validation and a held-out part. "
        "Give a longer series, a shorter horizon or a shorter season."
    )
    assert split_all(panel_of(*(30 if n == 29 else n for n in lengths)), 6, 11)[1][0].stop > 0


@pytest.mark.parametrize(("part", "first", "stop"), [("validation", 65, 80), ("held-out", 80, 100)])
def test_a_part_without_a_known_value(part: str, first: int, stop: int) -> None:
    panel = panel_of(100)
    values = panel.series[0].values.copy()
    values[first:stop] = np.nan
    with pytest.raises(DataError) as caught:
        split_all(replace(panel, series=(replace(panel.series[0], values=values),)), 3, 8)
    assert str(caught.value) == (
        f"the frame, column 'y': the {part} part, from {first} to {stop - 1}, has no known value. Expected a series "
        "with shorter gaps; omit the rows before or after the gap."
    )
