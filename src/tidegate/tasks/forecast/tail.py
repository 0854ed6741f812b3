"""The end of the series, which a fitted forecaster keeps, and rows that continue it."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from tidegate.config import Field
from tidegate.data import Grid, Panel, Series
from tidegate.errors import DataError, ModelFileError
from tidegate.tasks.forecast.recipe import Recipe


@dataclass(frozen=True)
class TailSeries:
    """A series of a tail, and its first place."""

    name: str
    start: Annotated[int, Field(ge=-(2**62), le=2**62)]


@dataclass(frozen=True)
class TailData:
    """A tail without its numbers."""

    name: str
    target: str
    covariates: tuple[str, ...]
    grid: Grid
    series: tuple[TailSeries, ...]


def keep_tail(panel: Panel, recipe: Recipe) -> Panel:
    """The last steps of each series: all that a forecast from its end looks at."""
    return replace(
        panel, series=tuple(_last(series, recipe.past + recipe.context) for series in panel.series), notes=()
    )


def continue_tail(tail: Panel, new: Panel, recipe: Recipe, timed: bool) -> Panel:
    """The series of `new`, each after what is kept of the series of that name before it; where both have a row, the
    new one counts.

    Without a time column (`timed` false) rows of a known series go on where it ended. A series that begins before what
    is kept or so long after it that nothing kept is looked back at, or that the fit did not see, is not joined; it must
    have the steps that a forecast looks back at.
    """
    known = {series.name: series for series in tail.series}
    joined = tuple(_continue(known.get(series.name), series, timed, recipe.past) for series in new.series)
    for series in joined:
        if len(series) <= recipe.past:
            counted = "1 step" if len(series) == 1 else f"{len(series)} steps"
            raise DataError(
                f"{new.name}: {_called(series)} has {counted}, but a forecast looks back at "
                f"{recipe.past + 1}. Give at least {recipe.past + 1} steps, or rows that follow the data of the fit."
            )
    return replace(new, series=tuple(_last(series, recipe.past + recipe.context) for series in joined))


def tail_to_data(tail: Panel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A tail as plain data and tensors."""
    grid = tail.grid
    data = {
        "name": tail.name,
        "target": tail.target,
        "covariates": list(tail.covariates),
        "grid": asdict(grid),
        "series": [{"name": series.name, "start": series.start} for series in tail.series],
    }
    tensors = {f"tail.{k}.values": torch.from_numpy(series.values.copy()) for k, series in enumerate(tail.series)}
    extra = {f"tail.{k}.covariates": torch.from_numpy(one.covariates.copy()) for k, one in enumerate(tail.series)}
    return data, tensors | extra


def tail_from_data(data: TailData, tensors: dict[str, Tensor]) -> Panel:
    """The tail that `tail_to_data` wrote; its tensors are taken out of the others."""
    series = []
    for k, one in enumerate(data.series):
        values, extra = (tensors.pop(f"tail.{k}.{name}") for name in ("values", "covariates"))
        shape = (len(values), len(data.covariates))
        if values.dim() != 1 or extra.shape != shape or not values.dtype == extra.dtype == torch.float64:
            raise ModelFileError(f"tensors of series {one.name!r:.80} must be float64, one number a step")
        series.append(Series(one.name, one.start, values.numpy(), extra.numpy()))
    return Panel(data.name, data.target, data.covariates, data.grid, tuple(series), ())


def _continue(kept: Series | None, new: Series, timed: bool, past: int) -> Series:
    if kept is None:
        return new
    start = new.start if timed else kept.stop + new.start
    gap = start - kept.stop
    if gap > past or start <= kept.start:
        return new
    before, missing = len(kept) + min(gap, 0), np.full((max(gap, 0), new.covariates.shape[1]), np.nan)
    values = np.concatenate([kept.values[:before], np.full(max(gap, 0), np.nan), new.values])
    covariates = np.concatenate([kept.covariates[:before], missing, new.covariates])
    return Series(new.name, kept.start, values, covariates)


def _last(series: Series, count: int) -> Series:
    first = max(0, len(series) - count)
    while first and np.isnan(series.values[first]):
        first -= 1
    return Series(series.name, series.start + first, series.values[first:], series.covariates[first:])


def _called(series: Series) -> str:
    return f"series '{series.name}'" if series.name else "the series"
