"""Forecasters that Tidegate 0.1 saved: they load, predict as they did, and can be saved again.

Their nets started afresh at most `context` steps before each origin, and knew fewer anchors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tidegate.config import ForecastOptions, checked
from tidegate.data import Decimal, Grid, Panel, Series, calendar_features, read_panel
from tidegate.equations import Cell
from tidegate.errors import ArgumentError, DataError, ModelFileError
from tidegate.metrics import seasonal_scale
from tidegate.metrics.baselines import last_known, seasonal_offsets
from tidegate.nn import Recurrent
from tidegate.nn.weights import fill
from tidegate.tasks.forecast.model.recipe import Count
from tidegate.tasks.forecast.result import Forecast
from tidegate.training import History

_ANCHORS = 6


@dataclass(frozen=True)
class ScaleVersion1:
    """A series' centre and unit: its mean, and the mean absolute difference to the season before."""

    centre: float
    unit: float


@dataclass(frozen=True)
class RecipeVersion1:
    """How values become inputs."""

    horizon: Count
    season: Count
    back: Count
    level: Count
    context: Count
    seen: Count
    scales: dict[str, ScaleVersion1]
    covariates: tuple[ScaleVersion1, ...]

    @property
    def past(self) -> int:
        """Steps before an origin that its forecast looks back at."""
        return max(self.back * self.season, self.level - 1)

    def scale(self, series: Series) -> ScaleVersion1:
        """The scale of a series: that of the fit, or from its own values."""
        if series.name in self.scales:
            return self.scales[series.name]
        units = [seasonal_scale(series.values, lag) for lag in (self.season, 1)] + [float(np.nanstd(series.values))]
        unit = next((unit for unit in units if np.isfinite(unit) and unit > 0), 1.0)
        return ScaleVersion1(float(np.nanmean(series.values)), unit)


@dataclass(frozen=True)
class TailSeriesVersion1:
    """A series of a tail, and its first place."""

    name: str
    start: int


@dataclass(frozen=True)
class TailVersion1:
    """A tail without its numbers."""

    name: str
    target: str
    covariates: tuple[str, ...]
    grid: Grid
    series: tuple[TailSeriesVersion1, ...]


@dataclass(frozen=True)
class DataVersion1:
    """What predicting needs of a saved forecaster; the rest is kept as it is."""

    options: ForecastOptions
    inputs: Count
    columns: tuple[str, str | None, str | None, tuple[str, ...]]
    recipe: RecipeVersion1
    tail: TailVersion1
    history: History


class NetVersion1(nn.Module):
    """Quantiles from a mixture of six anchors with a correction, as in `ForecastNet`."""

    def __init__(self, options: ForecastOptions, cell: Cell, inputs: int) -> None:
        super().__init__()
        horizon, levels = options.horizon, options.quantiles
        self.horizon, self.middle = horizon, levels.index(0.5)
        self.layer = Recurrent(cell, inputs, options.hidden_size, num_layers=options.num_layers)
        self.head = nn.Linear(self.layer.output_size, horizon * (_ANCHORS + len(levels)))
        self.mixture = nn.Parameter(torch.zeros(horizon, _ANCHORS))
        self.spread = nn.Parameter(torch.zeros(horizon, len(levels)))

    def forward(self, x: Tensor, anchors: Tensor) -> Tensor:
        """Quantiles `[K, Q]` after the last of the inputs `[T, 1, F]`, from anchors `[K, A]`."""
        outputs: Any = self.layer(x)[0]
        head = self.head(outputs[-1, 0]).unflatten(-1, (self.horizon, -1))
        mixture = (self.mixture + head[:, :_ANCHORS]).softmax(-1)
        spread = self.spread + head[:, _ANCHORS:]
        centre = (mixture * anchors).sum(-1, keepdim=True) + spread[:, self.middle, None]
        below = nn.functional.softplus(spread[:, : self.middle]).flip(-1).cumsum(-1).flip(-1)
        above = nn.functional.softplus(spread[:, self.middle + 1 :]).cumsum(-1)
        return torch.cat([centre - below, centre, centre + above], -1)


