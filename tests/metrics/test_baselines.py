"""Baselines against slicing loops."""

import numpy as np
import pytest

from tidegate.metrics import climatology, naive, residual_quantiles, seasonal_naive, with_drift
from tidegate.metrics.baselines import last_known, seasonal_offsets


def series() -> np.ndarray:
    values = np.random.randn(40)
    values[[7, 8, 23]] = np.nan
    return values


def test_last_known_by_a_loop() -> None:
    values, filled = series(), []
    for value in values:
        filled.append(filled[-1] if np.isnan(value) else value)
    np.testing.assert_array_equal(last_known(values), filled)


@pytest.mark.parametrize(("season", "horizon"), [(1, 4), (5, 3), (5, 5), (5, 13), (7, 15)])
def test_seasonal_naive_by_a_loop(season: int, horizon: int) -> None:
    values, origins = series(), np.array([8, 20, 39])
    found = seasonal_naive(season)(values, origins, horizon)
    for row, origin in zip(found, origins, strict=True):
        past = list(last_known(values[: origin + 1]))
        for value in row:
            past.append(past[-season])
            assert value == past[-1]


def test_offsets_never_look_ahead() -> None:
    assert seasonal_offsets(7, 3).tolist() == [-2, -1, 0, -2, -1, 0, -2]
    assert seasonal_offsets(3, 1).tolist() == [0, 0, 0]


def test_naive_is_flat() -> None:
    assert naive(np.array([1.0, 5.0, np.nan]), np.array([0, 2]), 2).tolist() == [[1.0, 1.0], [5.0, 5.0]]


def test_drift_follows_a_line_and_a_seasonal_line_exactly() -> None:
    line = 3.0 + 0.5 * np.arange(30)
    np.testing.assert_allclose(with_drift(line[:20], 1)(line, np.array([25]), 4)[0], line[26:30])
    seasonal = line + np.tile([0.0, 7.0, -2.0], 10)
    np.testing.assert_allclose(with_drift(seasonal[:20], 3)(seasonal, np.array([22]), 7)[0], seasonal[23:30])


def test_residual_quantiles_by_a_loop() -> None:
    values, levels, horizon, stop = series(), np.array([0.1, 0.5, 0.9]), 3, 30
    found = residual_quantiles(naive, values, 4, stop, horizon, levels)
    for step in range(1, horizon + 1):
        missed = []
        for origin in range(4, stop - step):
            past = [value for value in values[: origin + 1] if not np.isnan(value)]
            missed.append(values[origin + step] - past[-1])
        known = np.array([value for value in missed if not np.isnan(value)])
        np.testing.assert_allclose(found[step - 1], np.quantile(known - np.median(known), levels), atol=1e-12)


def test_residuals_never_see_the_held_out_part() -> None:
    values = series()
    changed = values.copy()
    changed[30:] = 1e9
    levels = np.array([0.1, 0.5, 0.9])
    first, second = (residual_quantiles(seasonal_naive(4), v, 4, 30, 5, levels) for v in (values, changed))
    np.testing.assert_array_equal(first, second)


def test_a_horizon_without_residuals_takes_the_widest() -> None:
    found = residual_quantiles(naive, np.array([0.0, 1.0, 0.0, 3.0]), 0, 4, 6, np.array([0.1, 0.5, 0.9]))
    widest = max(found, key=np.ptp)
    np.testing.assert_array_equal(found[3:], np.tile(widest, (3, 1)))


@pytest.mark.parametrize("season", [1, 5])
def test_climatology_is_the_mean_of_each_place_of_the_season(season: int) -> None:
    values = series()
    found = climatology(values[:30], season)(values, np.array([30, 38]), 7)
    for row, origin in zip(found, (30, 38), strict=True):
        for k, value in enumerate(row, start=1):
            place = (origin + k) % season
            assert value == pytest.approx(np.nanmean(values[place:30:season]))


def test_climatology_of_a_place_that_was_never_seen_is_the_mean_of_all() -> None:
    before = np.array([1.0, np.nan, 5.0, 3.0, np.nan, 7.0])
    assert climatology(before, 3)(before, np.array([5]), 3).tolist() == [[2.0, 4.0, 6.0]]
