"""Where series are cut, and what is learned of their scales."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from forecast_cases import prepared, waves
from tidegate.config import checked
from tidegate.data import Series, read_panel
from tidegate.errors import DataError
from tidegate.tasks.forecast.recipe import Recipe, look_back, scale_of
from tidegate.tasks.forecast.split import Split, split, split_all


def series(length: int, name: str = "") -> Series:
    return Series(name, 0, np.arange(length, dtype=float), np.zeros((length, 0)))


def test_shares_by_hand() -> None:
    assert split(series(1000), 10, 40) == Split(650, 800, 1000)


def test_two_horizons_at_least() -> None:
    assert split(series(200), 20, 12) == Split(120, 160, 200)


@pytest.mark.parametrize(("name", "words"), [("", "The series"), ("x", "Series 'x'")])
def test_too_short(name: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        split(series(50, name), 10, 24)
    assert str(caught.value) == (
        f"{words} has 50 steps, but a forecast of 10 steps that looks back 24 needs at least 94: for training, "
        "validation and a held-out part. Give a longer series, a shorter horizon or a shorter season."
    )
    assert split(series(94, name), 10, 24).validation == 54
    with pytest.raises(DataError, match="has 93 steps"):
        split(series(93, name), 10, 24)


@pytest.mark.parametrize(("part", "first", "stop"), [("validation", 65, 80), ("held-out", 80, 99)])
def test_a_part_without_a_known_value(part: str, first: int, stop: int) -> None:
    values = np.arange(101.0)
    values[first:stop] = np.nan
    panel = read_panel(pl.DataFrame({"y": values[:100]}).with_columns(pl.col("y").fill_nan(None)), "y")
    end = {"validation": 79, "held-out": 99}[part]
    if part == "held-out":
        panel = replace(panel, series=(replace(panel.series[0], values=np.r_[values[:80], np.full(20, np.nan)]),))
    with pytest.raises(DataError) as caught:
        split_all(panel, 3, 8)
    assert str(caught.value) == (
        f"the frame, column 'y': the {part} part, from {first} to {end}, has no known value. Expected a series with "
        "shorter gaps; omit the rows before or after the gap."
    )


def test_looking_back() -> None:
    assert look_back(read_panel(pl.DataFrame({"y": waves(400)}), "y"), 12) == (4, 12)
    assert look_back(read_panel(pl.DataFrame({"y": waves(100)}), "y"), 12) == (2, 12)
    assert look_back(read_panel(pl.DataFrame({"y": waves(100)}), "y"), 1) == (4, 8)


def test_scales_come_from_the_training_part_alone() -> None:
    values = waves()
    changed = values.copy()
    panel, (cut,), inputs = prepared(values, 4, 6)
    changed[cut.validation :] *= -1000
    _, _, again = prepared(changed, 4, 6)
    assert inputs.recipe == again.recipe
    training = values[: cut.validation]
    [scale] = inputs.recipe.scales.values()
    assert scale.centre == pytest.approx(training.mean())
    assert scale.unit == pytest.approx(np.mean([abs(training[k] - training[k - 6]) for k in range(6, len(training))]))
    assert panel.series[0].values.tolist() == values.tolist()


def test_a_unit_is_never_zero() -> None:
    assert scale_of(np.tile([1.0, 3.0], 10), 2).unit == pytest.approx(2.0)
    assert scale_of(np.full(9, 5.0), 2).unit == 1.0


def test_recipe_both_ways() -> None:
    _, _, inputs = prepared(waves(), 4, 6)
    assert checked(Recipe, inputs.recipe.to_json(), "recipe") == inputs.recipe


def test_the_length_needed_is_found_at_once_for_any_horizon() -> None:
    with pytest.raises(DataError) as caught:
        split(series(1), 10**18, 8)
    assert str(caught.value) == (
        "The series has 1 step, but a forecast of 1000000000000000000 steps that looks back 8 needs at least "
        "7000000000000000008: for training, validation and a held-out part. Give a longer series, a shorter horizon "
        "or a shorter season."
    )
