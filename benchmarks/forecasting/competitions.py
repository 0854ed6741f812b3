"""The cases `m3`, `m1` and `tourism`: one net for all series of a frequency, on the competitions' own splits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.forecasting.competition_data import COMPETITIONS, Competition, Frequency
from benchmarks.forecasting.forecasts import naive_forecasts, peer_table
from benchmarks.forecasting.peers import ETS, LACKS, THETA, Request
from benchmarks.forecasting.scores import OURS, SEASONAL_NAIVE, level_index, mean_known
from benchmarks.forecasting.setting import INTERVALS, LEVELS, Outcome, Setting, Table, number, percent
from benchmarks.peers import check_names
from tidegate.errors import DataError
from tidegate.metrics import coverage, mase, seasonal_scale, smape
from tidegate.tasks.forecast import Forecaster

TOGETHER = (THETA, ETS)  # ARIMA would take hours for thousands of series
PATIENCE = 1800.0  # seconds of processor time of one peer for the series of a frequency
QUICK = 20  # series of a frequency in a quick run


@dataclass(frozen=True)
class Entry:
    """A method's forecasts of a frequency: quantiles `[N, K, Q]`, NaN where it has none, and the seconds it took."""

    method: str
    frequency: Frequency
    quantiles: np.ndarray
    seconds: float

    @property
    def median(self) -> np.ndarray:
        """The point forecasts, `[N, K]`."""
        found: np.ndarray = self.quantiles[..., level_index(LEVELS, 0.5)]
        return found

    @property
    def missing(self) -> int:
        """The number of series without a forecast."""
        return int(np.isnan(self.median[:, 0]).sum())


Make = Callable[[Frequency, Setting], Entry]


def measure(competition: Competition, setting: Setting) -> Outcome:
    """Forecast every frequency by every method, and score it."""
    frequencies = competition.read(setting.archives)
    check_names("frequency", setting.only, [one.name for one in frequencies])
    entries, refusals = list[Entry](), list[str]()
    for frequency in frequencies:
        if setting.only and frequency.name not in setting.only:
            continue
        kept = frequency.first(QUICK) if setting.quick else frequency
        peers: list[Make] = [] if LACKS else [partial(_peer, peer) for peer in TOGETHER]
        for make in (_ours, _naive, *peers):
            try:
                entries.append(_made(make, kept, setting))
            except DataError as error:
                refusals.append(f"Tidegate does not forecast the {frequency.name} series: {error}")
                setting.say(refusals[-1])
    return Outcome(competition.case, list(_parts(competition, entries, refusals, setting)), _figures(entries))


def _made(make: Make, frequency: Frequency, setting: Setting) -> Entry:
    entry = make(frequency, setting)
    setting.say(" | ".join(_cells([entry])))
    return entry


def _ours(frequency: Frequency, setting: Setting) -> Entry:
    """One forecaster, with default options, on the long table of all series."""
    start = time.perf_counter()
    quantiles = np.full((len(frequency.histories), frequency.horizon, len(LEVELS)), np.nan)
    if not setting.peers_only:
        forecaster = Forecaster(frequency.horizon, season=frequency.season, quantiles=LEVELS, **setting.training)
        forecast = forecaster.fit(frequency.frame(), "value", id="series").predict()
        quantiles[[int(name) for name in forecast.names]] = forecast.quantiles
    return Entry(OURS, frequency, quantiles, time.perf_counter() - start)


def _naive(frequency: Frequency, setting: Setting) -> Entry:
    """Seasonal naive forecasts, with quantiles of their errors in each history."""
    start = time.perf_counter()
    found = []
    for history in frequency.histories:
        end = len(history)
        found.append(naive_forecasts(history, end, np.array([end - 1]), frequency.horizon, frequency.season)[0])
    return Entry(SEASONAL_NAIVE, frequency, np.stack(found), time.perf_counter() - start)


