"""Scores of forecasts, the baselines they are judged beside, and a test of whether a difference is more than noise."""

from tidegate.metrics.baselines import Baseline, climatology, naive, residual_quantiles, seasonal_naive, with_drift
from tidegate.metrics.paired import Comparison, compare, compare_series
from tidegate.metrics.scores import (
    coverage,
    mae,
    mase,
    pinball,
    quantile_score,
    rmse,
    seasonal_scale,
    smape,
    weighted_quantile_loss,
)

__all__ = [
    "Baseline",
    "Comparison",
    "climatology",
    "compare",
    "compare_series",
    "coverage",
    "mae",
    "mase",
    "naive",
    "pinball",
    "quantile_score",
    "residual_quantiles",
    "rmse",
    "seasonal_naive",
    "seasonal_scale",
    "smape",
    "weighted_quantile_loss",
    "with_drift",
]
