"""Running mean and variance."""

from __future__ import annotations

import math
from typing import NamedTuple

FAR = 10.0  # deviations; one broken reading must not drive a net out of its range
LARGEST = 1e100  # of what can be squared and averaged without end


class RunningScale(NamedTuple):
    """Mean and variance of a stream of numbers, immutable: `seen` returns a new one.

    `weight` is the number of values, up to a window. Until then mean and population variance are those of all values,
    by Welford 1962, doi:10.1080/00401706.1962.10490022; from there on each value counts for 1 / window and older ones
    fade away, so that a stream may change its level and go on for ever.
    """

    weight: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def seen(self, value: float, window: int) -> RunningScale:
        """The scale after one more value."""
        weight, mean, variance = self
        weight = min(weight + 1.0, float(window))
        step = value - mean
        mean += step / weight
        return RunningScale(weight, mean, variance + (step * (value - mean) - variance) / weight)

    def scaled(self, value: float) -> float:
        """The value in standard deviations from the mean, at most ten; 0 if nothing varies."""
        if self.variance <= 0.0:
            return 0.0
        return min(max((value - self.mean) / math.sqrt(self.variance), -FAR), FAR)

    def unscaled(self, value: float) -> float:
        """The inverse of `scaled`, without its limit."""
        return self.mean + value * math.sqrt(max(self.variance, 0.0))
