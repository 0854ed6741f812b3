"""Held-out forecasts of every method, and the scores over them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tidegate.data import Panel, Series
from tidegate.metrics import (
    Comparison,
    compare_series,
    coverage,
    mae,
    mase,
    quantile_score,
    rmse,
    seasonal_scale,
    weighted_quantile_loss,
)
from tidegate.tasks.forecast.judging.baselines import baseline_quantiles, baselines
from tidegate.tasks.forecast.judging.evaluation import NET, Evaluation, SeriesScore
from tidegate.tasks.forecast.judging.split import Split
from tidegate.tasks.forecast.model.inputs import ForecastInputs
from tidegate.tasks.forecast.model.net import ForecastNet
from tidegate.tasks.forecast.model.rolling import in_units, outputs_of
from tidegate.training import Listener, judging

_LEAST_CHANGE = 1e-6  # of the standard deviation: a smaller change is rounding
MOST_ORIGINS = 4096  # of a series; where it has more, they are spread evenly


@dataclass(frozen=True)
class HeldOut:
    """One series' held-out forecasts: truth `[N, K]`, each method's quantiles `[N, K, Q]`, the scale of its losses.

    The origins are `spacing` steps apart.
    """

    name: str
    truth: np.ndarray
    methods: dict[str, np.ndarray]
    scale: float
    spacing: int

    def losses(self, method: str, levels: np.ndarray, chosen: list[int]) -> np.ndarray:
        """The scaled loss `[N]` at each origin over the chosen levels; NaN where no truth is known."""
        losses = quantile_score(self.truth, self.methods[method][..., chosen], levels[chosen]) / self.scale
        return np.array([mean_known(origin) for origin in losses])


def evaluate(
    nets: dict[str, ForecastNet],
    inputs: ForecastInputs,
    panel: Panel,
    splits: tuple[Split, ...],
    levels: np.ndarray,
    listeners: Sequence[Listener] = (),
) -> Evaluation:
    """Judge by rolling origins: at every step of the held-out part that has a whole horizon after it, or, in long
    series, at 4,096 of them.

    `nets` holds the trained net under `NET` and the untrained one under `START`. Series without a held-out part are
    omitted. `listeners` hear of the progress.
    """
    outputs = {name: outputs_of(net, inputs)[0] for name, net in nets.items()}
    judged = [index for index, cut in enumerate(splits) if cut.judged]
    held = [
        _held_out(nets, outputs, inputs, index, panel.series[index], splits[index], levels)
        for index in judging(judged, listeners)
    ]
    methods = list(held[0].methods)
    scores = {method: _scores(held, method, levels) for method in methods}
    best = min((method for method in methods if method not in nets), key=lambda method: scores[method]["scaled_loss"])
    every, median = list(range(len(levels))), [list(levels).index(0.5)]

    def compared(chosen: list[int]) -> Comparison:
        ours, theirs = ([one.losses(method, levels, chosen) for one in held] for method in (NET, best))
        return compare_series(ours, theirs, inputs.recipe.horizon / max(one.spacing for one in held))

    return Evaluation(
        levels=tuple(float(level) for level in levels),
        origins=sum(len(one.truth) for one in held),
        interval=float(levels[-1] - levels[0]),
        scores=scores,
        by_horizon={method: _by_horizon(held, method, levels) for method in methods},
        below={method: _below(held, method) for method in methods},
        best_baseline=best,
        comparison=compared(every),
        median=compared(median),
        by_series=[_series_score(one, best, levels) for one in held],
    )


def held_out_origins(cut: Split, horizon: int, most: int = MOST_ORIGINS) -> np.ndarray:
    """The origins at which a series is judged, evenly spaced."""
    count = cut.stop - horizon - cut.held_out + 1
    return np.arange(cut.held_out - 1, cut.stop - horizon, -(-count // most))


def _held_out(
    nets: dict[str, ForecastNet],
    outputs: dict[str, Tensor],
    inputs: ForecastInputs,
    index: int,
    series: Series,
    cut: Split,
    levels: np.ndarray,
) -> HeldOut:
    """The held-out forecasts of one series, the nets' and the baselines'."""
    recipe = inputs.recipe
    origins = held_out_origins(cut, recipe.horizon)
    methods = {name: in_units(net, inputs, outputs[name], index, series, origins) for name, net in nets.items()}
    before = series.values[: cut.held_out]
    for name, baseline in baselines(before, recipe.season).items():
        methods[name] = baseline_quantiles(
            baseline, series.values, cut.held_out, origins, recipe.horizon, levels, recipe.first_origin
        )
    truth = series.values[origins[:, None] + np.arange(1, recipe.horizon + 1)]
    spacing = int(origins[1] - origins[0]) if len(origins) > 1 else 1
    return HeldOut(series.name, truth, methods, loss_scale(before, recipe.season), spacing)


def loss_scale(before: np.ndarray, season: int) -> float:
    """The unit of a series' losses: its mean absolute change from season to season, else from step to step, else 1."""
    known = before[~np.isnan(before)]
    floor = _LEAST_CHANGE * float(known.std())
    found = (seasonal_scale(before, lag) for lag in (season, 1))
    return next((scale for scale in found if scale > floor), float(known.std()) or 1.0)


def _scores(held: list[HeldOut], method: str, levels: np.ndarray) -> dict[str, float]:
    truth, quantiles, scale = _joined(held, method)
    median = quantiles[..., list(levels).index(0.5)]
    losses = quantile_score(truth, quantiles, levels)
    return {
        "scaled_loss": mean_known((losses / scale[:, None]).ravel()),
        "quantile_loss": mean_known(losses.ravel()),
        "weighted_quantile_loss": weighted_quantile_loss(truth, quantiles, levels),
        "mae": mae(truth, median),
        "rmse": rmse(truth, median),
        "mase": mase(truth, median, scale),
        "coverage": coverage(truth, quantiles[..., 0], quantiles[..., -1]),
    }


def _by_horizon(held: list[HeldOut], method: str, levels: np.ndarray) -> dict[str, list[float]]:
    truth, quantiles, scale = _joined(held, method)
    unit = scale[:, None] if len(held) > 1 else 1.0
    losses = quantile_score(truth, quantiles, levels) / unit
    errors = np.abs(truth - quantiles[..., list(levels).index(0.5)]) / unit
    return {"quantile_loss": _column_means(losses), "mae": _column_means(errors)}


def _below(held: list[HeldOut], method: str) -> list[float]:
    truth, quantiles, _ = _joined(held, method)
    return [float(share) for share in (truth[..., None] <= quantiles)[~np.isnan(truth)].mean(0)]


def _joined(held: list[HeldOut], method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, quantiles, and each origin's scale, over all series."""
    truth = np.concatenate([one.truth for one in held])
    quantiles = np.concatenate([one.methods[method] for one in held])
    return truth, quantiles, np.concatenate([np.full(len(one.truth), one.scale) for one in held])


def _series_score(one: HeldOut, best: str, levels: np.ndarray) -> SeriesScore:
    every = list(range(len(levels)))
    ours, theirs = (mean_known(one.losses(method, levels, every)) for method in (NET, best))
    return SeriesScore(one.name, ours, theirs, len(one.truth))


def _column_means(values: np.ndarray) -> list[float]:
    return [mean_known(column) for column in values.T]


def mean_known(values: Iterable[float]) -> float:
    """The mean over what is known; NaN where nothing is."""
    found = np.asarray(values, float)
    known = found[~np.isnan(found)]
    return float(known.mean()) if known.size else float("nan")
