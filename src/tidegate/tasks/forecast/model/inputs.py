"""Series as tensors: scaled values, the net's inputs, and the anchors from which its forecasts start."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tidegate.data import Grid, Panel, Series, calendar_features
from tidegate.errors import DataError
from tidegate.metrics.baselines import last_known, seasonal_offsets
from tidegate.tasks.forecast.model.features import SeriesMemory, run_memory
from tidegate.tasks.forecast.model.recipe import Categories, Recipe

_LARGEST = 1e30
_GROWN_SEASONS, _GROWN_STEPS = 4, 16  # after which the age stays the same: a net must not learn dates by it
ANCHORS = (
    "the last value",
    "the last season",
    "the last season, moved to the present level",
    "the mean of the last seasons",
    "the mean of the last seasons, moved to the present level",
    "the mean of all values",
    "the slow level",
    "the smoothed level",
    "the Theta method",
    "the last value with drift",
)
CYCLE_ANCHORS = ("the last cycle", "the last cycle, moved to the present level")


@dataclass(frozen=True)
class SeriesPart:
    """Steps of a series after those that a net has run through before.

    The first `lead` steps of `series` are only looked back at; `memory` holds all that is needed of the steps before
    the others (None: they begin the series).
    """

    series: Series
    lead: int = 0
    memory: SeriesMemory | None = None


@dataclass(frozen=True)
class ForecastInputs:
    """The series of a panel in blocks, R rows in all; series s has its steps from row `offsets[s]` on.

    Before a block's steps there are rows to look back at, after them rows for the horizon. `x [R, F]` are the net's
    inputs, `ahead [R, C]` those of a step that are known in advance. `filled [R]` are the scaled values with gaps
    filled by the last known one, `truth [R]` the same with NaN in the gaps, `summaries [R, 6]` the other anchors'
    parts, all relative to `filled`.
    """

    recipe: Recipe
    names: tuple[str, ...]
    x: Tensor
    ahead: Tensor
    filled: Tensor
    truth: Tensor
    summaries: Tensor
    offsets: Tensor
    lengths: Tensor

    def anchors(self, rows: Tensor) -> Tensor:
        """Plain forecasts to start from, minus the value at the origin: rows `[...]` to `[..., K, A]`, see ANCHORS."""
        recipe = self.recipe
        here = self.filled[rows]
        steps = torch.arange(1, recipe.horizon + 1)
        seasonal, before = self._seasons(rows, here, recipe.season, recipe.back)
        level, slow, mean, half_trend, correction, drift = self.summaries[rows][..., None].unbind(-2)
        kinds = [
            torch.zeros_like(seasonal[..., 0]),
            seasonal[..., 0],
            seasonal[..., 0] - before[..., :1],
            seasonal.mean(-1),
            seasonal.mean(-1) - before.mean(-1, keepdim=True),
            mean.expand_as(seasonal[..., 0]),
            slow.expand_as(seasonal[..., 0]),
            level.expand_as(seasonal[..., 0]),
            level + half_trend * (steps + correction),
            drift * steps,
        ]
        if recipe.cycle:
            cycle, before = self._seasons(rows, here, recipe.cycle, 1)
            kinds += [cycle[..., 0], cycle[..., 0] - before[..., :1]]
        return torch.stack(kinds, -1)

    def _seasons(self, rows: Tensor, here: Tensor, season: int, back: int) -> tuple[Tensor, Tensor]:
        """The last seasons: values `[..., K, back]` at the places ahead, and `[..., back]` at that of the origin."""
        offsets = torch.from_numpy(seasonal_offsets(self.recipe.horizon, season))
        seasons = season * torch.arange(back)
        past = self.filled[rows[..., None, None] + offsets[:, None] - seasons] - here[..., None, None]
        before = self.filled[rows[..., None] - season - seasons] - here[..., None]
        return past, before

    def known(self, rows: Tensor) -> Tensor:
        """What is known in advance of the steps after each origin: rows `[...]` give `[..., K, C]`."""
        return self.ahead[rows[..., None] + torch.arange(1, self.recipe.horizon + 1)]

    def targets(self, rows: Tensor, stops: Tensor) -> Tensor:
        """The values after each origin, minus the value there: `[..., K]`, NaN where missing or at `stops` or later."""
        later = rows[..., None] + torch.arange(1, self.recipe.horizon + 1)
        truth = self.truth[later] - self.filled[rows][..., None]
        return truth.masked_fill(later >= stops[..., None], torch.nan)


def make_inputs(panel: Panel, recipe: Recipe, parts: tuple[SeriesPart, ...] | None = None) -> ForecastInputs:
    """The tensors of a panel, or of parts of its series."""
    parts = parts or tuple(SeriesPart(series) for series in panel.series)
    columns = zip(*(_block(part, panel.grid, recipe) for part in parts), strict=True)
    x, ahead, filled, truth, summaries = (torch.from_numpy(np.concatenate(c).astype(np.float32)) for c in columns)
    lengths = torch.tensor([len(part.series) - part.lead for part in parts])
    sizes = lengths + recipe.past + recipe.horizon
    offsets = sizes.cumsum(0) - sizes + recipe.past
    names = tuple(part.series.name for part in parts)
    return ForecastInputs(recipe, names, x, ahead, filled, truth, summaries, offsets, lengths)


def input_sizes(grid: Grid, recipe: Recipe) -> tuple[int, int]:
    """The numbers of inputs and of inputs known in advance."""
    calendar, _ = calendar_features(grid, np.zeros(1, int), recipe.seen)
    known = calendar.shape[1] + 2 * len(recipe.known)
    static = sum(len(feature.names) if isinstance(feature, Categories) else 1 for feature in recipe.static)
    return 7 + known + 2 * len(recipe.covariates) + static, known


def _block(part: SeriesPart, grid: Grid, recipe: Recipe) -> tuple[np.ndarray, ...]:
    """The rows of one series: x, ahead, filled, truth, summaries."""
    series, lead, past = part.series, part.lead, recipe.past
    scale = recipe.scale(series)
    scaled = scale.scaled(series.values, series.start)
    _refuse_extreme(scaled, series, grid)
    memory = replace(part.memory) if part.memory else SeriesMemory()
    levels = run_memory(scaled[lead:], memory, scale.alpha, recipe.season)
    here = levels.filled
    before = _before(last_known(scaled)[:lead] if lead else here[:1], past)
    filled = np.concatenate([before, here])
    relative = [levels.level - here, levels.slow - here, levels.mean - here]
    calendar, _ = calendar_features(grid, np.arange(series.start + lead, series.stop + recipe.horizon), recipe.seen)
    ahead = np.concatenate([calendar, _known_columns(series, recipe)[lead:]], axis=1)
    columns = [
        here - filled[past - 1 : -1],
        here - filled[past - recipe.season : len(filled) - recipe.season],
        here - levels.level,
        here - levels.slow,
        np.isnan(scaled[lead:]),
        np.full(len(here), np.log(scale.unit) if scale.log else 0.0),
        np.minimum(levels.age / (_GROWN_SEASONS * recipe.season + _GROWN_STEPS), 1.0),
        *ahead[: len(here)].T,
        *(column[lead:] for pair in _covariate_columns(series, recipe) for column in pair),
        *(np.full(len(here), number) for number in _static_numbers(series, recipe)),
    ]
    around = (past, recipe.horizon)
    return (
        np.pad(np.arcsinh(np.stack(columns, -1)), (around, (0, 0))),
        np.pad(ahead, ((past, 0), (0, 0))),
        np.pad(filled, (0, recipe.horizon)),
        np.pad(np.concatenate([before, scaled[lead:]]), (0, recipe.horizon), constant_values=np.nan),
        np.pad(np.stack([*relative, levels.trend / 2, levels.correction, levels.drift], -1), (around, (0, 0))),
    )


def _before(values: np.ndarray, count: int) -> np.ndarray:
    """The last `count` of the values; where there are fewer, the first is repeated in front."""
    return np.concatenate([np.full(max(count - len(values), 0), values[0]), values[max(len(values) - count, 0) :]])


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
    for values, standard in zip(series.covariates.T, recipe.covariates, strict=True):
        scaled = (values - standard.mean) / standard.deviation
        missing = np.isnan(scaled)
        start = 0.0 if missing[0] else scaled[0]
        columns.append((last_known(np.concatenate([[start], scaled]))[1:], missing))
    return columns


def known_filled(series: Series, recipe: Recipe) -> np.ndarray:
    """The columns known in advance up to the horizon after the end `[N + horizon, K]`, in their own units.

    What is missing takes the value of the season before, at last the mean.
    """
    count = len(series) + recipe.horizon
    found = np.full((count, len(recipe.known)), np.nan)
    found[: len(series.known)] = series.known[:count]
    for row, column in np.argwhere(np.isnan(found)):
        before = found[row - recipe.season, column] if row >= recipe.season else recipe.known[column].mean
        found[row, column] = before
    return found


def _known_columns(series: Series, recipe: Recipe) -> np.ndarray:
    """What is known in advance, scaled, and where it is missing: `[N + horizon, 2 K]`."""
    filled = known_filled(series, recipe)
    missing = np.ones(filled.shape)
    given = series.known[: len(filled)]
    missing[: len(given)] = np.isnan(given)
    means, deviations = (np.array([getattr(one, name) for one in recipe.known]) for name in ("mean", "deviation"))
    return np.concatenate([(filled - means) / deviations, missing], axis=1)


def _static_numbers(series: Series, recipe: Recipe) -> list[float]:
    numbers: list[float] = []
    for value, feature in zip(series.static, recipe.static, strict=True):
        if isinstance(feature, Categories):
            numbers += [float(str(value) == name) for name in feature.names]
        else:
            numbers.append((float(value) - feature.mean) / feature.deviation)
    return numbers
