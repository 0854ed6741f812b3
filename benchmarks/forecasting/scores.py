"""Which origins are judged, and how forecasts at them are scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp, gcd, isfinite, log

import numpy as np

from tidegate.metrics import coverage, quantile_score

OURS, SEASONAL_NAIVE = "Tidegate", "seasonal naive"
HELD_OUT = 0.2  # the share of a series, at its end, that no forecaster is fitted to


def held_out_start(length: int, horizon: int) -> int:
    """The first place of the held-out part: a fifth of the series, at least two horizons."""
    return length - max(round(HELD_OUT * length), 2 * horizon)


def chosen_origins(values: np.ndarray, horizon: int, season: int, most: int) -> np.ndarray:
    """Origins of the held-out part with a whole horizon after them: all, or `most` of them, equally far apart.

    The distance has no divisor in common with the season, so that the origins are spread over its steps. An origin
    whose value is missing is omitted.
    """
    first, last = held_out_start(len(values), horizon) - 1, len(values) - 1 - horizon
    step = max(1, (last - first) // max(1, most - 1))
    while step > 1 and gcd(step, season) > 1:
        step -= 1
    origins = np.arange(last, first - 1, -step)[:most][::-1]
    return origins[np.isfinite(values[origins])]


@dataclass(frozen=True)
class Judged:
    """Forecasts of one series: `truth [N, K]`, each method's quantiles `[N, K, Q]`, NaN at origins it has none for.

    `scale` is the mean absolute difference of neighbouring seasons before the held-out part.
    """

    levels: tuple[float, ...]
    scale: float
    truth: np.ndarray
    methods: Mapping[str, np.ndarray]

    def origins(self, method: str) -> int:
        """The number of origins that a method has forecasts for."""
        return int(self._has(method).sum())

    def loss(self, method: str, beside: str | None = None) -> float:
        """The scaled quantile loss: twice the pinball loss over `scale`, averaged over levels, horizons and origins.

        With `beside`, over the origins that the other method has too. NaN where there are none.
        """
        where = self._has(method) & self._has(beside or method)
        losses = quantile_score(self.truth[where], self.methods[method][where], self.levels)
        return mean_known(losses.ravel()) / self.scale

    def ratio(self, method: str, beside: str) -> float:
        """A method's loss over another's, over the origins that both have; below 1 the first is better."""
        return self.loss(method, beside) / self.loss(beside, method)

    def coverage(self, method: str, interval: float) -> float:
        """The share of truths within the central interval of this nominal coverage."""
        where = self._has(method)
        low, high = (level_index(self.levels, 0.5 + side * interval / 2) for side in (-1, 1))
        quantiles = self.methods[method][where]
        return coverage(self.truth[where], quantiles[..., low], quantiles[..., high])

    def _has(self, method: str) -> np.ndarray:
        found: np.ndarray = np.isfinite(self.methods[method]).all(axis=(1, 2))
        return found


def level_index(levels: tuple[float, ...], level: float) -> int:
    """The place of a level among the levels."""
    return int(np.abs(np.array(levels) - level).argmin())


def mean_known(values: Iterable[float]) -> float:
    """The mean of what is finite; NaN where nothing is."""
    known = [float(value) for value in values if isfinite(value)]
    return sum(known) / len(known) if known else float("nan")


def geometric_mean(ratios: Iterable[float]) -> float:
    """The geometric mean of what is finite; NaN where nothing is."""
    return exp(mean_known(log(ratio) for ratio in ratios if isfinite(ratio)))


def filled(values: np.ndarray, season: int) -> np.ndarray:
    """The values for peers, which take no gaps: a missing one is that of the season before, or else the last known."""
    found = values.copy()
    for place in np.flatnonzero(np.isnan(found)):
        before = found[place - season] if place >= season else np.nan
        found[place] = found[place - 1] if np.isnan(before) else before
    return found
