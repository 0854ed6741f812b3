"""The loop on a small task whose answer is known: a net that must repeat its input's sign."""

from itertools import pairwise

import pytest
import torch

from tidegate.config import checked
from tidegate.errors import TrainingError
from tidegate.gradients import BPTT, TruncatedBPTT
from tidegate.training import Checked, Event, Finished, History, Started, TrainingPlan, Undone, Updated, seeded, train
from tidegate.training.loop import ALL_UPDATES, ENOUGH, INTERRUPTED, OUT_OF_TIME
from training_cases import Follow, Stream, numbers

PLAN = TrainingPlan(learning_rate=0.02, check_every=5, patience=2, cuts=1)


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
    assert tuple(event for event in events[1:-1] if not isinstance(event, Updated)) == history.checks
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


def test_updates_without_a_validation_part_keep_the_last_weights() -> None:
    task, events = Follow(), list[Event]()
    task.validate = None  # type: ignore[assignment]
    plan = TrainingPlan(learning_rate=0.02, updates=30, validated=False, check_every=7)
    history = train(task, plan, [events.append])
    assert history.checks == ()
    assert (history.finished.updates, history.finished.best_update) == (30, 30)
    task.module.eval()
    assert Follow.validate(task) < 0.8 * Follow.validate(untrained())
    assert isinstance(events[-1], Finished)


def untrained() -> Follow:
    task = Follow()
    task.module.eval()
    return task


def test_an_event_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that shows 0.3 seconds more at each look, each update takes more than one look."""
    now = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: 0.3 * next(now))
    events = list[Event]()
    train(Follow(), TrainingPlan(updates=20, check_every=100), [events.append])
    told = [event for event in events if isinstance(event, Updated)]
    assert 4 < len(told) < 20
    assert [event.update for event in told] == sorted({event.update for event in told})
    assert all(later.seconds - earlier.seconds >= 0.9 for earlier, later in pairwise(told))


def test_the_budget_in_updates() -> None:
    """Under truncation a batch is three updates, and the budget ends in the middle of one."""
    plan = TrainingPlan(updates=20, rule=TruncatedBPTT(2, 4), check_every=3)
    history = train(Follow(), plan)
    assert (history.finished.updates, history.finished.reason) == (20, ALL_UPDATES)
    assert [check.update for check in history.checks] == [0, 9, 18, 20]


class Spoilt(Stream):
    """A stream in which some batches, counted from 1, are not finite."""

    def __init__(self, *spoilt: int) -> None:
        super().__init__()
        self.spoilt, self.drawn = spoilt, 0

    def draw(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = super().draw(generator)
        self.drawn += 1
        return inputs * (float("nan") if self.drawn in self.spoilt else 1.0), targets


@pytest.mark.parametrize("rule", [BPTT(), TruncatedBPTT(2, 4)])
def test_an_update_that_is_not_finite_is_undone(rule: BPTT | TruncatedBPTT) -> None:
    """The batches before and after are learned from as if the spoilt ones were cut out; draws of noise differ."""
    plan = TrainingPlan(updates=12, rule=rule, check_every=100)
    task, events = Spoilt(2, 3, 5), list[Event]()
    train(task, plan, [events.append])
    undone = [event for event in events if isinstance(event, Undone)]
    per_batch = 1 if rule == BPTT() else 3
    assert [(event.update, event.row) for event in undone] == [(per_batch, 1), (per_batch, 2), (2 * per_batch, 1)]
    assert not any(torch.isnan(tensor).any() for tensor in task.module.state_dict().values())
    assert task.state is not None
    assert not any(torch.isnan(named["h"]).any() for layer in task.state.layers for named in layer)


def test_an_undone_update_leaves_every_bit() -> None:
    """Weights and buffers at the check after an undone batch are those after the batch before it."""
    task, seen = Spoilt(3), list[dict[str, torch.Tensor]]()

    def look() -> float:
        seen.append({name: tensor.clone() for name, tensor in task.module.state_dict().items()})
        return float(len(seen))

    task.validate = look  # type: ignore[method-assign]
    train(task, TrainingPlan(updates=4, check_every=1))
    assert task.at == 25
    first, second, third, fourth = seen[1:5]
    assert all(torch.equal(second[name], third[name]) for name in second)
    assert not any(torch.equal(first[name], second[name]) for name in second)
    assert not any(torch.equal(third[name], fourth[name]) for name in third)


def test_three_updates_in_a_row_that_are_not_finite_end_it_with_the_best_weights() -> None:
    task, events = Spoilt(4, 6, 7, 8), list[Event]()
    with pytest.raises(TrainingError) as caught:
        train(task, TrainingPlan(learning_rate=0.02, check_every=2), [events.append])
    assert str(caught.value) == (
        "After 4 updates the training loss is nan and the norm of its gradient nan, three times in a row, but it must "
        "be finite. Lower the learning rate (now 0.02) or the clipping norm (now 1), or look for extreme values in the "
        "data."
    )
    best = min(event.validation for event in events if isinstance(event, Checked))
    task.module.eval()
    with torch.no_grad():
        assert task.validate() == best


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
