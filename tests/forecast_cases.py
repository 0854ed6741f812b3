"""Small series and a small fit that the tests of forecasting share."""

from functools import cache

import numpy as np
import polars as pl
import torch

from tidegate.data import Panel, read_panel
from tidegate.tasks.forecast import Forecaster
from tidegate.tasks.forecast.judging.split import Split, split_all
from tidegate.tasks.forecast.model.inputs import ForecastInputs, make_inputs
from tidegate.tasks.forecast.model.net import ForecastNet
from tidegate.tasks.forecast.model.recipe import Recipe, first_origin, make_recipe
from tidegate.tasks.forecast.model.scale import Scale
from tidegate.training import seeded

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def waves(count: int = 260, season: int = 6, seed: int = 0) -> np.ndarray:
    """A season whose height wanders slowly, on a slope, with little noise: the recent past tells much."""
    chance = np.random.default_rng(seed)
    height = 2.0 + np.cumsum(0.05 * chance.normal(size=count))
    shape = np.sin(2 * np.pi * np.arange(count) / season)
    return 50.0 + 0.02 * np.arange(count) + height * shape + 0.1 * chance.normal(size=count)


def two_series() -> pl.DataFrame:
    """Series "b" of 150 months and "a" of 130 with a gap and missing values, with a covariate."""
    months = [f"{2000 + k // 12}-{k % 12 + 1:02d}" for k in range(150)]
    parts = []
    for name, count, scale in (("b", 150, 1.0), ("a", 130, 100.0)):
        values = list(scale * waves(count, 12, seed=count))
        extra = list(np.arange(count) * 0.5)
        if name == "a":
            values[40] = values[41] = extra[60] = None
        parts.append(pl.DataFrame({"who": name, "month": months[:count], "y": values, "rain": extra}, strict=False))
    return pl.concat(parts).filter(~((pl.col("who") == "a") & (pl.col("month") == months[70])))


def prepared(
    values: np.ndarray, horizon: int, season: int, context: int = 12
) -> tuple[Panel, tuple[Split, ...], ForecastInputs]:
    """A panel of one series with its split and inputs."""
    panel = read_panel(pl.DataFrame({"y": values}).with_columns(pl.col("y").fill_nan(None)), "y")
    panel, splits = split_all(panel, horizon, first_origin(season))
    stops = [cut.validation for cut in splits]
    recipe = make_recipe(panel, stops, horizon=horizon, season=season, context=context)
    return panel, splits, make_inputs(panel, recipe)


def recipe(horizon: int, season: int, back: int = 2, context: int = 12, cycle: int = 0, alpha: float = 0.4) -> Recipe:
    """A recipe that leaves the one series without a name as it is."""
    return Recipe(horizon, season, back, cycle, context, 1, {"": Scale(0.0, 1.0, alpha=alpha)}, ())


def small_net(inputs: ForecastInputs, cell: str = "elman", known: int = 0, seed: int | None = None) -> ForecastNet:
    """A net for these inputs with random weights everywhere, head and spread included."""
    with seeded(seed or 0):
        kinds = inputs.anchors(inputs.offsets[:1] + inputs.recipe.first_origin).shape[-1]
        net = ForecastNet(
            cell, (inputs.x.shape[1], known), kinds, inputs.recipe.horizon, LEVELS, hidden=5, layers=1
        ).eval()
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(0.3 * torch.randn_like(weight))
    return net


@cache
def fitted_waves() -> Forecaster:
    """A quick fit of `waves`, made once."""
    return Forecaster(4, season=6, hidden_size=8, context=24, quantiles=LEVELS, seed=1).fit(
        pl.DataFrame({"y": waves()}), "y"
    )


@cache
def fitted_two() -> Forecaster:
    """A quick fit of `two_series` with a covariate, two layers and truncation, made once."""
    forecaster = Forecaster(
        3, cell="gru", hidden_size=6, num_layers=2, context=20, gradient="truncated:10,15", budget=4
    )
    return forecaster.fit(two_series(), "y", time="month", id="who", covariates=["rain"])
