"""What outputs mean: scales of numbers, and labels as they come."""

import math

import numpy as np
import pytest

from tidegate.online import OnlineLearner
from tidegate.online.targets import Labels, Number


def test_a_number_is_guessed_in_its_units() -> None:
    target = Number(100, anchored=False)
    assert target.shown(target.guess([0.7], None)) == 0.0
    for y in (10.0, 14.0, 18.0):
        target.learn(y, None)
    deviation = np.std([10.0, 14.0, 18.0])
    assert target.guess([0.5], 99.0) == [pytest.approx(14.0 + 0.5 * deviation)]
    assert target.gradient([0.5], 16.0, 99.0) == [pytest.approx(0.5 - 2.0 / deviation)]
    assert target.inputs(99.0) == []
    assert target.error([3.0], 5.5) == 2.5


def test_an_anchored_number_is_guessed_from_the_last_one() -> None:
    target = Number(100, anchored=True)
    for y, last in ((10.0, None), (16.0, 10.0), (13.0, 12.0)):
        target.learn(y, last)
    deviation, distance = np.std([10.0, 16.0, 13.0]), math.sqrt((6.0**2 + 1.0**2) / 2)
    assert target.inputs(17.0) == [pytest.approx(4.0 / deviation)]
    assert target.inputs(None) == [0.0]
    assert target.guess([0.0], 18.3) == [18.3]
    assert target.guess([0.5], 18.0) == [pytest.approx(18.0 + 0.5 * distance)]
    assert target.guess([0.5], None) == [pytest.approx(13.0 + 0.5 * deviation)]
    assert target.gradient([0.5], 17.0, 18.0) == [pytest.approx(0.5 + 1.0 / distance)]
    assert target.gradient([0.5], 17.0, None) == [pytest.approx(0.5 - 4.0 / deviation)]
    assert target.gradient([0.5], 1e9, 18.0) == [0.5 - 10.0]


def test_labels_are_known_as_they_come() -> None:
    target = Labels(3)
    assert target.shown(target.guess([0.0] * 3)) is None
    assert target.probabilities(target.guess([0.0] * 3)) == {}
    assert target.error([0.0] * 3, "a") == 1.0
    target.learn("a")
    target.learn(7)
    target.learn("a")
    assert target.to_json() == ["a", 7]
    guess = target.guess([1.0, 3.0, 50.0])
    assert target.probabilities(guess) == {"a": pytest.approx(1 / (1 + np.e**2)), 7: pytest.approx(1 / (1 + np.e**-2))}
    assert guess[2] == 0.0
    assert target.shown(guess) == 7
    assert target.error(guess, 7) == pytest.approx(1 - guess[1])
    assert target.gradient([1.0, 3.0, 50.0], 7) == [guess[0], pytest.approx(guess[1] - 1), 0.0]


def test_large_outputs_do_not_overflow() -> None:
    target = Labels(2, ["a", "b"])
    assert target.guess([1e4, -1e4]) == [1.0, 0.0]


def test_labels_of_numpy_are_plain_ones() -> None:
    learner = OnlineLearner("gru", 4, task="classification")
    for y in (np.bool_(True), np.int64(3), np.str_("x"), np.float64("nan"), None):
        learner.learn_one([1.0], y)
    assert [type(label) for label in learner.predict_proba_one([1.0])] == [bool, int, str]
