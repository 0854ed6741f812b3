"""The judgement: every origin of the held-out part, the net beside the baselines, and what follows in a sentence."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from tidegate.config import BeforeValidator
from tidegate.data import Panel
from tidegate.metrics import (
    FEWEST_BLOCKS,
    Baseline,
    Comparison,
    compare,
    coverage,
    mae,
    mase,
    naive,
    quantile_score,
    residual_quantiles,
    rmse,
    seasonal_naive,
    seasonal_scale,
    weighted_quantile_loss,
    with_drift,
)
from tidegate.tasks.forecast.inputs import ForecastInputs
from tidegate.tasks.forecast.net import ForecastNet
from tidegate.tasks.forecast.split import Split
from tidegate.tasks.forecast.task import forecasts_at

NET, START = "net", "untrained start"
METRICS = {"quantile_loss", "weighted_quantile_loss", "mae", "rmse", "mase", "coverage"}
Score = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]


@dataclass(frozen=True)
class HeldOut:
    """One series' held-out forecasts: truth `[N, K]`, each method's quantiles `[N, K, Q]`, the scale of its MASE."""

    truth: np.ndarray
    methods: dict[str, np.ndarray]
    scale: float


@dataclass(frozen=True)
class Evaluation:
    """Scores on the held-out part, for the net and each baseline.

    `scores[method]` has `quantile_loss` (the mean quantile score, in the units of the series),
    `weighted_quantile_loss`, `mae` and `rmse` of the median, `mase`, and `coverage` of the widest interval;
    `by_horizon[method]` has `quantile_loss` and `mae` for each step ahead; `below[method]` the share of truths at or
    below each quantile level. "untrained start" is the net before training, a fixed mixture of plain forecasts; it is
    no baseline but shows what training added.
    `best_baseline` is the one of lowest quantile loss, and `comparison` says whether the net differs from it by more
    than noise; `median` says so of the absolute errors of the medians alone. `interval` is the nominal coverage.
    """

    levels: tuple[float, ...]
    origins: int
    interval: float
    scores: dict[str, dict[str, Score]]
    by_horizon: dict[str, dict[str, list[Score]]]
    below: dict[str, list[Score]]
    best_baseline: str
    comparison: Comparison
    median: Comparison

    @property
    def gain(self) -> float:
        """The share by which the net's quantile loss is below the best baseline's; negative where it is above."""
        theirs = self.scores[self.best_baseline]["quantile_loss"]
        return 1 - self.scores[NET]["quantile_loss"] / theirs if theirs > 0 else 0.0

    @property
    def learned(self) -> float:
        """The share by which training brought the quantile loss below that of the mixture it started from."""
        start = self.scores[START]["quantile_loss"]
        return 1 - self.scores[NET]["quantile_loss"] / start if start > 0 else 0.0

    @property
    def verdict(self) -> str:
        """The judgement in one sentence, also when the net loses."""
        ours, theirs = (self.scores[method]["quantile_loss"] for method in (NET, self.best_baseline))
        numbers = f"quantile loss {ours:.4g} against {theirs:.4g} over {self.origins} held-out origins"
        baseline = f"{self.best_baseline}, the best baseline"
        share = f": {abs(self.gain):.1%} {'below' if self.gain > 0 else 'above'}" if theirs > 0 else ""
        match self.comparison.outcome:
            case "better":
                judged = f"by {self.gain:.1%} ({numbers}; more than noise at the 5 % level)"
                return f"The net beats {baseline}, {judged}{self._unproved_median()}."
            case "worse":
                by = f", by {-self.gain:.1%}" if theirs > 0 else ""
                return f"The net loses to {baseline}{by} ({numbers}); use the baseline instead."
        if self.comparison.blocks < FEWEST_BLOCKS:
            return f"The held-out part is too short to tell the net from {baseline} ({numbers}{share})."
        return f"The net is not shown to be better than {baseline} ({numbers}{share}, which noise can explain)."

    def _unproved_median(self) -> str:
        if self.median.outcome == "better":
            return ""
        ours, theirs = (self.scores[method]["mae"] for method in (NET, self.best_baseline))
        return f"; for its median alone (mean absolute error {ours:.4g} against {theirs:.4g}) that is not shown"

    def to_json(self) -> dict[str, Any]:
        """Every number as plain data, the verdict among them; None is a mean over nothing."""
        found = {"outcome": self.comparison.outcome, "gain": self.gain, "learned": self.learned}
        data: dict[str, Any] = _nan_to_none(asdict(self) | found | {"verdict": self.verdict})
        return data


def evaluate(
    nets: dict[str, ForecastNet], inputs: ForecastInputs, panel: Panel, splits: tuple[Split, ...], levels: np.ndarray
) -> Evaluation:
    """Judge by rolling origins: one at every step of the held-out part that has a whole horizon after it.

    `nets` holds the trained net under `NET` and the untrained one under `START`.
    """
    held = list(_held_out(nets, inputs, panel, splits, levels))
    methods = list(held[0].methods)
    scores = {method: _scores(held, method, levels) for method in methods}
    best = min((method for method in methods if method not in nets), key=lambda method: scores[method]["quantile_loss"])

    def compared(chosen: list[int]) -> Comparison:
        ours, theirs = (_loss_by_origin(held, method, levels, chosen) for method in (NET, best))
        return compare(ours, theirs, inputs.recipe.horizon)

    return Evaluation(
        levels=tuple(float(level) for level in levels),
        origins=sum(len(one.truth) for one in held),
        interval=float(levels[-1] - levels[0]),
        scores=scores,
        by_horizon={method: _by_horizon(held, method, levels) for method in methods},
        below={method: _below(held, method) for method in methods},
        best_baseline=best,
        comparison=compared(list(range(len(levels)))),
        median=compared([list(levels).index(0.5)]),
    )


def _held_out(
    nets: dict[str, ForecastNet], inputs: ForecastInputs, panel: Panel, splits: tuple[Split, ...], levels: np.ndarray
) -> Iterator[HeldOut]:
    """The held-out forecasts of each series, the nets' and the baselines'."""
    recipe = inputs.recipe
    for index, (series, cut) in enumerate(zip(panel.series, splits, strict=True)):
        origins = np.arange(cut.held_out - 1, cut.stop - recipe.horizon)
        scale = recipe.scale(series)
        methods = {}
        for name, net in nets.items():
            methods[name] = forecasts_at(net, inputs, index, series, origins)
        for name, baseline in _baselines(series.values[: cut.held_out], recipe.season).items():
            missed = residual_quantiles(baseline, series.values, recipe.past, cut.held_out, recipe.horizon, levels)
            methods[name] = baseline(series.values, origins, recipe.horizon)[..., None] + missed
        truth = series.values[origins[:, None] + np.arange(1, recipe.horizon + 1)]
        yield HeldOut(truth, methods, _mase_scale(series.values[: cut.held_out], recipe.season, scale.unit))


def _baselines(before: np.ndarray, season: int) -> dict[str, Baseline]:
    if season == 1:
        return {"naive": naive, "naive with drift": with_drift(before, 1)}
    seasonal = {"seasonal naive": seasonal_naive(season), "seasonal naive with drift": with_drift(before, season)}
    return {"naive": naive} | seasonal


def _mase_scale(before: np.ndarray, season: int, fallback: float) -> float:
    scale = seasonal_scale(before, season)
    return scale if scale > 0 else fallback


def _scores(held: list[HeldOut], method: str, levels: np.ndarray) -> dict[str, float]:
    truth = np.concatenate([one.truth for one in held])
    quantiles = np.concatenate([one.methods[method] for one in held])
    median = quantiles[..., list(levels).index(0.5)]
    return {
        "quantile_loss": float(np.nanmean(quantile_score(truth, quantiles, levels))),
        "weighted_quantile_loss": weighted_quantile_loss(truth, quantiles, levels),
        "mae": mae(truth, median),
        "rmse": rmse(truth, median),
        "mase": mase(truth, median, np.concatenate([np.full(len(one.truth), one.scale) for one in held])),
        "coverage": coverage(truth, quantiles[..., 0], quantiles[..., -1]),
    }


def _by_horizon(held: list[HeldOut], method: str, levels: np.ndarray) -> dict[str, list[float]]:
    truth = np.concatenate([one.truth for one in held])
    quantiles = np.concatenate([one.methods[method] for one in held])
    losses = quantile_score(truth, quantiles, levels)
    errors = np.abs(truth - quantiles[..., list(levels).index(0.5)])
    return {"quantile_loss": _column_means(losses), "mae": _column_means(errors)}


def _below(held: list[HeldOut], method: str) -> list[float]:
    truth = np.concatenate([one.truth for one in held])[..., None]
    quantiles = np.concatenate([one.methods[method] for one in held])
    return [float(share) for share in (truth <= quantiles)[~np.isnan(truth[..., 0])].mean(0)]


def _column_means(values: np.ndarray) -> list[float]:
    return [mean_known(column) for column in values.T]


def mean_known(values: Iterable[float]) -> float:
    """The mean over what is known; NaN where nothing is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _nan_to_none(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _nan_to_none(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_nan_to_none(value) for value in data]
    return None if isinstance(data, float) and np.isnan(data) else data


def _loss_by_origin(held: list[HeldOut], method: str, levels: np.ndarray, chosen: list[int]) -> np.ndarray:
    """The loss at each origin over the chosen levels, in units of the series' scale.

    It is averaged over the series, counted back from their ends.
    """
    longest = max(len(one.truth) for one in held)
    table = np.full((len(held), longest), np.nan)
    for row, one in zip(table, held, strict=True):
        losses = quantile_score(one.truth, one.methods[method][..., chosen], levels[chosen]) / one.scale
        row[longest - len(losses) :] = [mean_known(origin) for origin in losses]
    return np.array([mean_known(column) for column in table.T])
