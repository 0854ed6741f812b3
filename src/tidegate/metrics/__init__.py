"""Scores of forecasts, the baselines they are judged beside, and a test of whether a difference is more than noise."""

from tidegate.metrics.baselines import Baseline, naive, residual_quantiles, seasonal_naive, with_drift
from tidegate.metrics.paired import FEWEST_BLOCKS, Comparison, compare
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
    "FEWEST_BLOCKS",
    "Baseline",
    "Comparison",
    "compare",
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
