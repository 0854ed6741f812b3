"""Scores of forecasts. A truth of NaN is missing and is omitted from every mean; a mean over nothing is NaN."""

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

Numbers = TypeVar("Numbers", np.ndarray, Tensor)


def pinball(truth: Numbers, forecast: Numbers, levels: Numbers) -> Numbers:
    """The quantile loss of each forecast, for numpy and torch alike.

    `forecast` is `[..., Q]`, `levels` is `[Q]`, `truth` is `[..., 1]`. With d = truth - forecast the loss is q d above
    the forecast and (q - 1) d below it (Koenker & Bassett 1978, doi:10.2307/1913643).
    """
    miss = truth - forecast
    return levels * miss - (miss < 0) * miss


def quantile_score(truth: ArrayLike, forecast: ArrayLike, levels: ArrayLike) -> np.ndarray:
    """Twice the pinball loss, averaged over the levels: `[..., Q]` becomes `[...]`, in the units of the series.

    With levels spread evenly over 0 to 1 this approximates the continuous ranked probability score (Gneiting & Raftery
    2007, doi:10.1198/016214506000001437); for the median alone it is the absolute error.
    """
    truth, forecast = np.asarray(truth, float)[..., None], np.asarray(forecast, float)
    return 2 * pinball(truth, forecast, np.asarray(levels, float)).mean(-1)


def weighted_quantile_loss(truth: ArrayLike, forecast: ArrayLike, levels: ArrayLike) -> float:
    """The sum of the quantile scores over the sum of the absolute truths: 0 is perfect, and units cancel."""
    truth = np.asarray(truth, float)
    total = float(np.nansum(np.abs(truth)))
    return float(np.nansum(quantile_score(truth, forecast, levels))) / total if total > 0 else float("nan")


def mae(truth: ArrayLike, forecast: ArrayLike) -> float:
    """The mean absolute error."""
    return _mean(np.abs(np.asarray(truth, float) - np.asarray(forecast, float)))


def rmse(truth: ArrayLike, forecast: ArrayLike) -> float:
    """The root of the mean squared error."""
    return float(np.sqrt(_mean((np.asarray(truth, float) - np.asarray(forecast, float)) ** 2)))


def seasonal_scale(values: ArrayLike, season: int) -> float:
    """The mean absolute difference of a series to itself one season before, over the pairs that are both known."""
    values = np.asarray(values, float)
    return _mean(np.abs(values[season:] - values[:-season]))


def mase(truth: ArrayLike, forecast: ArrayLike, scale: ArrayLike) -> float:
    """The mean absolute scaled error (Hyndman & Koehler 2006, doi:10.1016/j.ijforecast.2006.03.001).

    `scale` is `seasonal_scale` of the series before the forecasts, one number or one for each row of `truth [N, ...]`.
    Below 1 the forecasts err less than the seasonal naive forecast did one step ahead on that part of the series.
    """
    errors = np.abs(np.asarray(truth, float) - np.asarray(forecast, float))
    scales = np.asarray(scale, float)
    return _mean(errors / scales.reshape(scales.shape + (1,) * (errors.ndim - scales.ndim)))


def smape(truth: ArrayLike, forecast: ArrayLike) -> float:
    """The symmetric mean absolute percentage error: the mean of 200 |x - f| / (|x| + |f|), from 0 to 200.

    The measure of the M3 competition (Makridakis & Hibon 2000, doi:10.1016/S0169-2070(00)00057-1), there without the
    absolute values, for positive series. A truth of zero that is forecast as zero counts as 0.
    """
    truth, forecast = np.asarray(truth, float), np.asarray(forecast, float)
    size = np.abs(truth) + np.abs(forecast)
    return _mean(200 * np.abs(truth - forecast) / np.where(size == 0, 1.0, size))


def coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """The share of truths within their interval, borders included."""
    truth = np.asarray(truth, float)
    inside = (truth >= np.asarray(low, float)) & (truth <= np.asarray(high, float))
    return _mean(np.where(np.isnan(truth), np.nan, inside))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
