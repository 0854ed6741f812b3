"""The loop on a small task whose answer is known: a net that must repeat its input's sign."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tidegate.config import checked
from tidegate.errors import TrainingError
from tidegate.gradients import BPTT, TruncatedBPTT
from tidegate.nn import Recurrent, State
from tidegate.training import Checked, Event, Finished, History, Started, TrainingPlan, seeded, train
from tidegate.training.loop import ENOUGH, INTERRUPTED, OUT_OF_TIME


class Follow:
    """Follow the running mean of the input; batches are `[T, B, 1]`."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.module = nn.ModuleDict({"layer": Recurrent("gru", 1, 5), "head": nn.Linear(5, 1)})
        self.held = torch.randn(6, 40, 1)
        self.trained: list[bool] = []

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        while True:
            yield torch.randn(6, 8, 1, generator=generator)

    def length(self, batch: Tensor) -> int:
        return len(batch)

    def run(self, batch: Tensor, start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        self.trained.append(self.module.training)
        return self.module["layer"](batch[start:stop], state)

    def score(self, batch: Tensor, outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        steps = torch.arange(1, len(batch) + 1)[:, None, None]
        target = (batch.cumsum(0) / steps)[start:stop]
        return ((self.module["head"](outputs) - target) ** 2).sum(), torch.tensor(target.numel())

    def validate(self) -> float:
        assert not self.module.training
        outputs, _ = self.run(self.held, 0, 6, None)
        self.trained.pop()
        total, count = self.score(self.held, outputs, 0, 6)
        return (total / count).item()


PLAN = TrainingPlan(learning_rate=0.02, check_every=5, patience=2, cuts=1)


def numbers(history: History) -> list[tuple[int, float, float | None, float, bool]]:
    return [(c.update, c.validation, c.training, c.learning_rate, c.best) for c in history.checks]


@pytest.mark.parametrize("rule", [BPTT(), BPTT(checkpoint=1), TruncatedBPTT(3, 5)])
def test_it_learns_and_holds_the_best_weights(rule: BPTT | TruncatedBPTT) -> None:
    task, events = Follow(), list[Event]()
    history = train(
        task, TrainingPlan(learning_rate=0.03, check_every=20, patience=1, cuts=0, rule=rule), [events.append]
    )
    losses = [check.validation for check in history.checks]
    assert min(losses) < 0.3 * losses[0]
    task.module.eval()
    assert task.validate() == pytest.approx(min(losses), abs=0.0)
    assert history.checks[history.best].validation == min(losses)
    assert history.finished.best_update == history.checks[history.best].update
    assert all(task.trained)
    assert isinstance(events[0], Started)
    assert tuple(events[1:-1]) == history.checks
    assert events[-1] == history.finished


def test_patience_and_cuts_by_hand() -> None:
    """Losses are dictated: the best is the third; two looks without a better one cut the rate, two more end it."""
    task, dictated = Follow(), iter([5.0, 4.0, 3.0, 3.5, 3.0, 3.2, 3.1])
    task.validate = lambda: next(dictated)  # type: ignore[method-assign]
    history = train(task, PLAN)
    rates = [check.learning_rate for check in history.checks]
    assert [check.best for check in history.checks] == [True, True, True, False, False, False, False]
    assert rates == pytest.approx([0.02] * 5 + [0.02 / 3] * 2)
    assert history.finished == Finished(30, history.finished.seconds, ENOUGH, 10)
    assert history.best == 2


def test_the_same_seed_gives_the_same_numbers_and_another_does_not() -> None:
    first, second = (train(Follow(), PLAN) for _ in range(2))
    other = train(Follow(), TrainingPlan(learning_rate=0.02, check_every=5, patience=2, cuts=1, seed=7))
    assert numbers(first) == numbers(second)
    assert numbers(first)[1:] != numbers(other)[1:]


def test_the_callers_random_numbers_and_threads_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = torch.get_num_threads()
    task = Follow()
    torch.manual_seed(3)
    train(task, PLAN)
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == before


def test_seeded_block() -> None:
    with seeded(4):
        first = torch.rand(3)
    with seeded(4):
        assert torch.equal(torch.rand(3), first)


def test_the_budget_ends_it_with_a_last_look() -> None:
    history = train(Follow(), TrainingPlan(budget=1e-9))
    assert (history.finished.updates, history.finished.reason) == (1, OUT_OF_TIME)
    assert [check.update for check in history.checks] == [0, 1]


def test_an_interrupt_keeps_the_best_so_far() -> None:
    task = Follow()

    def interrupt(event: Event) -> None:
        if isinstance(event, Checked) and event.update == 10:
            raise KeyboardInterrupt

    history = train(task, PLAN, [interrupt])
    task.module.eval()
    assert (history.finished.reason, history.finished.updates) == (INTERRUPTED, 10)
    assert task.validate() == min(check.validation for check in history.checks)


def test_a_loss_that_is_not_finite() -> None:
    task = Follow()
    task.batches = lambda generator: iter([torch.full((6, 8, 1), float("nan"))])  # type: ignore[method-assign]
    with pytest.raises(TrainingError) as caught:
        train(task, PLAN)
    assert str(caught.value) == (
        "After 1 updates the training loss is nan and the norm of its gradient nan, but it must be finite. "
        "Lower the learning rate (now 0.02) or the clipping norm (now 1), or look for extreme values in the data."
    )


def test_a_validation_loss_that_is_not_finite() -> None:
    task = Follow()
    task.validate = lambda: float("inf")  # type: ignore[method-assign]
    with pytest.raises(TrainingError) as caught:
        train(task, PLAN)
    assert str(caught.value) == (
        "After 0 updates the validation loss is inf, but it must be finite. "
        "Lower the learning rate (now 0.02) or the clipping norm (now 1), or look for extreme values in the data."
    )


def test_history_both_ways() -> None:
    history = train(Follow(), PLAN)
    assert checked(History, history.to_json(), "history") == history
