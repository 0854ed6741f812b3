"""The case `electricity`: what a covariate that is known in advance is worth, to the forecaster and to ARIMA."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from benchmarks.forecasting.archives import FPP3, Archives
from benchmarks.forecasting.forecasts import naive_forecasts, our_forecasts, peer_table, rows_before
from benchmarks.forecasting.peers import ARIMA, LACKS, PeerCache, Request
from benchmarks.forecasting.scores import OURS, SEASONAL_NAIVE, Judged, chosen_origins, held_out_start
from benchmarks.forecasting.setting import INTERVALS, LEVELS, Outcome, Setting, Table, number, percent
from tidegate.data import Panel, read_panel
from tidegate.metrics import seasonal_scale
from tidegate.tasks.forecast import Forecaster

HORIZON, SEASON = 14, 7  # days
COVARIATE = "temperature"
KNOWN, KNOWN_ARIMA = f"{OURS}, {COVARIATE} known", f"{ARIMA}, {COVARIATE} known"
AVAILABLE = "known" in inspect.signature(Forecaster.fit).parameters


@dataclass(frozen=True)
class Days:
    """Demand and highest temperature by day: a frame with `time`, `value` and `temperature`, and its panel."""

    frame: pl.DataFrame
    panel: Panel

    @property
    def values(self) -> np.ndarray:
        """The demand in GWh, `[N]`."""
        return self.panel.series[0].values

    @property
    def regressors(self) -> np.ndarray:
        """Temperature and its square, `[N, 2]`: both cold and heat need electricity."""
        temperature = self.panel.series[0].covariates[:, 0]
        return np.stack([temperature, temperature**2], axis=1)


def measure(setting: Setting) -> Outcome:
    """Forecast two weeks of daily demand with and without the temperature of these weeks."""
    days = read_days(setting.archives)
    origins = chosen_origins(days.values, HORIZON, SEASON, setting.origins)
    before = held_out_start(len(days.values), HORIZON)
    methods = {SEASONAL_NAIVE: naive_forecasts(days.values, before, origins, HORIZON, SEASON)}
    if not LACKS:
        methods[ARIMA] = arima(setting.cache, days, origins, None)
        methods[KNOWN_ARIMA] = arima(setting.cache, days, origins, days.regressors)
    seconds = {}
    for known in () if setting.peers_only else (False, True) if AVAILABLE else (False,):
        start = time.perf_counter()
        name = KNOWN if known else OURS
        methods[name] = ours(days, origins, before, known, setting)
        seconds[name] = time.perf_counter() - start
        setting.say(f"{name}: {seconds[name]:.0f} s")
    truth = days.values[origins[:, None] + np.arange(1, HORIZON + 1)]
    judged = Judged(LEVELS, seasonal_scale(days.values[:before], SEASON), truth, methods)
    return Outcome("electricity", list(_parts(judged, seconds, setting)), _figures(judged, seconds))


def read_days(archives: Archives) -> Days:
    """The half-hours of vic_elec by local day: the sum of the demand in GWh, the highest temperature in degrees C."""
    rows = archives.csv(FPP3, "tsdata/fpp3/vic_elec.csv")
    frame = (
        rows.group_by("Date")
        .agg((pl.col("Demand").sum() / 2000).alias("value"), pl.col("Temperature").max().alias(COVARIATE))
        .select(pl.col("Date").cast(pl.String).str.to_date("%Y-%m-%d").alias("time"), "value", COVARIATE)
        .sort("time")
    )
    return Days(frame, read_panel(frame, "value", time="time", covariates=[COVARIATE]))


def ours(days: Days, origins: np.ndarray, before: int, known: bool, setting: Setting) -> np.ndarray:
    """Quantiles `[N, K, Q]` of one forecaster with default options, fitted to the rows before the held-out part."""
    forecaster = Forecaster(HORIZON, quantiles=LEVELS, **setting.training)
    columns: dict[str, Any] = {"known": [COVARIATE]} if known else {}
    forecaster.fit(rows_before(days.frame, days.panel, before), "value", time="time", **columns)
    return our_forecasts(forecaster, days.frame, days.panel, origins, HORIZON if known else 0)


def arima(cache: PeerCache, days: Days, origins: np.ndarray, regressors: np.ndarray | None) -> np.ndarray:
    """Quantiles `[N, K, Q]` of ARIMA, chosen and fitted again at every origin; NaN where it failed or was cut."""
    requests = []
    for origin in origins:
        past = None if regressors is None else regressors[: origin + 1]
        ahead = None if regressors is None else regressors[origin + 1 : origin + 1 + HORIZON]
        requests.append(Request(ARIMA, days.values[: origin + 1], SEASON, HORIZON, LEVELS, past, ahead))
    return peer_table(cache.answers(requests), HORIZON)


def _parts(judged: Judged, seconds: dict[str, float], setting: Setting) -> Iterator[str | Table]:
    if setting.quick:
        yield "Measured with `--quick`: few origins, seconds of training. The figures say nothing about quality."
    if LACKS:
        yield f"Without ARIMA: {LACKS}."
    if not AVAILABLE:
        yield f"{KNOWN}: not available; `Forecaster.fit` has no `known`."
    rows = [_cells(judged, method, seconds) for method in judged.methods]
    yield Table(["method", "origins", "loss", f"/ {SEASONAL_NAIVE}", "80 %", "90 %", "seconds"], rows)


def _cells(judged: Judged, method: str, seconds: dict[str, float]) -> Sequence[str]:
    covered = [percent(judged.coverage(method, share)) for share in INTERVALS]
    loss, ratio = judged.loss(method), judged.ratio(method, SEASONAL_NAIVE)
    taken = number(seconds.get(method, float("nan")), 0)
    return [method, str(judged.origins(method)), number(loss, 3), number(ratio), *covered, taken]


def _figures(judged: Judged, seconds: dict[str, float]) -> dict[str, object]:
    return {
        method: {
            "loss": judged.loss(method),
            "ratio": judged.ratio(method, SEASONAL_NAIVE),
            "coverage": {f"{share:g}": judged.coverage(method, share) for share in INTERVALS},
            "seconds": seconds.get(method),
        }
        for method in judged.methods
    }