@dataclass(frozen=True)
class FittedVersion1:
    """A forecaster of 0.1: its net, the end of its series, and all else as it was saved."""

    options: ForecastOptions
    columns: tuple[str, str | None, str | None, tuple[str, ...]]
    recipe: RecipeVersion1
    net: NetVersion1
    tail: Panel
    history: History
    spec: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def verdict(self) -> str:
        """The judgement in a sentence, as 0.1 gave it."""
        return str(self.spec["evaluation"]["verdict"])

    @property
    def evaluation(self) -> Any:
        """Refused: what the scores mean has changed."""
        raise ArgumentError(
            "The scores of a forecaster that Tidegate 0.1 saved are not those of this version: read them in its "
            "report.json, or fit it again."
        )

    def predict(self, data: Any = None, decimal: Decimal | None = None, encoding: str | None = None) -> Forecast:
        """The forecast after the end of the data of the fit, or of new rows."""
        panel = self.tail if data is None else self._read(data, decimal, encoding)
        quantiles = np.stack([self._after(series, panel.grid) for series in panel.series])
        ahead = np.arange(self.recipe.horizon)
        times = np.stack([panel.grid.times(series.stop + ahead) for series in panel.series])
        target, time, id, _ = self.columns
        names = tuple(series.name for series in panel.series)
        return Forecast(names, times, self.options.quantiles, quantiles, target, time or "step", id, panel.grid)

    def _read(self, data: Any, decimal: Decimal | None, encoding: str | None) -> Panel:
        target, time, id, covariates = self.columns
        new = read_panel(
            data,
            target,
            time=time,
            id=id,
            covariates=covariates,
            grid=self.tail.grid,
            decimal=decimal,
            encoding=encoding,
        )
        known = {series.name: series for series in self.tail.series}
        joined = tuple(self._join(known.get(series.name), series, time is not None) for series in new.series)
        short = next((series for series in joined if len(series) <= self.recipe.past), None)
        if short is not None:
            raise DataError(
                f"{new.name}: the series '{short.name}' has {len(short)} steps, but a forecast looks back at "
                f"{self.recipe.past + 1}. Give as many, or rows that follow the data of the fit."
            )
        return Panel(new.name, target, new.covariates, new.grid, joined, new.notes)

    def _join(self, kept: Series | None, new: Series, timed: bool) -> Series:
        if kept is None:
            return new
        start = new.start if timed else kept.stop + new.start
        gap = start - kept.stop
        if gap > self.recipe.past or start <= kept.start:
            return new
        before, missing = len(kept) + min(gap, 0), np.full((max(gap, 0), new.covariates.shape[1]), np.nan)
        values = np.concatenate([kept.values[:before], np.full(max(gap, 0), np.nan), new.values])
        return Series(new.name, kept.start, values, np.concatenate([kept.covariates[:before], missing, new.covariates]))

    @torch.no_grad()
    def _after(self, series: Series, grid: Grid) -> np.ndarray:
        scale, recipe = self.recipe.scale(series), self.recipe
        scaled = (series.values - scale.centre) / scale.unit
        filled = last_known(scaled)
        level = trailing_mean(filled, recipe.level)
        x = self._inputs(series, grid, scaled, filled, level)[-(recipe.context // 2 + 1) :]
        anchors = self._anchors(filled.astype(np.float32), np.float32(level[-1]))
        found = self.net(torch.from_numpy(x[:, None].astype(np.float32)), torch.from_numpy(anchors))
        quantiles: np.ndarray = last_known(series.values)[-1] + scale.unit * found.numpy().astype(float)
        return quantiles

    def _inputs(
        self, series: Series, grid: Grid, scaled: np.ndarray, filled: np.ndarray, level: np.ndarray
    ) -> np.ndarray:
        calendar, _ = calendar_features(grid, np.arange(series.start, series.stop), self.recipe.seen)
        columns = [filled - _lagged(filled, 1), filled - _lagged(filled, self.recipe.season), filled - level]
        columns += [np.isnan(scaled), *calendar.T]
        for values, standard in zip(series.covariates.T, self.recipe.covariates, strict=True):
            own = (values - standard.centre) / standard.unit
            start = 0.0 if np.isnan(own[0]) else own[0]
            columns += [last_known(np.concatenate([[start], own]))[1:], np.isnan(own)]
        return np.arcsinh(np.stack(columns, -1))

    def _anchors(self, filled: np.ndarray, level: np.float32) -> np.ndarray:
        recipe, end, here = self.recipe, len(filled) - 1, filled[-1]
        seasons = recipe.season * np.arange(recipe.back)
        past = filled[end + seasonal_offsets(recipe.horizon, recipe.season)[:, None] - seasons] - here
        before = filled[end - recipe.season - seasons] - here
        last, mean = past[:, 0], past.mean(-1)
        kinds = (
            np.zeros_like(last),
            last,
            last - before[0],
            mean,
            mean - before.mean(),
            np.full_like(last, level - here),
        )
        return np.stack(kinds, -1)

    def to_spec(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What was loaded."""
        return self.spec, self.tensors

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: dict[str, Tensor]) -> "FittedVersion1":
        """What 0.1 saved. Raises ModelFileError where a field is wrong, or fields do not fit each other."""
        needed = {name: spec.get(name) for name in DataVersion1.__annotations__}
        data: DataVersion1 = checked(DataVersion1, needed, "spec")
        series = tuple(_series(one, k, len(data.columns[3]), tensors) for k, one in enumerate(data.tail.series))
        tail = Panel(data.tail.name, data.tail.target, data.tail.covariates, data.tail.grid, series, ())
        if not isinstance(spec.get("evaluation"), dict) or not isinstance(spec["evaluation"].get("verdict"), str):
            raise ModelFileError("spec.evaluation.verdict must be text")
        if min((len(one) for one in series), default=0) <= max(data.recipe.past, data.recipe.context // 2):
            raise ModelFileError("tail.series must be longer than what a forecast looks back at")
        calendar, _ = calendar_features(tail.grid, np.zeros(1, int), data.recipe.seen)
        if data.inputs != 4 + calendar.shape[1] + 2 * len(data.recipe.covariates):
            raise ModelFileError(f"inputs must not be {data.inputs} for this recipe")
        with torch.device("meta"):
            net = NetVersion1(data.options, Cell.from_json(spec["cell"]), data.inputs).eval()
        fill(net, {name[4:]: tensor for name, tensor in tensors.items() if name.startswith("net.")})
        return cls(data.options, data.columns, data.recipe, net, tail, data.history, spec, tensors)


def is_version1(spec: dict[str, Any]) -> bool:
    """Whether Tidegate 0.1 wrote this."""
    return "version" not in spec


def _series(one: TailSeriesVersion1, k: int, columns: int, tensors: dict[str, Tensor]) -> Series:
    values, extra = (tensors.get(f"tail.{k}.{name}", torch.empty(0)) for name in ("values", "covariates"))
    if not len(values) or extra.shape != (len(values), columns) or not values.dtype == extra.dtype == torch.float64:
        raise ModelFileError(f"tensors of series {one.name!r:.80} must be float64, one number a step")
    return Series(one.name, one.start, values.numpy(), extra.numpy())


def _lagged(values: np.ndarray, lag: int) -> np.ndarray:
    return np.concatenate([values[:lag], values])[: len(values)]


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last `window` values at each place, of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    stops = np.arange(1, len(values) + 1)
    starts = np.maximum(0, stops - window)
    return (sums[stops] - sums[starts]) / (stops - starts)
