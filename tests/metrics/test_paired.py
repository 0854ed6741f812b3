"""The paired comparison: by hand, by scipy, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from tidegate.metrics import compare, compare_series


@pytest.mark.parametrize(("origins", "horizon", "blocks"), [(94, 12, 7), (50, 6, 8), (1000, 3, 14), (25, 12, 2)])
def test_the_interval_is_students_over_block_means(origins: int, horizon: int, blocks: int) -> None:
    ours, theirs = np.random.randn(origins), np.random.randn(origins) + 0.3
    result = compare(ours, theirs, horizon)
    means = [part.mean() for part in np.array_split(ours - theirs, blocks)]
    error = stats.sem(means) * stats.t.ppf(0.975, blocks - 1)
    assert (result.blocks, result.origins, result.over) == (blocks, origins, "blocks of origins")
    assert result.difference == pytest.approx(np.mean(ours - theirs))
    assert result.low == pytest.approx(result.difference - error, rel=1e-3)
    assert result.high == pytest.approx(result.difference + error, rel=1e-3)


def test_the_outcome_is_the_side_of_zero() -> None:
    assert compare(np.zeros(94), np.linspace(1, 2, 94), 12).outcome == "better"
    assert compare(np.linspace(1, 2, 94), np.zeros(94), 12).outcome == "worse"
    assert compare(np.ones(90), np.ones(90), 3).outcome == "same"


def test_one_extreme_block_decides_nothing() -> None:
    ours = np.random.default_rng(1).normal(size=80)
    ours[:8] -= 1000
    assert compare(ours, np.zeros(80), 8).outcome == "same"


def test_with_one_block_there_is_no_interval() -> None:
    result = compare(np.zeros(19), np.ones(19), 10)
    assert (result.blocks, result.low, result.high, result.outcome) == (1, None, None, "same")
    assert result.difference == -1.0
    nothing = compare(np.array([]), np.array([]), 3)
    assert (nothing.difference, nothing.low, nothing.outcome) == (0.0, None, "same")


def test_missing_origins_are_omitted() -> None:
    ours, theirs = np.zeros(100), np.ones(100)
    ours[3], theirs[40] = np.nan, np.nan
    assert compare(ours, theirs, 5).origins == 98


@pytest.mark.parametrize(("origins", "horizon", "most"), [(300, 1, 0.08), (600, 12, 0.11), (94, 12, 0.16)])
def test_false_alarms_are_rare(origins: int, horizon: int, most: float) -> None:
    """Moving averages over a horizon have the dependence of overlapping forecasts; none is better."""
    chance, alarms, trials = np.random.default_rng(5), 0, 300
    for _ in range(trials):
        differences = np.convolve(chance.normal(size=origins + horizon - 1), np.ones(horizon) / horizon, "valid")
        alarms += compare(differences, np.zeros(origins), horizon).outcome != "same"
    assert 0.01 <= alarms / trials <= most


def test_a_clear_difference_is_found() -> None:
    chance, found = np.random.default_rng(6), 0
    for _ in range(50):
        differences = np.convolve(chance.normal(size=311), np.ones(12) / 12, "valid") - 0.3
        found += compare(differences, np.zeros(300), 12).outcome == "better"
    assert found >= 48


def test_series_are_averaged_where_there_are_blocks_enough_and_else_are_the_units() -> None:
    ours = [np.random.randn(count) for count in (60, 40, 60)]
    theirs = [np.zeros(len(one)) for one in ours]
    by_time = compare_series(ours, theirs, 6)
    table = np.full((3, 60), np.nan)
    for row, one in zip(table, ours, strict=True):
        row[60 - len(one) :] = one
    assert by_time == compare(np.nanmean(table, 0), np.zeros(60), 6)
    short = [one[:8] for one in np.random.randn(40, 8)]
    found = compare_series(short, [np.zeros(8)] * 40, 6)
    means = np.array([one.mean() for one in short])
    assert (found.blocks, found.over) == (40, "series")
    assert found.high - found.difference == pytest.approx(stats.sem(means) * stats.t.ppf(0.975, 39), rel=1e-3)


def test_a_series_without_a_known_loss_is_no_unit() -> None:
    ours = [np.array([1.0]), np.array([np.nan]), np.array([3.0]), np.array([2.0])]
    found = compare_series(ours, [np.zeros(1)] * 4, 1)
    assert (found.blocks, found.difference) == (3, 2.0)
