"""Inputs and anchors against loops, and the promise that nothing looks ahead."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from forecast_cases import prepared, recipe, two_series, waves
from tidegate.data import read_panel
from tidegate.errors import DataError
from tidegate.tasks.forecast.inputs import ANCHORS, ForecastInputs, make_inputs, trailing_mean
from tidegate.tasks.forecast.recipe import Scale, make_recipe
from tidegate.tasks.forecast.split import split_all

HORIZON, SEASON, BACK, LEVEL = 9, 4, 2, 8


def walk(count: int = 60) -> np.ndarray:
    values = np.cumsum(np.random.randn(count))
    values[[20, 21, 44]] = np.nan
    return values


def one_series(values: np.ndarray) -> ForecastInputs:
    panel = read_panel(pl.DataFrame({"y": values}).with_columns(pl.col("y").fill_nan(None)), "y")
    return make_inputs(panel, recipe(HORIZON, SEASON, BACK, LEVEL))


def filled(values: np.ndarray) -> list[float]:
    known: list[float] = []
    for value in values:
        known.append(known[-1] if np.isnan(value) else value)
    return known


def season_before(past: list[float], step: int, seasons: int) -> float:
    """The value at the same place of the season, `seasons` seasons before the last one that is known."""
    place = len(past) - 1 + step
    while place > len(past) - 1:
        place -= SEASON
    return past[place - SEASON * seasons]


def test_anchors_by_a_loop() -> None:
    values = walk()
    inputs = one_series(values)
    origins = torch.tensor([8, 22, 59])
    found = inputs.anchors(origins)
    assert found.shape == (3, HORIZON, len(ANCHORS))
    for row, origin in zip(found, origins.tolist(), strict=True):
        past = filled(values)[: origin + 1]
        here = past[-1]
        moved = here - past[-1 - SEASON]
        mean_before = np.mean([past[-1 - SEASON * (k + 1)] for k in range(BACK)])
        for step in range(1, HORIZON + 1):
            last = season_before(past, step, 0)
            mean = np.mean([season_before(past, step, k) for k in range(BACK)])
            expected = [here, last, last + moved, mean, mean + here - mean_before, np.mean(past[-LEVEL:])]
            np.testing.assert_allclose(row[step - 1] + here, expected, atol=1e-5)


def test_inputs_by_a_loop() -> None:
    values = walk()
    inputs, known = one_series(values), filled(values)
    for k in range(len(values)):
        expected = [
            known[k] - known[max(0, k - 1)],
            known[k] - (known[k - SEASON] if k >= SEASON else known[k]),
            known[k] - np.mean(known[max(0, k + 1 - LEVEL) : k + 1]),
            float(np.isnan(values[k])),
        ]
        np.testing.assert_allclose(inputs.x[k], np.arcsinh(expected), atol=1e-5)


def test_targets_by_a_loop() -> None:
    values = walk()
    inputs = one_series(values)
    origins, stops = torch.tensor([10, 19, 50, 59]), torch.tensor([60, 25, 52, 60])
    found = inputs.targets(origins, stops)
    for row, origin, stop in zip(found, origins.tolist(), stops.tolist(), strict=True):
        for step in range(1, HORIZON + 1):
            later = origin + step
            if later >= stop or np.isnan(values[later]):
                assert torch.isnan(row[step - 1])
            else:
                assert float(row[step - 1]) == pytest.approx(values[later] - filled(values)[origin], abs=1e-5)


def test_nothing_looks_ahead() -> None:
    values, origin = waves(), 100
    changed = values.copy()
    changed[origin + 1 :] = 999.0
    (_, _, inputs), (_, _, other) = prepared(values, 4, 6), prepared(values, 4, 6)
    changed_inputs = make_inputs(read_panel(pl.DataFrame({"y": changed}), "y"), inputs.recipe)
    assert torch.equal(inputs.x, other.x)
    assert torch.equal(inputs.x[: origin + 1], changed_inputs.x[: origin + 1])
    rows = torch.arange(inputs.recipe.past, origin + 1)
    assert torch.equal(inputs.anchors(rows), changed_inputs.anchors(rows))


def test_series_are_laid_end_to_end_and_scaled_by_their_own() -> None:
    panel = read_panel(two_series(), "y", time="month", id="who", covariates=["rain"])
    splits = split_all(panel, 3, 24)
    whole = make_inputs(panel, make_recipe(panel, splits, horizon=3, season=12, context=20))
    assert (whole.names, whole.offsets.tolist(), whole.lengths.tolist()) == (("b", "a"), [0, 150], [150, 130])
    a = panel.series[1]
    scale = whole.recipe.scales["a"]
    np.testing.assert_allclose(whole.truth[150:], (a.values - scale.centre) / scale.unit, rtol=1e-5, atol=1e-5)
    assert int(torch.isnan(whole.truth).sum()) == 3
    missing = whole.x[150:, 3]
    assert torch.nonzero(missing)[:, 0].tolist() == [40, 41, 70]
    covariate, gap = whole.x[150:, -2], whole.x[150:, -1]
    assert torch.nonzero(gap)[:, 0].tolist() == [60, 70]
    assert float(covariate[60]) == float(covariate[59]) != float(covariate[61])


def test_a_covariate_that_starts_with_a_gap_starts_at_its_mean() -> None:
    data = pl.DataFrame({"y": waves(30), "x": [None, None] + [7.0] * 28})
    panel = read_panel(data, "y", covariates=["x"])
    with_x = replace(recipe(2, 4), covariates=(Scale(5.0, 2.0),))
    x = make_inputs(panel, with_x).x
    np.testing.assert_allclose(x[:4, -2].sinh(), [0, 0, 1, 1], atol=1e-6)


def test_trailing_mean_by_a_loop() -> None:
    values = np.random.randn(15)
    expected = [values[max(0, k - 4) : k + 1].mean() for k in range(15)]
    np.testing.assert_allclose(trailing_mean(values, 5), expected, atol=1e-12)


def test_a_value_out_of_all_proportion_is_refused() -> None:
    values = walk()
    values[50] = 1e60
    with pytest.raises(DataError) as caught:
        one_series(values)
    assert str(caught.value) == (
        "The series has the value 1e+60 at 50, which is 1e+60 times its usual change. Correct the value, or leave it "
        "empty."
    )
