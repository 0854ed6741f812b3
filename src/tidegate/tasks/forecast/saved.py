"""A fitted forecaster as plain data: the types of its fields, and what must agree with what."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tidegate.config import ForecastOptions
from tidegate.data import Grid, Panel, Reading
from tidegate.errors import DataError, ModelFileError
from tidegate.tasks.forecast.judging.baselines import baselines
from tidegate.tasks.forecast.judging.evaluation import METRICS, NET, START, Evaluation
from tidegate.tasks.forecast.model.inputs import make_inputs
from tidegate.tasks.forecast.model.recipe import Recipe
from tidegate.tasks.forecast.story import Story
from tidegate.tasks.forecast.tail import TailData
from tidegate.training import History

VERSION = 2


@dataclass(frozen=True)
class ForecasterData:
    """Everything but tensors."""

    version: Literal[2]
    options: ForecastOptions
    cell: dict[str, Any]
    columns: tuple[str, str | None, str | None, tuple[str, ...]]
    recipe: Recipe
    tail: TailData
    evaluation: Evaluation
    history: History
    story: Story
    instead: str | None
    reading: Reading = field(default_factory=Reading)


def check_agreement(data: ForecasterData, panel: Panel) -> None:
    """Raise ModelFileError where parts contradict each other, or no forecast can be made of the tail."""
    fault = next((said for wrong, said in _faults(data, panel) if wrong), None)
    if fault is None:
        try:
            make_inputs(panel, data.recipe)
        except DataError as error:
            fault = str(error)
    if fault is not None:
        raise ModelFileError(fault)


def _faults(data: ForecasterData, tail: Panel) -> Iterator[tuple[bool, str]]:
    """Whether something is wrong, and what. Later lines rely on earlier ones."""
    recipe, columns, grid = data.recipe, len(data.columns[3]), tail.grid
    yield not tail.series, "tail.series is empty"
    yield recipe.horizon != data.options.horizon, "recipe.horizon and options.horizon differ"
    yield recipe.context > 2**24 or recipe.past > 2**24, "recipe looks back at too many steps"
    yield not set(recipe.scales) <= {s.name for s in tail.series}, "recipe.scales and tail.series differ"
    yield any(len(s.pattern) not in (0, recipe.season) for s in recipe.scales.values()), "a pattern is not one season"
    yield any(s.log and s.floor <= 0 for s in recipe.scales.values()), "a logarithm needs a floor above 0"
    yield any(one.lead >= one.rows for one in data.tail.series), "tail.series has no step after its lead"
    yield any(np.isnan(series.values[0]) for series in tail.series), "tail must begin with known values"
    yield not columns == len(recipe.covariates) == len(tail.covariates), "numbers of covariates differ"
    reading = data.reading
    yield not len(reading.known) == len(recipe.known) == len(tail.known), "numbers of known columns differ"
    yield not len(reading.static) == len(recipe.static) == len(tail.static), "numbers of static columns differ"
    yield any(len(series.static) != len(tail.static) for series in tail.series), "tail.series lacks static features"
    places = [(series.start, series.stop + recipe.horizon) for series in tail.series]
    yield not all(grid.has_times(*ends) for ends in places), "tail.grid gives times out of range"
    names = baselines(np.zeros(max(recipe.season, 2)), recipe.season)
    yield data.instead not in (None, START, *names), f"instead must not be {data.instead!r}"
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
