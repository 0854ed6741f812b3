"""What a fit leaves: all that predicting, reporting and saving need."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.config import ForecastOptions, checked
from tidegate.data import Decimal, Panel, read_panel
from tidegate.equations import Cell
from tidegate.nn.weights import fill
from tidegate.tasks.forecast.evaluation import Evaluation
from tidegate.tasks.forecast.inputs import ForecastInputs, make_inputs
from tidegate.tasks.forecast.net import ForecastNet
from tidegate.tasks.forecast.recipe import Recipe
from tidegate.tasks.forecast.result import Forecast
from tidegate.tasks.forecast.saved import ForecasterData, check_agreement
from tidegate.tasks.forecast.story import Story
from tidegate.tasks.forecast.tail import continue_tail, tail_from_data, tail_to_data
from tidegate.tasks.forecast.task import forecasts_at
from tidegate.training import History


@dataclass(frozen=True)
class Columns:
    """The names of the columns that the forecaster was fitted on."""

    target: str
    time: str | None
    id: str | None
    covariates: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """A trained net with its recipe, the end of its series, its judgement and its record."""

    options: ForecastOptions
    columns: Columns
    recipe: Recipe
    net: ForecastNet
    tail: Panel
    evaluation: Evaluation
    history: History
    story: Story

    def read(self, data: Any, decimal: Decimal | None = None, encoding: str | None = None) -> Panel:
        """New rows, joined to the kept end where they follow it."""
        columns = self.columns
        new = read_panel(
            data,
            columns.target,
            time=columns.time,
            id=columns.id,
            covariates=columns.covariates,
            grid=self.tail.grid,
            decimal=decimal,
            encoding=encoding,
        )
        return continue_tail(self.tail, new, self.recipe, columns.time is not None)

    def forecast(self, panel: Panel) -> Forecast:
        """Quantiles for the steps after the end of each series of a panel."""
        inputs = make_inputs(panel, self.recipe)
        quantiles = np.stack([self._after(inputs, index, panel) for index in range(len(panel.series))])
        ahead = np.arange(self.recipe.horizon)
        times = np.stack([panel.grid.times(series.stop + ahead) for series in panel.series])
        names = tuple(series.name for series in panel.series)
        columns = self.columns
        return Forecast(
            names,
            times,
            self.options.quantiles,
            quantiles,
            columns.target,
            columns.time or "step",
            columns.id,
            panel.grid,
        )

    def _after(self, inputs: ForecastInputs, index: int, panel: Panel) -> np.ndarray:
        series = panel.series[index]
        return forecasts_at(self.net, inputs, index, series, np.array([len(series) - 1]))[0]

    def to_spec(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain data and tensors, which `from_spec` reads."""
        tail, tensors = tail_to_data(self.tail)
        columns = self.columns
        spec = {
            "options": self.options.model_dump(),
            "cell": self.net.layer.cell.to_json(),
            "inputs": self.net.inputs,
            "columns": [columns.target, columns.time, columns.id, list(columns.covariates)],
            "recipe": self.recipe.to_json(),
            "tail": tail,
            "evaluation": self.evaluation.to_json(),
            "history": self.history.to_json(),
            "story": self.story.to_json(),
        }
        weights = {f"net.{name}": tensor.detach().clone() for name, tensor in self.net.state_dict().items()}
        return spec, tensors | weights

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: dict[str, Tensor]) -> "Fitted":
        """What `to_spec` wrote. Raises ModelFileError where a field is wrong, or fields do not fit each other.

        The net is made on the meta device, so that nothing is allocated before names and shapes are seen to fit.
        """
        data: ForecasterData = checked(ForecasterData, spec, "spec")
        left = dict(tensors)
        tail = tail_from_data(data.tail, left)
        check_agreement(data, tail)
        with torch.device("meta"):
            net = make_net(data.options, Cell.from_json(spec["cell"]), data.inputs).eval()
        fill(net, {name.removeprefix("net."): value for name, value in left.items()})
        columns, story = Columns(*data.columns), data.story
        return cls(data.options, columns, data.recipe, net, tail, data.evaluation, data.history, story)


def make_net(options: ForecastOptions, cell: Cell | str, inputs: int) -> ForecastNet:
    """A new net for these options."""
    return ForecastNet(
        cell, inputs, options.horizon, options.quantiles, hidden=options.hidden_size, layers=options.num_layers
    )


@torch.no_grad()
def trace_end(fitted: Fitted) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What the top layer did over the last steps of the first series: their times `[T]`, and label to `[T, size]`."""
    series, recipe = fitted.tail.series[0], fitted.recipe
    count = min(recipe.context, len(series))
    x = make_inputs(fitted.tail, recipe).x[len(series) - count : len(series), None]
    traced = fitted.net.layer.trace(x)
    times = fitted.tail.grid.clocks(np.arange(series.stop - count, series.stop))
    return times, {label: traced[label][:, 0].numpy() for label in traced}
