"""The alarm, against Page's own words: a sum, less its lowest value so far."""

import numpy as np
import pytest

from tidegate.online.drift import FIRST, SLACK, PageHinkley
from tidegate.online.scale import RunningScale


def alarms(errors: np.ndarray, threshold: float) -> list[int]:
    test, found = PageHinkley(), []
    for step, error in enumerate(errors):
        test, alarm = test.after(float(error), threshold)
        found += [step] if alarm else []
    return found


@pytest.mark.parametrize("threshold", [5.0, 12.0, 50.0])
def test_the_first_alarm_is_where_the_sum_rises_from_its_lowest(threshold: float) -> None:
    rng = np.random.default_rng(1)
    errors = np.abs(rng.normal(0, 1, 600)) + np.repeat([0.0, 1.5], 300)
    scale, total, lowest = RunningScale(), 0.0, 0.0
    for step, error in enumerate(errors):
        if step >= FIRST:
            total += scale.scaled(error) - SLACK
            lowest = min(lowest, total)
        if total - lowest > threshold:
            break
        scale = scale.seen(error, 1000)
    assert alarms(errors, threshold)[0] == step < 600


def test_a_shift_is_found_soon_and_once() -> None:
    rng = np.random.default_rng(2)
    errors = np.abs(rng.normal(0, 1, 4000)) * np.repeat([1.0, 3.0], 2000)
    (step,) = alarms(errors, 50.0)
    assert 2000 < step < 2060


@pytest.mark.parametrize("kind", ["normal", "gamma", "share"])
def test_where_nothing_drifts_there_is_silence(kind: str) -> None:
    rng = np.random.default_rng(5)
    draw = {
        "normal": lambda: np.abs(rng.normal(0, 1, 100_000)),
        "gamma": lambda: rng.gamma(0.7, 2.0, 100_000),
        "share": lambda: (rng.random(100_000) < 0.1).astype(float),
    }[kind]
    assert alarms(draw(), 50.0) == []


def test_smaller_errors_are_no_alarm_and_one_outlier_is_none() -> None:
    errors = np.abs(np.random.default_rng(6).normal(0, 1, 3000))
    errors[1500] = 1e12
    errors[2000:] *= 0.1
    assert alarms(errors, 50.0) == []
