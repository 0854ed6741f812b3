"""Scales: what they find in made series, that they invert, and that outliers and constants do no harm."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_cases import prepared, waves
from tidegate.config import checked
from tidegate.tasks.forecast.model.recipe import Recipe
from tidegate.tasks.forecast.model.scale import changes_grow, scale_of, seasonal_component

MONTHS = np.arange(144)
SHAPE = np.array([3.0, -1.0, 0.5, -2.5, 1.0, -1.0])


def growing() -> np.ndarray:
    """A series that doubles every four years, with a season in proportion to its level."""
    noise = np.random.default_rng(2).normal(size=144)
    return 50 * 2 ** (MONTHS / 48) * np.exp(0.2 * np.sin(2 * np.pi * MONTHS / 12) + 0.03 * noise)


def test_a_logarithm_where_changes_grow_with_the_level() -> None:
    assert changes_grow(growing(), 12)
    assert not changes_grow(waves(), 6)
    assert not changes_grow(growing() - growing().max(), 12)
    found = scale_of(growing(), 0, 12)
    assert found.log
    np.testing.assert_allclose(found.pattern, 0.2 * np.sin(2 * np.pi * np.arange(12) / 12), atol=0.03)


@given(st.integers(0, 20), st.sampled_from([4, 6, 7]))
def test_the_seasonal_component_is_found_whatever_the_start(start: int, season: int) -> None:
    """A line and a season and nothing else: the classical decomposition is exact."""
    shape = np.resize(SHAPE, season) - np.resize(SHAPE, season).mean()
    places = start + np.arange(10 * season)
    found = seasonal_component(5 + 0.3 * places + 4 * shape[places % season], start, season)
    np.testing.assert_allclose(found, 4 * shape, atol=1e-9)


@pytest.mark.parametrize("values", [np.random.default_rng(0).normal(size=200), np.arange(14.0), np.full(60, 2.0)])
def test_no_season_where_there_is_none(values: np.ndarray) -> None:
    assert not len(seasonal_component(values, 0, 6))


@pytest.mark.parametrize("values", [waves(), growing(), np.full(9, 5.0), np.tile([1.0, 3.0], 10)])
@pytest.mark.parametrize("start", [0, 5])
def test_restored_is_the_inverse_of_scaled(values: np.ndarray, start: int) -> None:
    scale = scale_of(values, start, 6)
    places = start + np.arange(len(values))
    again = scale.restored(scale.scaled(values, start)[:, None], places)[:, 0]
    np.testing.assert_allclose(again, values, rtol=1e-9)


def test_the_unit_is_the_mean_change_once_the_season_is_out() -> None:
    places = np.arange(60)
    steps = np.cumsum(np.tile([0.0, 2.0, 0.0, -1.0, 0.0], 12))
    assert scale_of(steps, 0, 1).unit == pytest.approx(np.abs(np.diff(steps)).mean())
    seasonal = scale_of(5 * SHAPE[places % 6] + steps, 0, 6)
    assert seasonal.unit < 0.2 * scale_of(5 * SHAPE[places % 6] + steps, 0, 1).unit


def test_one_sentinel_does_not_set_the_scale() -> None:
    values = waves()
    spoiled = values.copy()
    spoiled[100] = 9999.0
    clean, found = scale_of(values, 0, 6), scale_of(spoiled, 0, 6)
    assert found.unit < 3 * clean.unit
    assert abs(found.centre - clean.centre) < 3 * clean.unit


def test_a_unit_is_never_zero_nor_lost_to_rounding() -> None:
    assert scale_of(np.full(9, 5.0), 0, 2).unit == 1.0
    sine = np.sin(2 * np.pi * np.arange(240) / 12)
    found = scale_of(sine, 0, 12)
    assert found.unit > 1e-3
    assert np.abs(found.scaled(sine, 0)).max() < 100


def test_values_below_the_floor_of_a_logarithm() -> None:
    scale = scale_of(growing(), 0, 12)
    low = scale.scaled(np.array([0.0, -5.0, scale.floor]), 0)
    assert np.isfinite(low).all()
    assert scale.floor == pytest.approx(0.1 * growing().min())


@given(st.sampled_from([0.2, 0.5, 0.9]))
def test_alpha_is_that_of_the_process(alpha: float) -> None:
    """A local level model whose optimal smoothing is known."""
    chance = np.random.default_rng(4)
    level, values = 0.0, []
    for _ in range(1500):
        error = chance.normal()
        values.append(level + error)
        level += alpha * error
    assert abs(scale_of(np.array(values), 0, 1).alpha - alpha) <= 0.11


def test_scales_come_from_the_training_part_alone() -> None:
    values = waves()
    changed = values.copy()
    panel, (cut,), inputs = prepared(values, 4, 6)
    changed[cut.validation :] *= -1000
    _, _, again = prepared(changed, 4, 6)
    assert inputs.recipe == again.recipe
    assert inputs.recipe.scales[""] == scale_of(values[: cut.validation], 0, 6)
    assert panel.series[0].values.tolist() == values.tolist()


def test_a_recipe_looks_back_as_far_as_the_typical_series_allows() -> None:
    recipes = [prepared(waves(count), 4, 12)[2].recipe for count in (400, 150)]
    assert [found.back for found in recipes] == [4, 2]
    assert [found.past for found in recipes] == [48, 24]
    assert all(found.first_origin == 11 and found.cycle == 0 for found in recipes)


def test_recipe_both_ways() -> None:
    found = prepared(waves(), 4, 6)[2].recipe
    assert checked(Recipe, found.to_json(), "recipe") == found
    assert math.isfinite(found.scales[""].unit)