def _peer(peer: str, frequency: Frequency, setting: Setting) -> Entry:
    requests = [Request(peer, one, frequency.season, frequency.horizon, LEVELS) for one in frequency.histories]
    answers = setting.cache.answers(requests, PATIENCE)
    seconds = sum(answer.seconds for answer in answers if answer is not None)
    return Entry(peer, frequency, peer_table(answers, frequency.horizon), seconds)


@dataclass(frozen=True)
class CompetitionScores:
    """sMAPE over all points, MASE and coverage, of one method on one or several frequencies."""

    smape: float
    mase: float
    coverages: dict[float, float]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> CompetitionScores:
        """The scores of a method; points of all frequencies count the same."""
        truth = np.concatenate([entry.frequency.truth.ravel() for entry in entries])
        median = np.concatenate([entry.median.ravel() for entry in entries])
        known = np.where(np.isnan(median), np.nan, truth)
        flat = np.concatenate([entry.quantiles.reshape(-1, len(LEVELS)) for entry in entries])
        covered = {}
        for share in INTERVALS:
            low, high = (level_index(LEVELS, 0.5 + side * share / 2) for side in (-1, 1))
            covered[share] = coverage(known, flat[:, low], flat[:, high])
        return cls(smape(known, median), mean_known(_mases(entries)), covered)


def _mases(entries: Sequence[Entry]) -> Iterator[float]:
    """The MASE of each series, in units of its own seasonal naive forecast, one season ahead in its history."""
    for entry in entries:
        for history, truth, median in zip(entry.frequency.histories, entry.frequency.truth, entry.median, strict=True):
            scale = seasonal_scale(history, entry.frequency.season)
            if scale > 0:
                yield mase(truth, median, scale)


def _parts(
    competition: Competition, entries: Sequence[Entry], refusals: Sequence[str], setting: Setting
) -> Iterator[str | Table]:
    if setting.quick:
        yield f"Measured with `--quick`: the first {QUICK} series of each frequency, seconds of training."
    if LACKS:
        yield f"Without peers: {LACKS}."
    rows = [_cells([entry]) for entry in entries]
    frequencies = {entry.frequency.name for entry in entries}
    for method in dict.fromkeys(entry.method for entry in entries):
        found = [entry for entry in entries if entry.method == method]
        if len(found) == len(frequencies) > 1:
            rows.append(_cells(found))
    for who, figure in competition.published:
        rows.append(["**all**", "", f"{who}, published", figure, "", "", "", ""])
    yield Table(["frequency", "series", "method", "sMAPE", "MASE", "80 %", "90 %", "seconds"], rows)
    notes = [*refusals, *(_missing(entry) for entry in entries if entry.missing)]
    if notes:
        yield "\n".join(f"- {note}" for note in notes)


def _missing(entry: Entry) -> str:
    return (
        f"{entry.method} has no forecast for {entry.missing} of {len(entry.quantiles):,} {entry.frequency.name} series "
        "and is scored on the others."
    )


def _cells(entries: Sequence[Entry]) -> list[str]:
    """A row for a method on a frequency, or on all of them."""
    scores = CompetitionScores.of(entries)
    name = entries[0].frequency.name if len(entries) == 1 else "**all**"
    return [
        name,
        f"{sum(len(entry.quantiles) for entry in entries):,}",
        entries[0].method,
        number(scores.smape),
        number(scores.mase, 3),
        *(percent(scores.coverages[share]) for share in INTERVALS),
        number(sum(entry.seconds for entry in entries), 0),
    ]


def _figures(entries: Sequence[Entry]) -> list[dict[str, object]]:
    found = []
    for entry in entries:
        scores = CompetitionScores.of([entry])
        covered = {f"{share:g}": value for share, value in scores.coverages.items()}
        sizes = {"frequency": entry.frequency.name, "series": len(entry.quantiles), "method": entry.method}
        found.append(
            sizes | {"smape": scores.smape, "mase": scores.mase, "coverage": covered, "seconds": entry.seconds}
        )
    return found


CASES = {name: partial(measure, competition) for name, competition in COMPETITIONS.items()}
