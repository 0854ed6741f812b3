"""What outputs mean: scales of numbers, and labels as they come."""

import numpy as np
import pytest

from tidegate.online import OnlineLearner
from tidegate.online.targets import Labels, Number


def test_a_number_is_guessed_in_its_units() -> None:
    target = Number(100)
    assert target.shown(target.guess([0.7])) == 0.0
    for y in (10.0, 14.0, 18.0):
        target.learn(y)
    deviation = np.std([10.0, 14.0, 18.0])
    assert target.guess([0.5]) == [pytest.approx(14.0 + 0.5 * deviation)]
    assert target.gradient([0.5], 16.0) == [pytest.approx(0.5 - 2.0 / deviation)]
    assert target.error([3.0], 5.5) == 2.5


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
