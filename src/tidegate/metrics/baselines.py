"""Forecasts that any model must beat. Each sees a series up to its origins and nothing after them.

An origin t is the place of the last value that is known; the forecasts are those of t + 1 ... t + K.
"""

from collections.abc import Callable

import numpy as np

Baseline = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def last_known(values: np.ndarray) -> np.ndarray:
    """The series with each missing value replaced by the last known one before it; the first must be known."""
    places = np.where(np.isnan(values), 0, np.arange(len(values)))
    return values[np.maximum.accumulate(places)]


def naive(values: np.ndarray, origins: np.ndarray, horizon: int) -> np.ndarray:
    """The last known value, at every horizon: `[N, K]`."""
    return np.repeat(last_known(values)[origins][:, None], horizon, axis=1)


def seasonal_naive(season: int) -> Baseline:
    """The value one season before; beyond a season ahead, the last season again. Origins are at least season - 1."""

    def forecast(values: np.ndarray, origins: np.ndarray, horizon: int) -> np.ndarray:
        return last_known(values)[origins[:, None] + seasonal_offsets(horizon, season)]

    return forecast


def seasonal_offsets(horizon: int, season: int) -> np.ndarray:
    """Where the seasonal naive forecast of t + 1 ... t + K is found, counted from t: `[K]`, none above zero."""
    steps = np.arange(1, horizon + 1)
    return steps - season * -(-steps // season)


def with_drift(before: np.ndarray, season: int) -> Baseline:
    """The seasonal naive forecast moved by the series' mean change a season, which is found in the part `before`.

    With a season of 1 this is the drift method: the last value, moved by the mean change a step.
    """
    plain = seasonal_naive(season)
    changes = before[season:] - before[:-season]
    change = float(np.nanmean(changes)) if np.isfinite(changes).any() else 0.0

    def forecast(values: np.ndarray, origins: np.ndarray, horizon: int) -> np.ndarray:
        seasons_ahead = -(-np.arange(1, horizon + 1) // season)
        return plain(values, origins, horizon) + change * seasons_ahead

    return forecast


def climatology(before: np.ndarray, season: int) -> Baseline:
    """The mean of the part `before` at the same place of the season, or where a place has no value, of all of it.

    Places are counted from the first value of the series, which must also be the first of `before`.
    """
    phase = np.arange(len(before)) % season
    mean = float(np.nanmean(before))
    means = np.array([_mean_or(before[phase == place], mean) for place in range(season)])

    def forecast(values: np.ndarray, origins: np.ndarray, horizon: int) -> np.ndarray:
        return means[(origins[:, None] + np.arange(1, horizon + 1)) % season]

    return forecast


def _mean_or(values: np.ndarray, fallback: float) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else fallback


def residual_quantiles(
    baseline: Baseline, values: np.ndarray, first: int, stop: int, horizon: int, levels: np.ndarray
) -> np.ndarray:
    """Quantiles `[K, Q]` of what the baseline missed by at each horizon, over origins from `first` on.

    Only values before `stop` are looked at, as truth and as past alike. They are moved so that the median is zero: the
    median of a baseline's forecast is the baseline. Where a horizon has no residual, the widest quantiles are used.
    """
    seen = values[:stop]
    origins = np.arange(first, stop - 1)
    targets = origins[:, None] + np.arange(1, horizon + 1)
    truth = np.where(targets < stop, seen[np.minimum(targets, stop - 1)], np.nan)
    missed = truth - baseline(seen, origins, horizon)
    known = ~np.isnan(missed).all(axis=0)
    quantiles = np.zeros((horizon, len(levels)))
    quantiles[known] = np.nanquantile(missed[:, known] - np.nanmedian(missed[:, known], axis=0), levels, axis=0).T
    widest = int(np.ptp(quantiles, axis=1).argmax())
    quantiles[~known] = quantiles[widest]
    return quantiles
