"""Streams that several tests learn."""

import math
import random
from collections.abc import Iterator

X = dict[str, float]


def waves(steps: int, seed: int = 0) -> Iterator[tuple[X, float]]:
    """A sine with noise beside it; the target is the sine some steps on, which only one who remembers can tell."""
    rng = random.Random(seed)
    for t in range(steps):
        yield {"a": math.sin(t / 5) + rng.gauss(0, 0.1), "b": rng.gauss(3, 2)}, 5 + 10 * math.sin((t + 3) / 5)


def colours(steps: int, seed: int = 0) -> Iterator[tuple[X, str]]:
    """The label is what the input was a step ago."""
    rng, before = random.Random(seed), "red"
    for _ in range(steps):
        now = rng.choice(["red", "green", "blue"])
        yield {c: float(c == now) for c in ("red", "green", "blue")}, before
        before = now
