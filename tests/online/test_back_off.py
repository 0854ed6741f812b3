"""Backing off after refused steps: planted explosions, and what is as it was at the start."""

import math
from typing import Any

import pytest
import torch

from online_streams import waves
from tidegate.online import BackedOff, Event, OnlineLearner
from tidegate.online.adam import LEAST, QUIET, STREAK, BackOff

pytestmark = pytest.mark.filterwarnings("ignore::tidegate.TidegateNotice")


class Planted:
    """Multiplies the gradients of a learner's net while `factor` is not 1."""

    def __init__(self, learner: OnlineLearner) -> None:
        self.factor, online = 1.0, learner._core.net.online  # type: ignore[union-attr]
        self.whole = online.gradient
        online.gradient = self.gradient  # type: ignore[method-assign]

    def gradient(self, memory: Any, dy: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: g * self.factor for name, g in self.whole(memory, dy).items()}


def begun(steps: int = 30, **options: Any) -> OnlineLearner:
    learner = OnlineLearner("gru", 4, **{"learning_rate": 0.008, **options})
    for n, (x, y) in enumerate(waves(steps)):
        learner.learn_one(x, y, "ab"[n % 2])
    return learner


def go_on(learner: OnlineLearner, steps: int, key: str = "a") -> OnlineLearner:
    for x, y in waves(steps, seed=5):
        learner.learn_one(x, y, key)
    return learner


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("factor", [1e20, math.nan])
def test_refused_steps_in_a_row_start_states_anew_with_half_the_rate(factor: float, delay: int) -> None:
    learner, heard = begun(delay=delay), list[Event]()
    learner.listeners.append(heard.append)
    planted, core, weights = Planted(learner), learner._core, learner._core.net.weights.clone()  # type: ignore[union-attr]
    planted.factor = factor
    go_on(learner, STREAK - 1)
    assert (learner.refused, learner.backed_off, learner.learning_rate) == (STREAK - 1, 0, 0.008)
    go_on(learner, 1)
    assert (learner.refused, learner.backed_off, learner.learning_rate) == (STREAK, 1, 0.004)
    assert heard[-1] == BackedOff(30 + STREAK, "a", 0.004)
    net = core.net
    assert net is not None
    assert torch.equal(net.weights, weights)  # the first time only states, influence and moments are at fault
    assert (net.adam.steps, net.adam.rate, float(net.adam.mean.norm()), float(net.adam.square.norm())) == (
        0,
        0.004,
        0,
        0,
    )
    start = net.online.begin().tensors()
    for track in core.tracks.kept.values():
        assert all(torch.equal(tensor, start[name]) for name, tensor in track.memory.tensors().items())
        assert (track.ahead is not None) == bool(delay)
        assert track.ahead is None or not track.ahead["h"][0].any()
    planted.factor = 1.0
    go_on(learner, 50)
    assert (learner.refused, learner.backed_off) == (STREAK, 1)
    assert not torch.equal(net.weights, weights)


def test_a_second_time_before_the_rate_has_recovered_weights_start_anew_too() -> None:
    learner = begun()
    planted, net = Planted(learner), learner._core.net
    assert net is not None
    first = OnlineLearner("gru", 4).learn_one({"a": 0.0, "b": 0.0})._core.net
    assert first is not None
    planted.factor = math.inf
    go_on(learner, 2 * STREAK)
    assert (learner.backed_off, learner.learning_rate) == (2, 0.002)
    assert torch.equal(net.weights, first.weights)
    assert not net.head.any()
    own = dict(net.layer.named_parameters())
    assert all(torch.equal(own[name], p) for name, p in first.layer.named_parameters())


def test_an_update_between_refused_steps_ends_their_row_and_each_key_has_its_own() -> None:
    learner = begun()
    planted = Planted(learner)
    for _ in range(5):
        planted.factor = math.nan
        go_on(learner, STREAK - 1, "a")
        go_on(learner, STREAK - 1, "b")
        planted.factor = 1.0
        go_on(go_on(learner, 1, "a"), 1, "b")
    assert (learner.refused, learner.backed_off) == (10 * (STREAK - 1), 0)
    planted.factor = math.nan
    x, _ = next(waves(1))
    for _ in range(STREAK - 1):
        learner.learn_one(x, 5.0, "a").learn_one(x, None, "a")
    assert learner.learn_one(x, 5.0, "a").backed_off == 1  # a step without a label proves nothing


def test_the_rate_recovers_after_a_quiet_time_only() -> None:
    rates = BackOff(0.01, 0.01)
    assert [rates.lowered() for _ in range(2)] == [0.005, 0.0025]
    found = [rates.updated() for _ in range(3 * QUIET)]
    assert found == [0.0025] * (QUIET - 1) + [0.005] * QUIET + [0.01] * (QUIET + 1)
    rates.lowered()
    for _ in range(QUIET - 1):
        rates.updated()
    rates.quiet = 0  # a refused step
    assert [rates.updated(), rates.quiet] == [0.005, 1]
    for _ in range(50):
        rates.lowered()
    assert rates.rate == 0.01 * LEAST


def test_a_refused_step_begins_the_quiet_time_anew() -> None:
    learner = begun()
    planted = Planted(learner)
    assert learner._core.back_off.quiet == 30
    planted.factor = math.nan
    go_on(learner, 1)
    assert learner._core.back_off.quiet == 0


@pytest.mark.parametrize("at", [1, STREAK - 1, STREAK, STREAK + 4])
def test_a_restored_learner_goes_on_with_the_same_bits_within_a_back_off(at: int) -> None:
    """Refused steps, the back-off and the first steps after it, with a restart after `at` of these steps."""

    def planted_steps(learner: OnlineLearner, steps: range) -> OnlineLearner:
        planted = Planted(learner)
        for n, (x, y) in zip(steps, list(waves(30, seed=7))[steps.start :], strict=False):
            planted.factor = math.nan if n < STREAK else 1.0
            learner.learn_one(x, y, "a")
        return learner

    whole, first = planted_steps(begun(), range(20)), planted_steps(begun(), range(at))
    again = OnlineLearner().restore(first.snapshot())
    assert again.learning_rate == first.learning_rate
    assert planted_steps(again, range(at, 20)).snapshot() == whole.snapshot()
    assert whole.backed_off == 1


def test_a_learner_with_too_large_a_rate_recovers() -> None:
    """The influence of this net explodes at this rate; without backing off nearly every later step is refused."""
    learner = OnlineLearner("gru", 16, learning_rate=0.05)
    for x, y in waves(3000, seed=3):
        learner.learn_one(x, y)
    assert learner.backed_off > 0
    assert learner.refused < 100
