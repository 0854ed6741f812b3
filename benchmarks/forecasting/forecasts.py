"""Forecasts of one series at several origins: ours, the seasonal naive ones, and the peers'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from benchmarks.forecasting.peers import HISTORY, LACKS, PATIENCE, PEERS, Answer, PeerCache, Request
from benchmarks.forecasting.scores import filled
from benchmarks.forecasting.setting import LEVELS
from tidegate.data import Panel
from tidegate.errors import TidegateError
from tidegate.metrics import residual_quantiles, seasonal_naive
from tidegate.tasks.forecast import Forecaster


def our_forecasts(
    forecaster: Forecaster, frame: pl.DataFrame, panel: Panel, origins: np.ndarray, ahead: int = 0
) -> np.ndarray:
    """Quantiles `[N, K, Q]` of a fitted forecaster, each after the rows up to an origin.

    It gets `ahead` rows more without their values, where other columns are known in advance.
    """
    found = []
    for origin in origins:
        after = panel.grid.times(np.array([panel.series[0].start + origin + 1]))[0]
        known = pl.when(pl.col("time") < after).then(pl.col("value"))
        forecast = forecaster.predict(rows_before(frame, panel, origin + 1 + ahead).with_columns(value=known))
        if forecast.times[0, 0] != after:
            raise TidegateError(f"a forecast begins at {forecast.times[0, 0]}, expected {after}")
        found.append(forecast.quantiles[0])
    return np.stack(found)


def rows_before(frame: pl.DataFrame, panel: Panel, place: int) -> pl.DataFrame:
    """The rows before a place of the series."""
    return frame.filter(pl.col("time") < panel.grid.times(np.array([panel.series[0].start + place]))[0])


def naive_forecasts(values: np.ndarray, before: int, origins: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Quantiles `[N, K, Q]` of the seasonal naive forecast, with those of its errors before the held-out part."""
    baseline = seasonal_naive(season)
    missed = residual_quantiles(baseline, values, season, before, horizon, np.array(LEVELS))
    return baseline(values, origins, horizon)[..., None] + missed


def peer_forecasts(
    cache: PeerCache, values: np.ndarray, horizon: int, season: int, origins: np.ndarray
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Each peer's quantiles `[N, K, Q]`, fitted to at most `HISTORY` rows before each origin, and what was cut."""
    if LACKS:
        return {}, []
    known, found, cuts = filled(values, season), {}, []
    for peer in PEERS:
        histories = [known[max(0, origin + 1 - HISTORY) : origin + 1] for origin in origins]
        answers = cache.answers([Request(peer, history, season, horizon, LEVELS) for history in histories])
        found[peer] = peer_table(answers, horizon)
        late = sum(answer is None for answer in answers)
        failed = sum(answer is not None and answer.quantiles is None for answer in answers)
        cuts += [f"{peer} was cut after {PATIENCE:.0f} s: {late} origins without it."] if late else []
        cuts += [f"{peer} failed at {failed} origins."] if failed else []
    return found, cuts


def peer_table(answers: Sequence[Answer | None], horizon: int) -> np.ndarray:
    """The quantiles of answers, `[N, K, Q]`; NaN where there is none."""
    found = np.full((len(answers), horizon, len(LEVELS)), np.nan)
    for place, answer in enumerate(answers):
        if answer is not None and answer.quantiles is not None:
            found[place] = answer.quantiles
    return found
