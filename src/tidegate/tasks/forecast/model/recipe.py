"""What a forecaster learns about its data before training: scales, and how far the net looks back."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from tidegate.config import Field
from tidegate.data import Grid, Panel, Series
from tidegate.tasks.forecast.model.scale import Finite, Scale, scale_of

Count = Annotated[int, Field(ge=1, le=2**31)]
_SEASONS_BACK = 4
_FEWEST_STEPS = 3  # before the first origin: two differences
_SHORTEST_CONTEXT, _LONGEST_CONTEXT = 64, 192
_DAY = 86_400e6
_CYCLES_SEEN = 4


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of a covariate."""

    mean: Finite
    deviation: Annotated[float, Field(gt=0, le=1e101)]


@dataclass(frozen=True)
class Categories:
    """The texts that a static feature has; each is an input of its own."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """How values become inputs.

    `back` seasons are looked back at, and where `cycle` is above 0, that many steps (a week of hours).
    `context` is the number of steps through which a training batch goes; `seen` steps decide which calendar cycles are
    used. `positive` and `count` are as in `scale_of`.
    """

    horizon: Count
    season: Count
    back: Count
    cycle: Annotated[int, Field(ge=0, le=2**31)]
    context: Annotated[Count, Field(ge=2)]
    seen: Count
    scales: dict[str, Scale]
    covariates: tuple[Standard, ...]
    positive: bool | None = None
    count: bool = False
    known: tuple[Standard, ...] = ()
    static: tuple[Standard | Categories, ...] = ()

    @property
    def past(self) -> int:
        """Steps before an origin that its forecast reads directly."""
        return max(self.back * self.season, self.cycle)

    @property
    def first_origin(self) -> int:
        """The first place in a series from which a forecast is scored."""
        return first_origin(self.season)

    def scale(self, series: Series) -> Scale:
        """The scale of a series: that of the fit, or for a series that the fit did not see, from its own values."""
        found = self.scales.get(series.name)
        if found is None:
            found = scale_of(series.values, series.start, self.season, positive=self.positive, count=self.count)
        return found

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return asdict(self)


def first_origin(season: int) -> int:
    """The first place in a series from which a forecast is scored: a season, or at least two differences, is known."""
    return max(season, _FEWEST_STEPS) - 1


def make_recipe(
    panel: Panel,
    stops: list[int],
    *,
    horizon: int,
    season: int,
    context: int | None,
    positive: bool | None = None,
    count: bool = False,
) -> Recipe:
    """The recipe for a panel, from the first `stops[s]` steps of each series; nothing after them is looked at."""
    training = [series.values[:stop] for series, stop in zip(panel.series, stops, strict=True)]
    typical = int(np.median([len(values) for values in training]))
    longest = max(len(values) for values in training)
    wanted = context or min(max(4 * season, _SHORTEST_CONTEXT), _LONGEST_CONTEXT)
    return Recipe(
        horizon=horizon,
        season=season,
        back=max(1, min(_SEASONS_BACK, typical // (4 * season))),
        cycle=_weekly(panel.grid, season, typical),
        context=max(2, min(wanted, longest)),
        seen=longest,
        scales={
            series.name: scale_of(values, series.start, season, positive=positive, count=count)
            for series, values in zip(panel.series, training, strict=True)
        },
        covariates=_standards([s.covariates[:stop] for s, stop in zip(panel.series, stops, strict=True)]),
        positive=positive,
        count=count,
        known=_standards([s.known[:stop] for s, stop in zip(panel.series, stops, strict=True)]),
        static=tuple(_feature(values) for values in zip(*(series.static for series in panel.series), strict=True)),
    )


def _weekly(grid: Grid, season: int, steps: int) -> int:
    """Steps of a week, where the season is a day and four weeks are seen; else 0."""
    daily = grid.unit == "us" and season * grid.step == _DAY
    return 7 * season if daily and steps >= _CYCLES_SEEN * 7 * season else 0


def _standards(pieces: list[np.ndarray]) -> tuple[Standard, ...]:
    return tuple(_standard(column) for column in np.concatenate(pieces).T)


def _feature(values: tuple[float | str, ...]) -> Standard | Categories:
    if any(isinstance(value, str) for value in values):
        return Categories(tuple(sorted({str(value) for value in values})))
    return _standard(np.array(values, float))


def _standard(column: np.ndarray) -> Standard:
    known = column[~np.isnan(column)]
    return Standard(float(known.mean()), float(known.std()) or 1.0) if len(known) else Standard(0.0, 1.0)
