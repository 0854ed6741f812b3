"""What the machine can do at best, measured in the same run: multiply, and read weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.flops import Work
from benchmarks.rows import FORWARD
from benchmarks.shapes import Shape

_CUBE = 2048
_READ = 64_000_000  # bytes a sample, so that a call's own cost does not show
_SMALLEST = 16_384


@dataclass
class Limits:
    """Operations a second, and bytes a second by the size of what is read again and again."""

    flops: float
    reading: dict[int, float] = field(default_factory=dict)

    def again(self) -> None:
        """Multiply once more: what else runs on the machine can make the figure too low, and never too high."""
        self.flops = max(self.flops, compute())

    def reading_time(self, work: Work, shape: Shape, what: str) -> float | None:
        """Seconds to read the recurrent weights anew at each step, which only one row has to do."""
        size = work.weight_bytes(FORWARD)
        if shape.B > 1 or not size:
            return None
        self.reading[size] = max(self.reading.get(size, 0.0), bandwidth(size))
        return shape.T * work.weight_bytes(what) / self.reading[size]


def measured() -> Limits:
    """The limits as they are now; they grow as more is measured."""
    return Limits(compute())


def compute(cube: int = _CUBE) -> float:
    """Operations a second of a float32 `torch.mm` of this size, at its best."""
    a, b = torch.randn(cube, cube), torch.randn(cube, cube)
    return 2 * cube**3 / _best(lambda: torch.mm(a, b))


def bandwidth(size: int, read: int = _READ) -> float:
    """Bytes a second of all threads together, each reading its share of `size` bytes again and again.

    It is `torch.sum` that reads: close to the machine beyond its caches, a cautious figure inside them.
    """
    threads = torch.get_num_threads()
    numbers = max(size, _SMALLEST) // 4 // threads
    times = max(1, read // (4 * numbers * threads)) * threads
    rows = torch.randn(numbers).expand(times, numbers)  # the same memory in each row
    return times * numbers * 4 / _best(lambda: rows.sum(1))


def _best(call: Callable[[], object], tries: int = 4) -> float:
    call()
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
