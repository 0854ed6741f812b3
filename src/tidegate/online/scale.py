"""Mean and variance of numbers as they come."""

from __future__ import annotations

import math
from typing import NamedTuple

FAR = 10.0  # deviations; one broken reading must not drive a net out of its range
LARGEST = 1e100  # of what can be squared and averaged without end


class RunningScale(NamedTuple):
    """What was seen of one number. It never changes: `seen` gives a new one.

    `weight` is the number of values, up to a window. Until then mean and population variance are those of all values,
    by Welford 1962, doi:10.1080/00401706.1962.10490022; from there on each value counts for 1 / window and older ones
    fade away, so that a stream may change its level and go on for ever.
    """

    weight: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def seen(self, value: float, window: int) -> RunningScale:
        """With one value more."""
        weight, mean, variance = self
        weight = min(weight + 1.0, float(window))
        step = value - mean
        mean += step / weight
        return RunningScale(weight, mean, variance + (step * (value - mean) - variance) / weight)

    def scaled(self, value: float) -> float:
        """In deviations from the mean, at most ten; 0 where nothing varies."""
        if self.variance <= 0.0:
            return 0.0
        return min(max((value - self.mean) / math.sqrt(self.variance), -FAR), FAR)

    def unscaled(self, value: float) -> float:
        """Back in units."""
        return self.mean + value * math.sqrt(max(self.variance, 0.0))
