"""A run that is killed and resumed ends with the bits of one that was never interrupted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tidegate.errors import ArgumentError, ModelFileError
from tidegate.gradients import BPTT, RTRL, UORO, Rule, SnAp, TruncatedBPTT
from tidegate.training import Checked, Event, Finished, Started, TrainingPlan, train
from tidegate.training.checkpoint import load_checkpoint, save_checkpoint
from training_cases import Follow, Stream, bits, numbers, timeless

EARLY = TrainingPlan(learning_rate=0.03, check_every=4, patience=2, cuts=1, updates=60)


class KilledError(BaseException):
    """Raised where a process is killed: nothing in the loop may catch it."""


def killed_at(task: Any, draws: int) -> Any:
    """The task, which is killed when a batch is drawn for the last time."""
    draw, left = task.draw, iter(range(draws))

    def counted(generator: torch.Generator) -> Any:
        if next(left, None) is None:
            raise KilledError
        return draw(generator)

    task.draw = counted
    return task


def resumed(make: Callable[[], Any], plan: TrainingPlan, path: Path, lives: list[int]) -> tuple[Any, Any]:
    """The task and history of a run that is killed after each number of batches."""
    for life in lives:
        with pytest.raises(KilledError):
            train(killed_at(make(), life), plan, checkpoint=path, resume=True)
    task = make()
    return task, train(task, plan, checkpoint=path, resume=True)


CASES: list[tuple[Callable[[], Any], Rule]] = [
    (Stream, BPTT()),
    (Stream, TruncatedBPTT(2, 4)),
    (Follow, BPTT(checkpoint=2)),
    (Follow, RTRL()),
    (Follow, SnAp(n=1, every=2)),
    (Follow, UORO(every=3)),
]


@pytest.mark.parametrize(("make", "rule"), CASES, ids=lambda case: str(getattr(case, "__name__", case)))
@pytest.mark.parametrize(
    "plan",
    [
        EARLY,
        replace(EARLY, schedule="cosine", accumulate=2),
        replace(EARLY, save_every=0.0),
        replace(EARLY, validated=False),
    ],
    ids=["early stopping", "cosine, accumulated", "saved at each batch", "not validated"],
)
def test_killed_runs_end_with_the_bits_of_an_uninterrupted_one(
    make: Callable[[], Any], rule: Rule, plan: TrainingPlan, tmp_path: Path
) -> None:
    plan = replace(plan, rule=rule)
    whole = make()
    history = train(whole, plan, checkpoint=tmp_path / "whole")
    lives = torch.randint(1, 7, (4,), generator=torch.Generator().manual_seed(5)).tolist()
    task, again = resumed(make, plan, tmp_path / "killed", lives)
    assert numbers(again) == numbers(history)
    assert len(history.checks) > 3 or not plan.validated
    assert timeless(again.finished) == timeless(history.finished)
    assert bits(dict(task.module.state_dict())) == bits(dict(whole.module.state_dict()))
    saved = [load_checkpoint(tmp_path / name) for name in ("whole", "killed")]
    assert bits(saved[0]) == bits(saved[1])


def test_a_checkpoint_holds_what_the_next_update_reads(tmp_path: Path) -> None:
    """Each part matters: with any of them spoilt, the resumed run ends with other weights."""
    path, plan = tmp_path / "run", replace(EARLY, rule=TruncatedBPTT(2, 4))
    whole = Stream()
    train(whole, plan)
    expected = bits(dict(whole.module.state_dict()))
    for part, name in [("", "batches"), ("", "torch"), ("task", "at"), ("moments", "0"), ("weights", "head.bias")]:
        path.unlink(missing_ok=True)
        with pytest.raises(KilledError):
            train(killed_at(Stream(), 9), plan, checkpoint=path)
        state = load_checkpoint(path)
        assert state is not None
        learned = state["updater"]
        own = learned["ranks"][0]
        places = {"batches": learned, "torch": own, "at": own["task"]}
        spoil(places.get(name) or learned[part], name)
        save_checkpoint(path, state)
        task = Stream()
        train(task, plan, checkpoint=path, resume=True)
        assert bits(dict(task.module.state_dict())) != expected, (part, name)


def spoil(part: dict[str, Any], name: str) -> None:
    if name == "at":
        part[name] += 5
    elif name == "0":
        part[name]["exp_avg"] += 0.1
    elif part[name].dtype == torch.uint8:
        part[name] = torch.Generator().manual_seed(99).get_state()
    else:
        part[name] += 0.1


def test_the_clock_of_the_budget_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that shows one second more at each look: the resumed run has what is left of the budget."""
    now = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    plan, path = TrainingPlan(budget=400.0, check_every=2), tmp_path / "run"
    with pytest.raises(KilledError):
        train(killed_at(Follow(), 21), plan, checkpoint=path)
    state = load_checkpoint(path)
    assert state is not None
    spent = state["position"]["seconds"]
    events = list[Event]()
    history = train(Follow(), plan, [events.append], checkpoint=path, resume=True)
    assert 50 < spent < 300
    assert isinstance(events[0], Started)
    assert (events[0].seconds, events[0].update) == (spent, 20)
    assert 400 <= history.finished.seconds < 420
    assert [check.seconds for check in history.checks] == sorted(check.seconds for check in history.checks)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, second, events = Follow(), Follow(), list[Event]()
    history = train(first, EARLY, checkpoint=tmp_path / "run")
    second.draw = None  # type: ignore[assignment]
    assert train(second, EARLY, [events.append], checkpoint=tmp_path / "run", resume=True) == history
    assert events == []
    assert bits(dict(second.module.state_dict())) == bits(dict(first.module.state_dict()))


def test_ctrl_c_is_raised_where_a_checkpoint_can_be_resumed(tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Checked) and event.update == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Follow(), EARLY, [interrupt], checkpoint=tmp_path / "run")
    again = train(Follow(), EARLY, checkpoint=tmp_path / "run", resume=True)
    assert numbers(again) == numbers(train(Follow(), EARLY))
    assert isinstance(again.finished, Finished)


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    train(Follow(), EARLY, checkpoint=tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(ArgumentError, match=r"run exists already. Pass resume=True to continue from it, or remove it"):
        train(Follow(), EARLY, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == before


def test_another_plan_or_another_net(tmp_path: Path) -> None:
    train(Follow(), EARLY, checkpoint=tmp_path / "run")
    with pytest.raises(ArgumentError) as caught:
        train(Follow(), replace(EARLY, seed=3), checkpoint=tmp_path / "run", resume=True)
    assert str(caught.value) == (
        f"{tmp_path / 'run'} is of a run with seed=0, got seed=3: give the same options, or another file for a new run."
    )
    with pytest.raises(ModelFileError, match="run is damaged: its specification is incomplete or at odds: Error"):
        train(Stream(), EARLY, checkpoint=tmp_path / "run", resume=True)
