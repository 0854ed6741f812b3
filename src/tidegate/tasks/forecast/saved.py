"""A fitted forecaster as plain data: the types of its fields, and what must agree with what."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidegate.config import ForecastOptions
from tidegate.data import Grid, Panel, calendar_features
from tidegate.errors import DataError, ModelFileError
from tidegate.tasks.forecast.evaluation import METRICS, NET, START, Evaluation
from tidegate.tasks.forecast.inputs import make_inputs
from tidegate.tasks.forecast.recipe import Count, Recipe
from tidegate.tasks.forecast.story import Story
from tidegate.tasks.forecast.tail import TailData
from tidegate.training import History


@dataclass(frozen=True)
class ForecasterData:
    """Everything but tensors."""

    options: ForecastOptions
    cell: dict[str, Any]
    inputs: Count
    columns: tuple[str, str | None, str | None, tuple[str, ...]]
    recipe: Recipe
    tail: TailData
    evaluation: Evaluation
    history: History
    story: Story


def check_agreement(data: ForecasterData, tail: Panel) -> None:
    """Raise ModelFileError where parts contradict each other, or no forecast can be made of the tail."""
    fault = next((said for wrong, said in _faults(data, tail) if wrong), None)
    if fault is None:
        try:
            inputs = make_inputs(tail, data.recipe)
            fault = None if inputs.filled.isfinite().all() else "tail must begin with known values"
        except DataError as error:
            fault = str(error)
    if fault is not None:
        raise ModelFileError(fault)


def _faults(data: ForecasterData, tail: Panel) -> Iterator[tuple[bool, str]]:
    """Whether something is wrong, and what. Later lines rely on earlier ones."""
    recipe, columns, grid = data.recipe, len(data.columns[3]), tail.grid
    shortest = min((len(series) for series in tail.series), default=0)
    needed = max(recipe.past + 1, recipe.context)
    yield recipe.horizon != data.options.horizon, "recipe.horizon and options.horizon differ"
    yield sorted(recipe.scales) != sorted(s.name for s in tail.series), "recipe.scales and tail.series differ"
    yield needed > shortest, f"recipe looks back at {needed} steps, but tail.series has only {shortest}"
    yield not columns == len(recipe.covariates) == len(tail.covariates), "numbers of covariates differ"
    places = [(series.start, series.stop + recipe.horizon) for series in tail.series]
    yield not all(grid.has_times(*ends) for ends in places), "tail.grid gives times out of range"
    calendar, _ = calendar_features(grid, np.zeros(1, int), recipe.seen)
    yield data.inputs != 4 + calendar.shape[1] + 2 * columns, f"inputs must not be {data.inputs} for this recipe"
    yield not any(check.best for check in data.history.checks), "history has no best check"
    yield not _complete(data.evaluation, data.options), "evaluation has not all methods, scores, horizons or levels"
    yield not _consistent(data.story, data.options, grid), "story has parts of different lengths, or out of range"


def _complete(found: Evaluation, options: ForecastOptions) -> bool:
    methods = found.scores.keys()
    return (
        {NET, START, found.best_baseline} <= methods == found.by_horizon.keys() == found.below.keys()
        and found.levels == options.quantiles
        and all(scores.keys() >= METRICS for scores in found.scores.values())
        and all(len(ahead.get("quantile_loss", ())) == options.horizon for ahead in found.by_horizon.values())
        and all(len(shares) == len(options.quantiles) for shares in found.below.values())
    )


def _consistent(story: Story, options: ForecastOptions, grid: Grid) -> bool:
    places, shape = story.places, (options.horizon, len(options.quantiles))
    firsts = [index for _, index in story.parts]
    return (
        0 < len(places) == len(story.values)
        and all(a < b for a, b in itertools.pairwise(places))
        and grid.has_times(places[0], places[-1])
        and firsts == sorted(firsts)
        and all(0 <= first <= len(places) for first in firsts)
        and all(
            np.shape(example.quantiles) == shape
            and len(example.truth) == options.horizon
            and len(example.history) > 0
            and grid.has_times(example.place - len(example.history), example.place + options.horizon)
            for example in story.examples
        )
    )
