"""Steps of one learner in one process, with their speed and the process's memory: what `make endurance` runs.

python tests/online/endurance.py 10000000 min_gru 0
"""

import random
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tidegate.online import OnlineLearner


def resident() -> float:
    """This process's memory in MB, as the kernel of Linux counts it."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def stream() -> Iterator[tuple[dict[str, float], float | None, int]]:
    """For ever: more keys than are kept, labels that are missing, a level that wanders."""
    rng, level, last = random.Random(0), 0.0, 0.0
    for t in count():
        level += rng.gauss(0, 0.01)
        x = {"a": level + rng.gauss(0, 1), "b": rng.gauss(0, 1)}
        yield x, None if t % 10 == 9 else level + 0.5 * last + rng.gauss(0, 0.1), t % 7 if t % 3 else t % 97
        last = x["a"]


def lines(steps: int, every: int, cell: str = "gru", delay: int = 1) -> Iterator[tuple[int, float, OnlineLearner]]:
    """After every so many steps: how many there were, the memory, and the learner; one step in ten is predicted."""
    learner = OnlineLearner(cell, hidden_size=8, delay=delay, max_keys=16)
    for n, (x, y, key) in zip(range(1, steps + 1), stream(), strict=False):
        if n % 10 == 0:
            learner.predict_one(x, key)
        learner.learn_one(x, y, key)
        if n % every == 0:
            yield n, resident(), learner


def main(steps: int, cell: str = "gru", delay: int = 1) -> None:
    """Print a line for each hundredth of the way, at most a million steps long."""
    every, began = min(max(steps // 100, 1), 1_000_000), time.monotonic()
    for n, memory, learner in lines(steps, every, cell, delay):
        speed = n / (time.monotonic() - began)
        told = f"{learner.drifts} alarms, {learner.refused} refused"
        print(f"{n} steps, {speed:.0f} a second, {memory:.1f} MB, {told}", flush=True)  # noqa: T201 - a program of its own


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
