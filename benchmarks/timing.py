"""Times taken in turn, A B A B: on a shared machine a ratio within one run means something, a time alone does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Elsewhere:
    """A call in another process, which takes its own time: `seconds(count)` makes `count` calls and times one."""

    seconds: Callable[[int], float]

    def __call__(self) -> None:
        """Call it once."""
        self.seconds(1)


Call = Callable[[], Any]

NOISE = 1.5
IDLE = 0.2  # the share of a processor below which a process does nothing
MOST_PAUSES = 100


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the median, the least and the most of so many samples."""

    median: float
    least: float
    most: float
    samples: int

    @property
    def noisy(self) -> bool:
        """Half of the samples took far longer than the least: something else was running."""
        return self.median > NOISE * self.least

    def scaled(self, factor: float) -> Timing:
        """The same for a call of another length."""
        return Timing(self.median * factor, self.least * factor, self.most * factor, self.samples)


def of_samples(seconds: Sequence[float]) -> Timing:
    """What is kept of samples."""
    return Timing(median(seconds), min(seconds), max(seconds), len(seconds))


@dataclass(frozen=True)
class Effort:
    """How long to measure: `seconds` for each call, and `rounds` at least.

    Short calls are repeated until a sample lasts `block` seconds. Before each sample there are `pause` seconds in which
    this process does nothing: threads that still spin for one contestant would take the next one's processor.
    """

    seconds: float
    rounds: int
    block: float = 0.005
    pause: float = 0.002


FULL, QUICK = Effort(0.4, 5), Effort(0.03, 3)


def in_turn(calls: Sequence[Call], effort: Effort) -> list[Timing]:
    """The time of each call, sampled in turn after a warm-up."""
    repeats = [_repeats(call, effort.block) for call in calls]
    samples: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + effort.seconds * len(calls)
    while len(samples[-1]) < effort.rounds or time.perf_counter() < end:
        for taken, call, count in zip(samples, calls, repeats, strict=True):
            settle(effort.pause)
            taken.append(_sample(call, count))
    return [of_samples(taken) for taken in samples]


def settle(pause: float = Effort.pause) -> None:
    """Wait until no thread of this process is busy, for a while at most."""
    for _ in range(MOST_PAUSES):
        used = time.process_time()
        time.sleep(pause)
        if time.process_time() - used <= IDLE * pause:
            return


def _repeats(call: Call, block: float) -> int:
    """How many calls make a sample; the calls that find out are the warm-up."""
    _sample(call, 1)
    return max(1, ceil(block / max(_sample(call, 1), 1e-7)))


def _sample(call: Call, count: int) -> float:
    return call.seconds(count) if isinstance(call, Elsewhere) else seconds(call, count)


def seconds(call: Call, count: int) -> float:
    """Seconds of a call, of `count` in this process."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count
