"""Streams as in 2000: when a training stream ends, when the rate decays, and what is perfect."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reproductions import continual_reber_2000 as streams
from reproductions.continual_reber_2000 import Settings
from reproductions.experiment import Outcome
from reproductions.reber import SYMBOLS, embedded
from tidegate.nn import State


def run(settings: Settings, seed: int = 3) -> Outcome:
    torch.manual_seed(seed)
    return streams.run(settings, seed, None)


def test_a_string_goes_on_to_the_next() -> None:
    symbols, legal = streams.string(np.random.default_rng(4))
    walk = embedded(np.random.default_rng(4))
    assert [SYMBOLS[k] for k in symbols[:, 0]] == [*walk.text, "B"]
    assert (legal[:-1] == walk.legal).all()
    assert [SYMBOLS[k] for k in np.flatnonzero(legal[-1])] == ["B"]


@pytest.mark.parametrize("forgets", [True, False])
def test_the_same_twice(forgets: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "EACH", 10)
    first = run(Settings(forgets, limit=30))
    assert run(Settings(forgets, limit=30)) == first
    assert first.solved is False
    assert first.curve == ((10.0, 1.0), (20.0, 1.0), (30.0, 1.0))


def test_a_stream_ends_with_an_error(monkeypatch: Any) -> None:
    """Three right answers and a wrong one, again and again: the state starts afresh, the rate decays."""
    answers, given, rates = iter([True, True, True, False] * 10), [], []
    monkeypatch.setattr(streams, "right", lambda nets, legal: np.array([next(answers)]))
    monkeypatch.setattr(streams, "perfect", lambda *_: False)
    monkeypatch.setattr(streams, "EACH", 20)
    monkeypatch.setattr(streams, "PERIOD", 2)
    usual, descend = streams.LogisticNet.forward, streams.Descent.__call__

    def forward(self: Any, x: Tensor, state: State | None = None) -> Any:
        given.append(state is None)
        return usual(self, x, state)

    def down(self: Any, loss: Tensor) -> None:
        rates.append(self.rate)
        descend(self, loss)

    monkeypatch.setattr(streams.LogisticNet, "forward", forward)
    monkeypatch.setattr(streams.Descent, "__call__", down)
    outcome = run(Settings(True, decay=0.5, limit=40))
    assert given == [True, False, False, False] * 10
    assert rates == [0.5 * 0.5 ** (k // 8) for k in range(40)]
    assert outcome.curve == ((20.0, 4.0), (40.0, 4.0))


def test_perfect_is_without_an_error_to_the_end(monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "TEST_STEPS", 3000)
    seen: list[tuple[int, ...]] = []

    def judge(wrong_at: int) -> bool:
        def right(nets: np.ndarray, legal: np.ndarray) -> np.ndarray:
            seen.append(nets.shape)
            return np.array(len(seen) != wrong_at)

        seen.clear()
        monkeypatch.setattr(streams, "right", right)
        return streams.perfect(streams.made(Settings(True)), np.random.default_rng(1))

    assert judge(wrong_at=99)
    assert seen == [(1000, 10, 7)] * 3
    assert not judge(wrong_at=2)
    assert len(seen) == 2
