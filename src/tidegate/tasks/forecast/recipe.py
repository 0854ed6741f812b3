"""What a forecaster learns about the scales of its data before training: all of it from the training part."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from tidegate.config import Field
from tidegate.data import Panel, Series
from tidegate.metrics import seasonal_scale
from tidegate.tasks.forecast.split import Split

Count = Annotated[int, Field(ge=1, le=2**31)]
_SEASONS_BACK = 4
_SHORTEST_LEVEL = 8


@dataclass(frozen=True)
class Scale:
    """A series' centre and unit: its mean, and the mean absolute difference to the season before."""

    centre: Annotated[float, Field(ge=-1e100, le=1e100)]
    unit: Annotated[float, Field(gt=0, le=1e101)]


@dataclass(frozen=True)
class Recipe:
    """How values become inputs.

    `back` seasons and the mean over the last `level` steps are looked back at; `context` is the length of a training
    window, of which the first half only warms the net up; `seen` steps decide which calendar cycles are used.
    """

    horizon: Count
    season: Count
    back: Count
    level: Count
    context: Annotated[Count, Field(ge=2)]
    seen: Count
    scales: dict[str, Scale]
    covariates: tuple[Scale, ...]

    @property
    def past(self) -> int:
        """The first place at which everything that a forecast looks back at is there."""
        return max(self.back * self.season, self.level - 1)

    @property
    def warm(self) -> int:
        """Steps at the start of a window that warm the net up and are not scored."""
        return self.context // 2

    @property
    def stretch(self) -> int:
        """Steps of a window that are scored."""
        return self.context - self.warm

    def scale(self, series: Series) -> Scale:
        """The scale of a series: that of the fit, or for a series that the fit did not see, from its own values."""
        return self.scales.get(series.name) or scale_of(series.values, self.season)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return asdict(self)


def look_back(panel: Panel, season: int) -> tuple[int, int]:
    """Seasons and steps to look back at: up to four seasons, while they take at most a quarter of every series."""
    shortest = min(len(series) for series in panel.series)
    return max(1, min(_SEASONS_BACK, shortest // (4 * season))), max(season, _SHORTEST_LEVEL)


def make_recipe(panel: Panel, splits: tuple[Split, ...], *, horizon: int, season: int, context: int | None) -> Recipe:
    """The recipe for a panel; nothing after the training parts is looked at."""
    back, level = look_back(panel, season)
    training = [series.values[: cut.validation] for series, cut in zip(panel.series, splits, strict=True)]
    shortest = min(len(values) for values in training)
    wanted = context or min(max(4 * season, 64), 192)
    scales = {series.name: scale_of(values, season) for series, values in zip(panel.series, training, strict=True)}
    pieces = [series.covariates[: cut.validation] for series, cut in zip(panel.series, splits, strict=True)]
    covariates = tuple(_covariate_scale(column) for column in np.concatenate(pieces).T)
    return Recipe(horizon, season, back, level, max(2, min(wanted, shortest)), shortest, scales, covariates)


def scale_of(values: np.ndarray, season: int) -> Scale:
    """Centre and unit of values with gaps; a unit that would be zero falls back on plainer ones, at last on 1."""
    candidates = [seasonal_scale(values, lag) for lag in (season, 1)] + [float(np.nanstd(values))]
    unit = next((unit for unit in candidates if np.isfinite(unit) and unit > 0), 1.0)
    return Scale(float(np.nanmean(values)), unit)


def _covariate_scale(column: np.ndarray) -> Scale:
    known = column[~np.isnan(column)]
    return Scale(float(known.mean()), float(known.std()) or 1.0) if len(known) else Scale(0.0, 1.0)
