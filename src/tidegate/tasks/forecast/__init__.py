"""Forecasts of series: quantiles for the next steps, judged on a part of the series that training never saw."""

from tidegate.tasks.forecast.estimator import Forecaster
from tidegate.tasks.forecast.judging.evaluation import Evaluation
from tidegate.tasks.forecast.result import Forecast

__all__ = ["Evaluation", "Forecast", "Forecaster"]
