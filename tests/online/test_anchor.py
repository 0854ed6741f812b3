"""Predictions that begin at the last known number, against numbers kept by hand."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from tidegate.online import OnlineLearner


def wander(steps: int, seed: int = 0) -> list[float]:
    """A random walk, whose best prediction is its last value."""
    return list(100.0 + np.cumsum(np.random.default_rng(seed).normal(size=steps)))


def frozen(learner: OnlineLearner) -> OnlineLearner:
    """The learner, which has had a step, with weights that no longer move."""
    learner._core.net.learn = lambda *_: True  # type: ignore[union-attr, method-assign, assignment]
    return learner


@pytest.mark.parametrize("delay", [0, 3])
def test_with_a_frozen_head_the_prediction_is_the_last_known_number(delay: int) -> None:
    """Of the same key, at the right delay, over labels that are missing; before there is one, the mean of all."""
    learner, rng = OnlineLearner("gru", 4, delay=delay), random.Random(0)
    known: dict[str, list[float | None]] = {"a": [], "b": []}
    every: list[float] = []
    frozen(learner.learn_one([0.0], None, "a"))
    known["a"].append(None)
    for t, y in enumerate(wander(80)):
        key = "a" if t < 20 or rng.random() < 0.5 else "b"
        label = None if rng.random() < 0.2 else y
        found = next((y for y in reversed(known[key][delay:]) if y is not None), None)
        expected = found if found is not None else np.mean(every) if every else 0.0
        guess = learner.predict_one([float(t)], key)
        assert guess == (expected if found is not None else pytest.approx(expected))
        learner.learn_one([float(t)], label, key)
        known[key].append(label)
        every += [label] if label is not None and len(known[key]) > delay else []
    assert min(map(len, known.values())) > 20


def test_a_late_gradient_is_that_of_the_anchor_of_its_own_step() -> None:
    """The head at zero: the gradient in its bias is the distance from the anchor to the label, in units of the root
    mean square of such distances; before there is an anchor, the deviation from the mean."""
    ys, delay = wander(30), 4
    learner, found = OnlineLearner("gru", 4, delay=delay, clip=1e9), list[float]()
    learner.learn_one([0.0], None)
    learner._core.net.adam.step = lambda weights, gradient: found.append(float(gradient[-1]))  # type: ignore[union-attr]
    for t in range(1, 30):
        learner.learn_one([0.0], ys[t - delay] if t >= delay else None)
    for t, gradient in enumerate(found):  # of step t, when the newest label was that of step t - delay - 1
        moves = [ys[k] - ys[k - delay - 1] for k in range(delay + 1, t + 1)]
        own, unit = (moves[-1], np.sqrt(np.mean(np.square(moves)))) if moves else deviation(ys[: t + 1])
        expected = -own / unit if unit else 0.0
        assert gradient == pytest.approx(max(min(expected, 10.0), -10.0), rel=1e-5, abs=1e-6)
    assert len(found) == 30 - delay


def deviation(ys: list[float]) -> tuple[float, float]:
    """How far the last number is from the mean, and the standard deviation."""
    return ys[-1] - float(np.mean(ys)), float(np.std(ys))


def compared(learner: OnlineLearner, ys: list[float]) -> float:
    """The mean absolute error of predictions over that of the last value."""
    errors, naive = [], []
    for last, y in zip([None, *ys], ys, strict=False):
        if last is not None:
            errors.append(abs(learner.predict_one({}) - y))
            naive.append(abs(last - y))
        learner.learn_one({}, y)
    return float(np.mean(errors) / np.mean(naive))


@pytest.mark.parametrize(
    ("anchor", "low", "high"), [("naive", 0.97, 1.05), ("none", 1.3, 20.0)]
)  # of a random walk nothing beats the last value
def test_a_random_walk_is_not_lost_to_the_last_value(anchor: str, low: float, high: float) -> None:
    learner = OnlineLearner(hidden_size=8, rule="truncated:1,4", anchor=anchor)
    assert low < compared(learner, wander(800)) < high


def test_the_net_corrects_an_anchor_that_tells_nothing() -> None:
    """Independent numbers: the mean errs by 1 / sqrt(2) of what the last value errs by."""
    noise = list(np.random.default_rng(1).normal(5.0, 2.0, 1500))
    assert compared(OnlineLearner(hidden_size=8, rule="truncated:1,4", learning_rate=0.003), noise) < 0.82


@pytest.mark.parametrize("options", [{"task": "classification"}, {"task": "classification", "anchor": "none"}])
def test_labels_have_no_anchor(options: dict[str, Any]) -> None:
    learner = OnlineLearner("gru", 4, **options).learn_one([1.0, 2.0], "a").learn_one([1.0, 2.0], "b")
    assert learner.to_spec()[1]["layer.l0.n.x"].shape == torch.Size([4, 2])
    assert not [name for name in learner.to_spec()[1] if "last" in name]
