"""Series as tensors: scaled values, the net's inputs, and the anchors from which its forecasts start."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tidegate.data import Grid, Panel, Series, calendar_features
from tidegate.errors import DataError
from tidegate.metrics.baselines import last_known, seasonal_offsets
from tidegate.tasks.forecast.recipe import Recipe

_LARGEST = 1e30
ANCHORS = (
    "the last value",
    "the last season",
    "the last season, moved to the present level",
    "the mean of the last seasons",
    "the mean of the last seasons, moved to the present level",
    "the mean of the last steps",
)


@dataclass(frozen=True)
class ForecastInputs:
    """The series of a panel laid end to end, N rows in all; series s has the rows from `offsets[s]` on.

    `x [N, F]` are the net's inputs. `filled [N]` are the scaled values with gaps filled by the last known one, `truth
    [N]` the same with NaN in the gaps, `level [N]` the mean of the last steps.
    """

    recipe: Recipe
    names: tuple[str, ...]
    x: Tensor
    filled: Tensor
    truth: Tensor
    level: Tensor
    offsets: Tensor
    lengths: Tensor

    def anchors(self, rows: Tensor) -> Tensor:
        """Plain forecasts to start from, minus the value at the origin: rows `[...]` give `[..., K, A]`, see ANCHORS.

        The rows need all steps that a forecast looks back at before them, in their own series.
        """
        recipe = self.recipe
        here = self.filled[rows]
        ahead = torch.from_numpy(seasonal_offsets(recipe.horizon, recipe.season))
        seasons = recipe.season * torch.arange(recipe.back)
        past = self.filled[rows[..., None, None] + ahead[:, None] - seasons] - here[..., None, None]
        before = self.filled[rows[..., None] - recipe.season - seasons] - here[..., None]
        last, mean = past[..., 0], past.mean(-1)
        kinds = (
            torch.zeros_like(last),
            last,
            last - before[..., :1],
            mean,
            mean - before.mean(-1, keepdim=True),
            (self.level[rows] - here)[..., None].expand_as(last),
        )
        return torch.stack(kinds, -1)

    def targets(self, rows: Tensor, stops: Tensor) -> Tensor:
        """The values after each origin, minus the value there: `[..., K]`, NaN where missing or at `stops` or later."""
        later = rows[..., None] + torch.arange(1, self.recipe.horizon + 1)
        truth = self.truth[later.clamp(max=len(self.truth) - 1)] - self.filled[rows][..., None]
        return truth.masked_fill(later >= stops[..., None], torch.nan)


def make_inputs(panel: Panel, recipe: Recipe) -> ForecastInputs:
    """The tensors of a panel."""
    parts = [_one_series(series, panel.grid, recipe) for series in panel.series]
    joined = [np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True)]
    x, filled, truth, level = map(torch.from_numpy, joined)
    lengths = torch.tensor([len(series) for series in panel.series])
    names = tuple(series.name for series in panel.series)
    return ForecastInputs(recipe, names, x, filled, truth, level, lengths.cumsum(0) - lengths, lengths)


def _one_series(series: Series, grid: Grid, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    scale = recipe.scale(series)
    truth = (series.values - scale.centre) / scale.unit
    _refuse_extreme(truth, series, grid)
    filled = last_known(truth)
    level = trailing_mean(filled, recipe.level)
    calendar, _ = calendar_features(grid, np.arange(series.start, series.stop), recipe.seen)
    columns = [
        filled - _lagged(filled, 1),
        filled - _lagged(filled, recipe.season),
        filled - level,
        np.isnan(truth),
        *calendar.T,
        *(column for pair in _covariate_columns(series, recipe) for column in pair),
    ]
    return np.arcsinh(np.stack(columns, -1)), filled, truth, level


def _refuse_extreme(scaled: np.ndarray, series: Series, grid: Grid) -> None:
    extreme = np.flatnonzero(np.abs(scaled) > _LARGEST)
    if len(extreme):
        place = int(extreme[0])
        name = f"Series '{series.name}'" if series.name else "The series"
        raise DataError(
            f"{name} has the value {series.values[place]:g} at {grid.times(np.array(series.start + place))}, which is "
            f"{abs(scaled[place]):.1g} times its usual change. Correct the value, or leave it empty."
        )


def _covariate_columns(series: Series, recipe: Recipe) -> list[tuple[np.ndarray, np.ndarray]]:
    columns = []
    for values, scale in zip(series.covariates.T, recipe.covariates, strict=True):
        scaled = (values - scale.centre) / scale.unit
        missing = np.isnan(scaled)
        start = 0.0 if missing[0] else scaled[0]
        columns.append((last_known(np.concatenate([[start], scaled]))[1:], missing))
    return columns


def _lagged(values: np.ndarray, lag: int) -> np.ndarray:
    return np.concatenate([values[:lag], values])[: len(values)]


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last `window` values at each place, of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    stops = np.arange(1, len(values) + 1)
    starts = np.maximum(0, stops - window)
    return (sums[stops] - sums[starts]) / (stops - starts)
