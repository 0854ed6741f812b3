"""Schedules against their formulas, accumulation against one larger batch."""

import math
from typing import Any

import pytest
import torch

from tidegate.errors import ArgumentError
from tidegate.gradients import BPTT, RTRL, Rule, TruncatedBPTT
from tidegate.training import TrainingPlan, train
from training_cases import Follow


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


@pytest.mark.parametrize("rule", [BPTT(), TruncatedBPTT(2, 4), RTRL(every=2)], ids=str)
def test_accumulated_batches_learn_like_one_large_batch(rule: Rule) -> None:
    whole, parts = Parts(8), Parts(1, 2, 5)
    plan = {"rule": rule, "updates": 12, "check_every": 3, "clip": 0.1}
    one = train(whole, TrainingPlan(**plan))  # type: ignore[arg-type]
    many = train(parts, TrainingPlan(**plan, accumulate=3))  # type: ignore[arg-type]
    for mine, theirs in zip(many.checks, one.checks, strict=True):
        assert (mine.update, mine.validation) == (theirs.update, pytest.approx(theirs.validation, rel=1e-10))
    assert one.checks[-1].validation < 0.99 * one.checks[0].validation
