"""The baselines of a series, with quantiles from their own errors."""

import numpy as np

from tidegate.metrics import Baseline, climatology, naive, residual_quantiles, seasonal_naive, with_drift

_MOST_RESIDUALS = 10_000  # of the latest steps


def baselines(before: np.ndarray, season: int) -> dict[str, Baseline]:
    """The baselines by name; drift and climatology are found in the part `before`, whose first step has phase 0."""
    if season == 1:
        return {"naive": naive, "drift": with_drift(before, 1), "climatology": climatology(before, 1)}
    return {
        "naive": naive,
        "drift": with_drift(before, 1),
        "seasonal naive": seasonal_naive(season),
        "seasonal naive with drift": with_drift(before, season),
        "climatology": climatology(before, season),
    }


def baseline_quantiles(
    baseline: Baseline, values: np.ndarray, stop: int, origins: np.ndarray, horizon: int, levels: np.ndarray, first: int
) -> np.ndarray:
    """Quantiles `[N, K, Q]` of a baseline at these origins, with its errors before `stop` from origin `first` on."""
    begin = max(first, stop - _MOST_RESIDUALS)
    missed = residual_quantiles(baseline, values, begin, stop, horizon, levels)
    return baseline(values, origins, horizon)[..., None] + missed
