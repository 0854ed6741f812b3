"""Each experiment from end to end, small: the same twice, unsolved at its limit, solved where the criterion is mild."""

from typing import Any

import pytest
import torch

from reproductions import adding, continual_reber, copy_memory, distractors, embedded_reber
from reproductions.experiment import Outcome

SMALL: list[Any] = [
    (embedded_reber, embedded_reber.Settings(limit=40, every=20)),
    (embedded_reber, embedded_reber.Settings(hidden=8, rate=0.01, modern=True, limit=40, every=20)),
    (adding, adding.Settings(20, 30)),
    (adding, adding.Settings(20, 30, linear=False, rate=1.0)),
    (adding, adding.Settings(20, 30, tanh=True)),
    (distractors, distractors.Settings(6, 30)),
    (continual_reber, continual_reber.Settings(True, chunks=4, steps=20)),
    (continual_reber, continual_reber.Settings(False, chunks=4, steps=20)),
    (copy_memory, copy_memory.Settings(True, lag=12, batches=50, rows=3, hidden=8)),
    (copy_memory, copy_memory.Settings(False, lag=12, batches=50, rows=3, hidden=8)),
]


def run(module: Any, settings: Any, seed: int = 3) -> Outcome:
    torch.manual_seed(seed)
    outcome: Outcome = module.run(settings, seed, None)
    return outcome


@pytest.mark.parametrize(("module", "settings"), SMALL)
def test_a_seed_gives_the_same_twice_and_another_something_else(module: Any, settings: Any, monkeypatch: Any) -> None:
    for name, value in (("EACH", 10), ("TESTED", 2), ("RECENT", 10)):
        monkeypatch.setattr(module, name, value, raising=False)
    first = run(module, settings)
    assert run(module, settings) == first
    assert first.solved in (False, None)
    if first.curve and module is not embedded_reber:
        assert run(module, settings, 4).curve != first.curve


def test_the_embedded_grammar_learns_and_is_solved_when_all_strings_are_right(monkeypatch: Any) -> None:
    shares = iter((0.2, 0.9, 1.0))
    monkeypatch.setattr(embedded_reber.Judge, "__call__", lambda self, net: next(shares))
    outcome = run(embedded_reber, embedded_reber.Settings(limit=100, every=20))
    assert outcome == Outcome(60, True, ((20.0, 0.2), (40.0, 0.9), (60.0, 1.0)))


def test_a_solved_adding_problem(monkeypatch: Any) -> None:
    for name, value in (("RECENT", 20), ("TOLERANCE", 1.1), ("MEAN", 1.1)):
        monkeypatch.setattr(adding, name, value)
    outcome = run(adding, adding.Settings(20, 100))
    assert (outcome.figure, outcome.solved) == (20, True)
    monkeypatch.setattr(adding, "MEAN", 1e-6)
    assert run(adding, adding.Settings(20, 100)).figure is None


def test_solved_distractors(monkeypatch: Any) -> None:
    for name, value in (("STREAK", 10), ("PAUSE", 5), ("TOLERANCE", 1.0), ("TESTS", 40), ("AT_ONCE", 20)):
        monkeypatch.setattr(distractors, name, value)
    assert run(distractors, distractors.Settings(6, 100)).figure == 10
    answers = iter((False, True))
    monkeypatch.setattr(distractors, "passes", lambda *_: next(answers))
    assert run(distractors, distractors.Settings(6, 100)).figure == 15


def test_distractors_fail_by_one_sequence(monkeypatch: Any) -> None:
    net = distractors.made(distractors.Settings(6, 1))
    batch = [distractors.sequence(distractors.np.random.default_rng(1), 6)] * 3
    wanted = distractors.TARGETS[[first for _, first in batch]]
    answers = wanted.clone()
    monkeypatch.setattr(net, "at_end", lambda x, lengths: answers)
    assert distractors._batch_passes(net, batch)
    answers[2, 0] += 0.21
    assert not distractors._batch_passes(net, batch)


def test_copy_memory_is_solved_below_its_limit(monkeypatch: Any) -> None:
    monkeypatch.setattr(copy_memory, "SOLVED", 10.0)
    assert run(copy_memory, copy_memory.Settings(True, lag=12, batches=50, rows=3, hidden=8)).solved is True
