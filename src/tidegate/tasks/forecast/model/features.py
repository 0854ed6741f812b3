"""What the net reads of a scaled series, computed step by step: the same numbers however a series is cut."""

import math
from dataclasses import astuple, dataclass

import numpy as np

SLOW_SEASONS = 4  # seasons over which the slow level forgets
_FASTEST_SLOW = 0.1


@dataclass
class SeriesMemory:
    """What the features of a step need of all steps before it.

    `count` steps were seen; `first` and `last` are the first value and the last known one, `level` is the value of
    simple exponential smoothing, `slow` that of a slower one, `total` and `moment` are the sums of z and of t z, t
    counted from 0.
    """

    count: int = 0
    first: float = 0.0
    last: float = 0.0
    level: float = 0.0
    slow: float = 0.0
    total: float = 0.0
    moment: float = 0.0

    def to_numbers(self) -> list[float]:
        """The memory as seven numbers."""
        return [float(number) for number in astuple(self)]

    @classmethod
    def from_numbers(cls, numbers: list[float]) -> "SeriesMemory":
        """The memory that `to_numbers` wrote."""
        return cls(int(numbers[0]), *numbers[1:])


@dataclass(frozen=True)
class Levels:
    """For each step of a series `[N]`: the value with gaps filled by the last known one, and summaries of the past.

    `mean` is that of all steps so far, `trend` the gradient of the straight line through them, `drift` the mean change
    a step, `level` and `slow` are exponentially smoothed, `correction` is what the Theta method adds to the level for
    half the trend (Assimakopoulos & Nikolopoulos 2000, doi:10.1016/S0169-2070(00)00066-2, as in Hyndman & Billah 2003),
    `age` counts the steps so far.
    """

    filled: np.ndarray
    level: np.ndarray
    slow: np.ndarray
    mean: np.ndarray
    trend: np.ndarray
    drift: np.ndarray
    correction: np.ndarray
    age: np.ndarray


def run_memory(scaled: np.ndarray, memory: SeriesMemory, alpha: float, season: int) -> Levels:
    """The levels at each step of `scaled [N]`; `memory` holds the steps before them and is moved on past them.

    A missing value counts as the last known one; at the start of a series the first must be known.
    """
    slow_rate = min(_FASTEST_SLOW, 2.0 / (SLOW_SEASONS * season + 1))
    out = np.empty((len(scaled), 8))
    m, forget = memory, 1.0 - alpha
    for row, value in enumerate(scaled.tolist()):
        if math.isnan(value):
            value = m.last
        if m.count == 0:
            m.first = m.level = m.slow = value
        m.level += alpha * (value - m.level)
        m.slow += slow_rate * (value - m.slow)
        m.total += value
        m.moment += m.count * value
        m.count += 1
        m.last = value
        n = m.count
        mean = m.total / n
        trend = 12 * (m.moment - (n - 1) / 2 * m.total) / (n * (n * n - 1.0)) if n > 1 else 0.0
        drift = (value - m.first) / (n - 1) if n > 1 else 0.0
        correction = (1 - forget ** min(n, 1000)) / alpha - 1
        out[row] = value, m.level, m.slow, mean, trend, drift, correction, n
    return Levels(*out.T)
