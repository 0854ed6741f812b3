"""The paired test: by hand, by enumeration, and by simulation."""

import itertools

import numpy as np
import pytest

from tidegate.metrics import compare


def test_seven_blocks_that_agree_by_hand() -> None:
    """All seven blocks favour us: of 2^7 choices of signs only two are as far from zero."""
    result = compare(np.zeros(94), np.linspace(1, 2, 94), 12)
    assert (result.blocks, result.origins, result.outcome) == (7, 94, "better")
    assert result.p_value == pytest.approx(2 / 128)
    assert compare(np.linspace(1, 2, 94), np.zeros(94), 12).outcome == "worse"


def test_p_value_by_enumeration() -> None:
    ours, theirs = np.random.randn(50), np.random.randn(50) + 0.3
    sums = [float((ours - theirs)[part].sum()) for part in np.array_split(np.arange(50), 8)]
    flips = [
        sum(sign * value for sign, value in zip(signs, sums, strict=True))
        for signs in itertools.product((1, -1), repeat=8)
    ]
    expected = np.mean([abs(flip) >= abs(sum(sums)) - 1e-9 for flip in flips])
    result = compare(ours, theirs, 6)
    assert result.p_value == pytest.approx(expected)
    assert result.difference == pytest.approx(np.mean(ours - theirs))


def test_one_extreme_block_decides_nothing() -> None:
    ours = np.random.default_rng(1).normal(size=80)
    ours[:8] -= 1000
    assert compare(ours, np.zeros(80), 8).outcome == "same"


def test_too_few_blocks_show_nothing() -> None:
    result = compare(np.zeros(59), np.ones(59), 10)
    assert (result.blocks, result.p_value, result.outcome) == (5, 1.0, "same")
    assert compare(np.array([]), np.array([]), 3).outcome == "same"


def test_equal_losses_are_the_same() -> None:
    assert compare(np.ones(90), np.ones(90), 3).outcome == "same"


def test_missing_origins_are_left_out() -> None:
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
