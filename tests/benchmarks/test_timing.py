"""Times in turn. No time is looked at: only who was called, how often and in which order."""

import pytest

from benchmarks import limits, timing
from benchmarks.timing import Effort, Elsewhere, in_turn, of_samples


def test_calls_take_turns_after_a_warm_up() -> None:
    order: list[str] = []
    taken = in_turn([lambda: order.append("a"), lambda: order.append("b")], Effort(0.0, 3, block=0.0, pause=0.0))
    assert "".join(order) == "aabb" + "ababab"
    assert [t.samples for t in taken] == [3, 3]


def test_short_calls_are_repeated_until_a_sample_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    calls: list[int] = []
    (taken,) = in_turn([lambda: calls.append(1)], Effort(0.0, 2, block=2.5, pause=0.0))
    assert len(calls) == 2 + 2 * 3  # one tick a warm-up call, so that three of them fill a block
    assert taken.median == pytest.approx(1 / 3)


def test_a_sample_begins_when_no_thread_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([0.0, 2.0, 2.0, 2.9, 2.9, 2.9])  # seconds of the processor, before and after each pause
    pauses: list[float] = []
    monkeypatch.setattr(timing.time, "process_time", lambda: next(used))
    monkeypatch.setattr(timing.time, "sleep", pauses.append)
    in_turn([lambda: len(pauses)], Effort(0.0, 1, block=0.0, pause=1.0))
    assert pauses == [1.0, 1.0, 1.0]


def test_a_process_that_is_always_busy_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter(range(10**6))
    pauses: list[float] = []
    monkeypatch.setattr(timing.time, "process_time", lambda: next(used))
    monkeypatch.setattr(timing.time, "sleep", pauses.append)
    in_turn([lambda: None], Effort(0.0, 1, block=0.0, pause=0.1))
    assert len(pauses) == timing.MOST_PAUSES


def test_what_is_kept_of_samples() -> None:
    found = of_samples([3.0, 1.0, 2.0, 10.0])
    assert (found.median, found.least, found.most, found.samples) == (2.5, 1.0, 10.0, 4)
    assert found.scaled(2.0) == of_samples([6.0, 2.0, 4.0, 20.0])


def test_limits_are_measured() -> None:
    assert limits.compute(cube=16) > 0
    assert limits.bandwidth(1000, read=100_000) > 0


def test_a_call_in_another_process_takes_its_own_time() -> None:
    asked: list[int] = []

    def seconds(count: int) -> float:
        asked.append(count)
        return 0.25

    own: list[str] = []
    theirs, _ = in_turn([Elsewhere(seconds), lambda: own.append("")], Effort(0.0, 3, block=1.0, pause=0.0))
    assert asked == [1, 1, 4, 4, 4]  # two to find out how many make a block
    assert theirs == of_samples([0.25] * 3)
