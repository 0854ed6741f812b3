"""The case `series`: one forecaster for each series, with default options, beside peers refitted at every origin."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from benchmarks.forecasting.forecasts import naive_forecasts, our_forecasts, peer_forecasts, rows_before
from benchmarks.forecasting.peers import ARIMA, ETS, LACKS, PEERS
from benchmarks.forecasting.scores import (
    OURS,
    SEASONAL_NAIVE,
    Judged,
    chosen_origins,
    geometric_mean,
    held_out_start,
    mean_known,
)
from benchmarks.forecasting.setting import INTERVALS, LEVELS, Outcome, Setting, Table, number, percent
from benchmarks.forecasting.subjects import Subject, subjects
from tidegate.data import Panel, read_panel
from tidegate.metrics import seasonal_scale
from tidegate.tasks.forecast import Forecaster

WORST = 1.3  # times the loss of the better of ETS and ARIMA: a series above it is marked


@dataclass(frozen=True)
class SeriesRow:
    """A series' result: size, each method's ratio and coverage, seconds of our fit, what was cut, our own verdict."""

    name: str
    rows: int
    horizon: int
    origins: int
    loss: float
    ratios: dict[str, float]
    coverages: dict[str, dict[float, float]]
    seconds: float
    cuts: list[str]
    verdict: str

    @property
    def worst(self) -> float:
        """Our loss over that of the better of ETS and ARIMA; NaN without both."""
        known = [self.ratios[peer] for peer in (ETS, ARIMA) if isfinite(self.ratios.get(peer, float("nan")))]
        return max(known, default=float("nan"))


def measure(setting: Setting) -> Outcome:
    """Fit, forecast and score every series."""
    rows = []
    for subject in subjects(setting.archives, setting.etth1, setting.only):
        panel = read_panel(subject.frame, "value", time="time")
        values = panel.series[0].values
        origins = chosen_origins(values, subject.horizon, subject.season, setting.origins)
        theirs, cuts = peer_forecasts(setting.cache, values, subject.horizon, subject.season, origins)
        if setting.peers_only:
            setting.say(f"{subject.name}: {len(origins)} origins {' '.join(cuts)}")
            continue
        row = judge(subject, panel, origins, theirs, cuts, setting)
        rows.append(row)
        setting.say(" | ".join(_cells(row)))
    return Outcome("series", list(_parts(rows, setting)), [_figures(row) for row in rows])


def judge(
    subject: Subject,
    panel: Panel,
    origins: np.ndarray,
    theirs: dict[str, np.ndarray],
    cuts: list[str],
    setting: Setting,
) -> SeriesRow:
    """Fit the forecaster once, to the rows before the held-out part, and score it beside the others."""
    values, horizon = panel.series[0].values, subject.horizon
    before = values[: held_out_start(len(values), horizon)]
    start = time.perf_counter()
    forecaster = Forecaster(horizon, quantiles=LEVELS, **setting.training)
    forecaster.fit(rows_before(subject.frame, panel, len(before)), "value", time="time")
    seconds = time.perf_counter() - start
    methods = {
        OURS: our_forecasts(forecaster, subject.frame, panel, origins),
        SEASONAL_NAIVE: naive_forecasts(values, len(before), origins, horizon, subject.season),
        **theirs,
    }
    truth = values[origins[:, None] + np.arange(1, horizon + 1)]
    judged = Judged(LEVELS, seasonal_scale(before, subject.season), truth, methods)
    others = [method for method in methods if method != OURS]
    return SeriesRow(
        subject.name,
        len(values),
        horizon,
        len(origins),
        judged.loss(OURS),
        {method: judged.ratio(OURS, method) for method in others},
        {method: {share: judged.coverage(method, share) for share in INTERVALS} for method in methods},
        seconds,
        cuts,
        forecaster.verdict,
    )


def _parts(rows: Sequence[SeriesRow], setting: Setting) -> Iterator[str | Table]:
    if LACKS:
        yield f"Without peers: {LACKS}."
    if setting.quick:
        yield "Measured with `--quick`: few origins, seconds of training. The figures say nothing about quality."
    if setting.etth1 is None:
        yield "Without ETTh1, whose file was not given (`--etth1`)."
    peers = () if LACKS else PEERS
    headings = ["series", "rows", "horizon", "origins", "loss", SEASONAL_NAIVE, *peers, "80 %", "90 %", "seconds"]
    yield Table(headings, [_cells(row) for row in rows] + [_means(rows, peers)])
    yield from _verdicts(rows)
    yield Table(
        ["coverage, mean over the series", *_methods(peers)], [_coverage(rows, peers, share) for share in INTERVALS]
    )
    cuts = [f"{row.name}: {cut}" for row in rows for cut in row.cuts]
    if cuts:
        yield "\n".join(f"- {cut}" for cut in cuts)


def _methods(peers: Sequence[str]) -> list[str]:
    return [OURS, SEASONAL_NAIVE, *peers]


def _cells(row: SeriesRow) -> list[str]:
    ratios = [number(ratio) for ratio in row.ratios.values()]
    name = f"**{row.name}**" if row.worst > WORST else row.name
    covered = [percent(row.coverages[OURS][share]) for share in INTERVALS]
    sizes = [f"{size:,}" for size in (row.rows, row.horizon, row.origins)]
    return [name, *sizes, number(row.loss, 3), *ratios, *covered, number(row.seconds, 0)]


def _means(rows: Sequence[SeriesRow], peers: Sequence[str]) -> list[str]:
    ratios = [number(geometric_mean(row.ratios[method] for row in rows)) for method in (SEASONAL_NAIVE, *peers)]
    covered = [percent(mean_known(row.coverages[OURS][share] for row in rows)) for share in INTERVALS]
    loss = number(geometric_mean(row.loss for row in rows), 3)
    return [
        "geometric mean (coverage: mean)",
        "",
        "",
        "",
        loss,
        *ratios,
        *covered,
        number(sum(r.seconds for r in rows), 0),
    ]


def _coverage(rows: Sequence[SeriesRow], peers: Sequence[str], share: float) -> list[str]:
    means = [mean_known(row.coverages[method][share] for row in rows) for method in _methods(peers)]
    return [f"{percent(share)} interval", *(percent(mean) for mean in means)]


def _verdicts(rows: Sequence[SeriesRow]) -> Iterator[str]:
    known = [row for row in rows if isfinite(row.worst)]
    if known:
        above = [f"{row.name} ({number(row.worst)})" for row in known if row.worst > WORST]
        best = geometric_mean(row.worst for row in known)
        yield (
            f"Against the better of ETS and ARIMA in each series: {number(best)} in the geometric mean, better in "
            f"{sum(row.worst < 1 for row in known)} of {len(known)}. Above {WORST:g}, in bold: "
            f"{', '.join(above) if above else 'none'}."
        )


def _figures(row: SeriesRow) -> dict[str, object]:
    covered = {method: {f"{share:g}": value for share, value in c.items()} for method, c in row.coverages.items()}
    return {
        "series": row.name, "rows": row.rows, "horizon": row.horizon, "origins": row.origins, "loss": row.loss,
        "ratios": row.ratios, "coverage": covered, "seconds": row.seconds, "cuts": row.cuts, "worst": row.worst,
        "verdict": row.verdict,
    }  # fmt: skip
