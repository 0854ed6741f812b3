"""Scores against brute force and by hand."""

import math

import numpy as np
import pytest
import torch

from tidegate.metrics import (
    coverage,
    mae,
    mase,
    pinball,
    quantile_score,
    rmse,
    seasonal_scale,
    smape,
    weighted_quantile_loss,
)

LEVELS = np.array([0.1, 0.5, 0.8])


def brute(truth: float, forecast: float, level: float) -> float:
    return level * (truth - forecast) if truth >= forecast else (1 - level) * (forecast - truth)


def test_pinball_against_brute_force_in_numpy_and_torch() -> None:
    truth, forecast = np.random.randn(4, 5, 1), np.random.randn(4, 5, 3)
    found = pinball(truth, forecast, LEVELS)
    for a, b, q in np.ndindex(4, 5, 3):
        assert found[a, b, q] == pytest.approx(brute(truth[a, b, 0], forecast[a, b, q], LEVELS[q]), abs=1e-15)
    tensors = pinball(torch.from_numpy(truth), torch.from_numpy(forecast), torch.from_numpy(LEVELS))
    np.testing.assert_allclose(tensors.numpy(), found, rtol=1e-15)


def test_pinball_is_lowest_at_the_quantile() -> None:
    values = np.random.randn(2001)
    losses = [pinball(values[:, None], np.full((2001, 1), guess), np.array([0.8])).mean() for guess in values]
    assert values[int(np.argmin(losses))] == pytest.approx(np.quantile(values, 0.8), abs=1e-9)


def test_gradient_of_pinball() -> None:
    forecast = torch.tensor([1.0, 3.0], requires_grad=True)
    pinball(torch.tensor([2.0]), forecast, torch.tensor([0.3, 0.3])).sum().backward()
    assert forecast.grad is not None
    torch.testing.assert_close(forecast.grad, torch.tensor([-0.3, 0.7]))


def test_quantile_score_by_hand() -> None:
    score = quantile_score([10.0], [[8.0, 11.0, 12.0]], LEVELS)
    assert score[0] == pytest.approx(2 * (0.1 * 2 + 0.5 * 1 + 0.2 * 2) / 3)
    assert quantile_score([10.0], [[7.0]], [0.5])[0] == pytest.approx(3.0)


def test_many_levels_approach_the_crps_of_a_normal() -> None:
    """CRPS of N(0, 1) at y: y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi) (Gneiting & Raftery 2007)."""
    from statistics import NormalDist

    levels = (np.arange(2000) + 0.5) / 2000
    quantiles = np.array([NormalDist().inv_cdf(level) for level in levels])
    for y in (-1.3, 0.0, 0.4):
        exact = y * (2 * NormalDist().cdf(y) - 1) + 2 * NormalDist().pdf(y) - 1 / math.sqrt(math.pi)
        assert quantile_score([y], [quantiles], levels)[0] == pytest.approx(exact, abs=2e-3)


def test_errors_leave_out_what_is_missing() -> None:
    truth, forecast = [1.0, np.nan, 4.0], [2.0, 9.0, 1.0]
    assert mae(truth, forecast) == pytest.approx(2.0)
    assert rmse(truth, forecast) == pytest.approx(math.sqrt(5.0))
    assert math.isnan(mae([np.nan], [1.0]))


def test_mase_by_hand() -> None:
    """History 1 3 2 5 4 with season 2: |2-1| |5-3| |4-2| have the mean 5/3; errors 1 and 3 have the mean 2."""
    scale = seasonal_scale([1, 3, 2, 5, 4], 2)
    assert scale == pytest.approx(5 / 3)
    assert mase([6.0, 7.0], [5.0, 10.0], scale) == pytest.approx(2 / (5 / 3))


def test_smape_by_hand() -> None:
    """200 * 2 / 10, 200 * 3 / 3 for opposite signs (the most there is), 0 for two zeros; what is missing is omitted."""
    assert smape([4.0, 1.0, 0.0, np.nan], [6.0, -2.0, 0.0, 5.0]) == pytest.approx((40 + 200 + 0) / 3)
    assert smape([6.0], [4.0]) == smape([4.0], [6.0])
    assert math.isnan(smape([np.nan], [1.0]))


def test_mase_of_several_series_scales_each_row() -> None:
    assert mase([[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], [1.0, 2.0]) == pytest.approx((1 + 2 + 1.5 + 2) / 4)


def test_seasonal_scale_skips_pairs_with_a_gap() -> None:
    assert seasonal_scale([1, np.nan, 4, 6], 1) == pytest.approx(2.0)
    assert math.isnan(seasonal_scale([1.0], 1))


def test_weighted_quantile_loss_by_hand() -> None:
    truth, forecast = [4.0, -6.0, np.nan], [[3.0], [-9.0], [0.0]]
    assert weighted_quantile_loss(truth, forecast, [0.5]) == pytest.approx((1 + 3) / 10)
    assert math.isnan(weighted_quantile_loss([0.0], [[1.0]], [0.5]))


def test_coverage_counts_the_borders() -> None:
    assert coverage([1.0, 2.0, 3.0, 4.0, np.nan], [1, 0, 0, 0, 0], [5, 2, 2.9, 5, 5]) == pytest.approx(0.75)
