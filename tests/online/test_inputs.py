"""Features: what is read, scaled, missing, new, or refused."""

import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tidegate.data.values import is_missing
from tidegate.errors import ArgumentError, TidegateNotice
from tidegate.online import OnlineLearner
from tidegate.online.inputs import FeatureInputs, read_numbers


def fed(size: int, *steps: dict[Any, float]) -> FeatureInputs:
    inputs = FeatureInputs(size, 1000)
    for numbers in steps:
        inputs.admit(numbers)
        _, inputs.scales = inputs.scaled(numbers)
    return inputs


class NAType:
    """As pandas.NA: comparing it gives itself, and it has no truth value."""

    def __ne__(self, other: object) -> "NAType":  # type: ignore[override]
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


MISSING = [None, math.nan, np.float32("nan"), np.datetime64("NaT"), NAType()]


@pytest.mark.parametrize("value", MISSING, ids=str)
def test_what_is_missing_is_missing_everywhere(value: Any) -> None:
    assert is_missing(value)
    for task in ("regression", "classification"):
        given, none = (OnlineLearner("gru", 4, task=task).learn_one({"a": 1.0}, 2.0) for _ in range(2))
        given.learn_many([{"a": value}, {"a": 3.0}], [value, value])
        none.learn_many([{"a": None}, {"a": 3.0}], [None, None])
        assert given.snapshot() == none.snapshot()


@pytest.mark.parametrize("value", [0, False, "", "nan", math.inf, np.zeros(0), np.full(3, math.nan), [], {}])
def test_what_is_not_missing(value: Any) -> None:
    assert not is_missing(value)


def test_kinds_of_numbers() -> None:
    given = {"i": 3, "f": np.float32(0.5), "t": True, "q": Fraction(1, 4), 4: np.int64(7)}
    assert read_numbers(given) == {"i": 3.0, "f": 0.5, "t": 1.0, "q": 0.25, 4: 7.0}
    assert read_numbers((1, 2.5)) == read_numbers(np.array([1, 2.5])) == {0: 1.0, 1: 2.5}
    missing = read_numbers({"a": None, "b": math.nan})
    assert list(missing) == ["a", "b"]
    assert all(map(math.isnan, missing.values()))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (
            {"a": math.inf},
            "feature 'a' must be between -1e+100 and 1e+100, got inf: give None or NaN where it is missing",
        ),
        (
            {"a": -(10**400)},
            "feature 'a' must be between -1e+100 and 1e+100, got inf: give None or NaN where it is missing",
        ),
        (
            {"wind": "strong"},
            "feature 'wind' must be a number, got 'strong': code labels as numbers, or omit the feature",
        ),
        ([[1.0]], "feature 0 must be a number, got [1.0]: code labels as numbers, or omit the feature"),
        (
            {"a": 1.0, ("b", 1): 2.0},
            "a feature's name must be text or a whole number of 64 bits, got ('b', 1)",
        ),
        ({2**63: 1.0}, "a feature's name must be text or a whole number of 64 bits, got 9223372036854775808"),
        ({"\ud800": 1.0}, "a feature's name must be text or a whole number of 64 bits, got '\\ud800'"),
        (3.0, "x must be a mapping from features to numbers, or a sequence of numbers, got float"),
    ],
)
def test_what_is_no_number_is_refused(x: Any, text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        read_numbers(x)
    assert str(caught.value) == text


def test_slots_do_not_depend_on_the_order_within_a_step() -> None:
    a, b = fed(3, {"u": 1.0, "v": 2.0, 1: 3.0}), fed(3, {1: 3.0, "v": 2.0, "u": 1.0})
    assert a.slots == b.slots
    assert a.scaled({"u": 5.0, "v": 3.0}) == b.scaled({"v": 3.0, "u": 5.0})


def test_what_is_missing_reads_as_the_mean_and_leaves_its_scale() -> None:
    inputs = fed(2, {"a": 1.0, "b": 10.0}, {"a": 3.0, "b": 30.0})
    row, scales = inputs.scaled({"a": math.nan, "b": 20.0})
    assert row == [0.0, 0.0]
    assert scales[0] == inputs.scales[0]
    assert scales[1].weight == 3


def test_scaling_alone_keeps_nothing() -> None:
    inputs = fed(1, {"a": 1.0}, {"a": 2.0})
    before = list(inputs.scales)
    row, scales = inputs.scaled({"a": 6.0})
    assert row == [pytest.approx(3 / np.std([1, 2, 6]))]
    assert inputs.scales == before != scales


def test_new_features_have_the_free_slots_and_the_rest_is_ignored_with_a_notice() -> None:
    learner = OnlineLearner("gru", 4, max_features=3).learn_one({"b": 1.0, "a": None})
    learner.learn_one({"c": 1.0, "a": 2.0})
    with pytest.warns(TidegateNotice) as told:
        learner.learn_one({"d": 1.0, "a": 2.0})
    assert [str(w.message) for w in told] == [
        "feature 'd' is ignored, as will be all other new ones: the net has 3 inputs, and all are taken. Give a larger "
        "max_features=, or every feature in the first step."
    ]
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.learn_one({"e": 1.0})
    assert list(learner._core.inputs.slots) == ["a", "b", "c"]
    assert learner.predict_one({"a": 1.0, "z": 5.0}) == learner.predict_one({"a": 1.0})


def test_a_stream_may_have_no_features_at_all() -> None:
    learner = OnlineLearner("gru", 4)
    for y in (1.0, 3.0) * 20:
        learner.learn_one({}, y)
    assert 1.0 < learner.predict_one({}) < 3.0
