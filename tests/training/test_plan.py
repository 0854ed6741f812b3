"""Schedules against their formulas, accumulation against one larger batch."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tidegate.errors import ArgumentError
from tidegate.gradients import TruncatedBPTT
from tidegate.nn import State
from tidegate.training import TrainingPlan, train
from training_cases import Follow, Stream


def test_constant() -> None:
    plan = TrainingPlan(learning_rate=0.6)
    assert [plan.rate(share, 0) for share in (0.0, 0.5, 1.0, 2.0)] == [0.6] * 4
    assert plan.rate(0.5, 2) == pytest.approx(0.6 / 9)


def test_cosine_rises_then_falls_along_half_a_cosine() -> None:
    plan = TrainingPlan(learning_rate=2.0, schedule="cosine")
    rates = [plan.rate(share, 0) for share in (0.0, 0.01, 0.025, 0.05, 0.525, 1.0, 1.3)]
    assert rates == pytest.approx([0.02, 0.4, 1.0, 2.0, 1.01, 0.02, 0.02])
    quarter = 0.05 + 0.95 / 4
    assert plan.rate(quarter, 0) == pytest.approx(2.0 * (0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2))


def test_cosine_uses_its_whole_budget_whatever_the_validation_loss_does() -> None:
    task = Follow()
    task.validate = lambda: 1.0  # type: ignore[method-assign]
    history = train(task, TrainingPlan(schedule="cosine", updates=40, check_every=1, patience=1, cuts=0))
    rates = [check.learning_rate for check in history.checks]
    assert history.finished.updates == 40
    assert rates.index(max(rates)) == 1
    assert rates[-1] == pytest.approx(0.01 * 0.003)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"schedule": "step"}, "schedule must be 'constant' or 'cosine', got 'step'"),
        ({"accumulate": 0}, "accumulate must be a whole number of 1 or more, got 0"),
        (
            {"schedule": "cosine", "budget": math.inf},
            "schedule='cosine' needs an end: give updates, or a finite budget",
        ),
        ({"updates": -1}, "updates must be a whole number of 1 or more, got -1"),
    ],
)
def test_what_a_plan_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        TrainingPlan(**options)


class Parts(Follow):
    """Batches of 8 rows that are drawn whole, or one after the other in parts of 1, 2 and 5 rows."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.module.double()
        self.held = self.held.double()
        self.widths, self.rest = widths, list[torch.Tensor]()

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        if not self.rest:
            self.rest = list(super().draw(generator).double().split(self.widths, 1))
        return self.rest.pop(0)


def test_accumulated_batches_learn_like_one_large_batch() -> None:
    whole, parts = Parts(8), Parts(1, 2, 5)
    plan = TrainingPlan(updates=12, check_every=3, clip=0.1)
    one, many = train(whole, plan), train(parts, replace(plan, accumulate=3))
    for mine, theirs in zip(many.checks, one.checks, strict=True):
        assert (mine.update, mine.validation) == (theirs.update, pytest.approx(theirs.validation, rel=1e-10))
    assert one.checks[-1].validation < 0.99 * one.checks[0].validation


class Ordered(Stream):
    """A stream that records which batch runs, and whether it goes on from the end of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[int] = []

    def run(self, batch: Any, start: int, stop: int, state: State | None) -> tuple[torch.Tensor, State]:
        self.ran.append(self.data[1:, 0, 0].tolist().index(batch[1][0, 0, 0].item()))
        return super().run(batch, start, stop, state)


def test_accumulated_batches_run_one_after_the_other() -> None:
    """5 steps in segments of 2, 2 and 1: three batches have nine, and each three of these make an update."""
    task = Ordered()
    history = train(task, TrainingPlan(rule=TruncatedBPTT(2, 4), accumulate=3, updates=6, check_every=1))
    assert [check.update for check in history.checks] == [0, 3, 6]
    assert task.ran == sorted(task.ran)
    assert set(task.ran) == {0, 5, 10, 15, 20, 25}
