"""`Forecaster`: fit, judge, predict, report, save."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from tidegate.config import ForecastOptions
from tidegate.data import Decimal, read_panel
from tidegate.equations import Cell
from tidegate.errors import ArgumentError
from tidegate.files import to_json, write_atomic
from tidegate.gradients import Diagnosis, Rule, rule_from_text
from tidegate.tasks.forecast.diagnosis import diagnose_fitted
from tidegate.tasks.forecast.evaluation import NET, START, Evaluation, evaluate
from tidegate.tasks.forecast.fitted import Columns, Fitted, make_net
from tidegate.tasks.forecast.inputs import make_inputs
from tidegate.tasks.forecast.page import forecast_numbers, forecast_page
from tidegate.tasks.forecast.recipe import look_back, make_recipe
from tidegate.tasks.forecast.result import Forecast
from tidegate.tasks.forecast.split import split_all
from tidegate.tasks.forecast.story import tell
from tidegate.tasks.forecast.tail import keep_tail
from tidegate.tasks.forecast.task import ForecastTask, training_origins
from tidegate.training import History, Listener, TrainingPlan, seeded, train


class Forecaster:
    """Quantile forecasts of one or several series by a recurrent net.

        forecaster = Forecaster(horizon=12, season=12, cell="gru", budget="60s")
        forecaster.fit("co2.csv", target="co2", time="month")
        print(forecaster.verdict)
        forecaster.predict().to_frame()

    `cell` is the name of a cell or a `Cell`; `gradient` is a rule of `tidegate.gradients` or its text. The further
    options are the fields of `tidegate.config.ForecastOptions`, which say what each does: season, hidden_size,
    num_layers, context, quantiles, budget, updates, seed, learning_rate, schedule, accumulate, clip.

    Each series is cut in the order of time: training, 15 % for validation (early stopping), 20 % held out. Scales,
    stopping and weights come from the parts before the held-out part, which is then judged at every origin beside the
    naive forecasts. **The net that was judged is the net that predicts**: it is not fitted again on all of the data,
    but what it reads before it forecasts are the newest values. A covariate's past is used, not its future.
    """

    kind: ClassVar[str] = "forecaster"

    def __init__(
        self, horizon: int, *, cell: str | Cell = "lstm", gradient: str | Rule = "bptt", **options: Any
    ) -> None:
        name = cell.name if isinstance(cell, Cell) else cell
        self.options = ForecastOptions.make(horizon=horizon, cell=name, gradient=str(gradient), **options)
        self.cell = cell
        self._fitted: Fitted | None = None

    def fit(
        self,
        data: Any,
        target: str,
        *,
        time: str | None = None,
        id: str | None = None,
        covariates: Sequence[str] = (),
        decimal: Decimal | None = None,
        encoding: str | None = None,
        listeners: Sequence[Listener] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Self:
        """Train on a table and judge the result.

        `data` is the path of a CSV, TSV or Parquet file, or a pandas or polars frame; the others name its columns and
        say how it is read, see `tidegate.data.read_panel`.
        `listeners` are called with the events of `tidegate.training`. `checkpoint` names a file that training writes
        as it goes on; with `resume` it continues from that file where it exists, see `tidegate.training.train`. Raises
        `DataError` where the data is wrong or too short, `TrainingError` where the loss stops being finite.
        """
        options, columns = self.options, Columns(target, time, id, tuple(covariates))
        panel = read_panel(data, target, time=time, id=id, covariates=covariates, decimal=decimal, encoding=encoding)
        season = options.season or panel.grid.season
        back, level = look_back(panel, season)
        splits = split_all(panel, options.horizon, max(back * season, level - 1))
        recipe = make_recipe(panel, splits, horizon=options.horizon, season=season, context=options.context)
        inputs, levels = make_inputs(panel, recipe), np.array(options.quantiles)
        with seeded(options.seed):
            net = make_net(options, self.cell, inputs.x.shape[1])
        task = ForecastTask(net, inputs, splits, torch.from_numpy(levels.astype(np.float32)))
        rows, stops = training_origins(inputs, splits)
        net.start_from(inputs.anchors(rows), inputs.targets(rows, stops), task.levels)
        start = make_net(options, self.cell, inputs.x.shape[1])
        start.load_state_dict(net.state_dict())
        history = train(
            task, self._plan(), listeners, checkpoint=None if checkpoint is None else Path(checkpoint), resume=resume
        )
        judged = evaluate({NET: net, START: start}, inputs, panel, splits, levels)
        story = tell(panel, splits, net, inputs, levels)
        self._fitted = Fitted(options, columns, recipe, net, keep_tail(panel, recipe), judged, history, story)
        return self

    def predict(self, data: Any = None, *, decimal: Decimal | None = None, encoding: str | None = None) -> Forecast:
        """Quantiles for the next `horizon` steps of each series.

        Without `data` the forecast goes on from the end of the data of the fit. With it, the series in it are
        forecast from their own ends: rows that follow the data of the fit are joined to it, other series are not.
        `decimal` and `encoding` are as in `fit`.
        """
        fitted = self._ready()
        return fitted.forecast(fitted.tail if data is None else fitted.read(data, decimal, encoding))

    @property
    def evaluation(self) -> Evaluation:
        """The scores on the held-out part, beside those of the baselines."""
        return self._ready().evaluation

    @property
    def verdict(self) -> str:
        """One sentence: whether the net is better than the best baseline, and by how much."""
        return self.evaluation.verdict

    @property
    def history(self) -> History:
        """The record of the training."""
        return self._ready().history

    def diagnose(self, data: Any = None, *, rules: Sequence[Rule] | None = None) -> Diagnosis:
        """How gradients go through time in the layer, over the last `context` steps of each series.

        `data` is as in `predict`. The loss is the quantile loss where the truth is known; `rules`
        are compared with its exact gradient, see `tidegate.gradients.diagnose`.
        """
        fitted = self._ready()
        return diagnose_fitted(fitted, fitted.tail if data is None else fitted.read(data), rules)

    def write_report(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one HTML file, with its numbers as JSON beside it; returns the path of the page."""
        page = Path(path)
        numbers = to_json(forecast_numbers(self._ready()), indent=2)
        write_atomic(page.with_suffix(".json"), numbers.encode())
        write_atomic(page, forecast_page(self._ready()).encode())
        return page

    def to_spec(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The forecaster as plain data and tensors, for `tidegate.save`. The end of its series is part of it."""
        return self._ready().to_spec()

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The forecaster that `to_spec` wrote."""
        fitted = Fitted.from_spec(spec, tensors)
        forecaster = cls(**fitted.options.model_dump())
        forecaster.cell, forecaster._fitted = fitted.net.layer.cell, fitted
        return forecaster

    def _plan(self) -> TrainingPlan:
        options = self.options
        return TrainingPlan(
            learning_rate=options.learning_rate,
            clip=options.clip,
            budget=options.budget if options.updates is None else math.inf,
            seed=options.seed,
            rule=rule_from_text(options.gradient),
            updates=options.updates,
            schedule=options.schedule,
            accumulate=options.accumulate,
        )

    def _ready(self) -> Fitted:
        if self._fitted is None:
            raise ArgumentError("This forecaster has not been fitted. Call fit(data, target=...) first.")
        return self._fitted
