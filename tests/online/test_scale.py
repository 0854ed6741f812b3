"""Running means and deviations, against numpy over all values."""

import math

import numpy as np
import pytest

from tidegate.online.scale import RunningScale


def after(values: list[float], window: int = 10**9) -> RunningScale:
    scale = RunningScale()
    for value in values:
        scale = scale.seen(value, window)
    return scale


def test_it_is_the_mean_and_variance_of_all() -> None:
    values = list(np.random.default_rng(3).normal(1e6, 2.0, 500))
    scale = after(values)
    assert scale.weight == 500
    assert scale.mean == pytest.approx(math.fsum(values) / 500, rel=1e-15)
    assert scale.variance == pytest.approx(np.var(values), rel=1e-9)


def test_beyond_the_window_old_values_fade_as_they_should() -> None:
    values, window = list(np.random.default_rng(4).normal(3.0, 2.0, 90)), 20
    scale = after(values, window)
    first = 1 / window * np.full(window, 1.0)
    weights = np.array([*first, *[0.0] * 70])
    for n in range(window, 90):
        weights *= 1 - 1 / window
        weights[n] = 1 / window
    mean = weights @ values
    assert scale.mean == pytest.approx(mean, rel=1e-12)
    assert scale.variance == pytest.approx(weights @ (np.array(values) - mean) ** 2, rel=1e-12)


def test_there_and_back() -> None:
    scale = after([2.0, 4.0, 9.0])
    assert scale.scaled(7.0) == pytest.approx((7.0 - 5.0) / np.std([2.0, 4.0, 9.0]))
    assert scale.unscaled(scale.scaled(7.0)) == pytest.approx(7.0)


def test_what_is_far_counts_for_ten_deviations_and_what_never_varied_for_none() -> None:
    assert after([0.0, 2.0]).scaled(1e9) == 10.0
    assert after([0.0, 2.0]).scaled(-1e9) == -10.0
    assert after([0.1] * 7).scaled(0.2) == 0.0
    assert RunningScale().scaled(3.0) == 0.0
    assert RunningScale().unscaled(3.0) == 0.0


def test_a_scale_never_changes() -> None:
    scale = after([1.0, 2.0])
    scale.seen(5.0, 10)
    assert scale == after([1.0, 2.0])
