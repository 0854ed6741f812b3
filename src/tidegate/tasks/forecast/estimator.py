"""`Forecaster`: fit, judge, predict, report, save."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from tidegate.config import ForecastOptions
from tidegate.data import Decimal, How, Reading, read_panel
from tidegate.equations import Cell
from tidegate.errors import ArgumentError
from tidegate.files import to_json, write_atomic
from tidegate.gradients import Diagnosis, Rule
from tidegate.report.html import element, escape
from tidegate.tasks.forecast.card import forecaster_text
from tidegate.tasks.forecast.checks import with_checked_values
from tidegate.tasks.forecast.diagnosis import diagnose_fitted
from tidegate.tasks.forecast.fitted import Columns, Fitted
from tidegate.tasks.forecast.judging.evaluation import NET, START, Evaluation
from tidegate.tasks.forecast.judging.split import split_all
from tidegate.tasks.forecast.judging.tally import evaluate
from tidegate.tasks.forecast.model.recipe import first_origin
from tidegate.tasks.forecast.page import forecast_numbers, forecast_page
from tidegate.tasks.forecast.result import Forecast
from tidegate.tasks.forecast.story import tell
from tidegate.tasks.forecast.tail import Tail, shorten
from tidegate.tasks.forecast.training import NetTrainer
from tidegate.tasks.forecast.version1 import FittedVersion1, is_version1
from tidegate.training import History, Listener


class Forecaster:
    """Quantile forecasts of one or several series by a recurrent net.

        forecaster = Forecaster(horizon=12, season=12, cell="gru", budget="60s")
        forecaster.fit("co2.csv", target="co2", time="month")
        print(forecaster.verdict)
        forecaster.predict().to_frame()

    `cell` is the name of a cell or a `Cell`; `gradient` is a rule of `tidegate.gradients` or its text. The further
    options are the fields of `tidegate.config.ForecastOptions`, which say what each does: season, hidden_size,
    num_layers, context, quantiles, budget, updates, seed, learning_rate, schedule, accumulate, clip.

    Each series is cut in the order of time: training, 15 % for validation (early stopping, calibration of the
    intervals), 20 % held out. Scales, stopping and weights come from the parts before the held-out part, which is then
    judged at every origin beside naive forecasts. **The verdict is that of this net; the net that predicts is then
    fitted again on all of the data** (`refit=False` keeps the judged one). Where the net lost, the
    baseline that won predicts in its place (`keep_net=True` keeps the net). Short series are trained on and forecast
    without being judged. A covariate's past is used; of a `known` column, such as a holiday, also what is ahead; a
    `static` one has a value for each series.
    """

    kind: ClassVar[str] = "forecaster"

    def __init__(
        self, horizon: int, *, cell: str | Cell = "lstm", gradient: str | Rule = "bptt", **options: Any
    ) -> None:
        name = cell.name if isinstance(cell, Cell) else cell
        self.options = ForecastOptions.make(horizon=horizon, cell=name, gradient=str(gradient), **options)
        self.cell = cell
        self._fitted: Fitted | FittedVersion1 | None = None

    def __repr__(self) -> str:
        return forecaster_text(self.options, self._fitted)

    def _repr_html_(self) -> str:
        return element("pre", escape(repr(self)))

    def fit(
        self,
        data: Any,
        target: str,
        *,
        time: str | None = None,
        id: str | None = None,
        covariates: Sequence[str] = (),
        known: Sequence[str] = (),
        static: Sequence[str] = (),
        wide: bool = False,
        every: str | None = None,
        how: How = "mean",
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
        options = self.options
        reading = Reading(wide, every, how, decimal, encoding, tuple(known), tuple(static))
        panel = read_panel(data, target, time=time, id=id, covariates=covariates, **asdict(reading))
        columns = Columns(target, panel.time, panel.id, panel.covariates, reading)
        season = options.season or panel.grid.season
        panel, splits = split_all(with_checked_values(panel, options), options.horizon, first_origin(season))
        where = None if checkpoint is None else Path(checkpoint)
        trainer = NetTrainer(panel, options, self.cell, season, listeners, where, resume)
        judged, levels = trainer.judged(splits), np.array(options.quantiles)
        nets = {NET: judged.net, START: judged.start}
        evaluation = evaluate(nets, judged.inputs, panel, splits, levels, listeners)
        story = tell(panel, splits, judged.net, judged.inputs, levels)
        instead = None if options.keep_net else evaluation.instead
        if instead == START:
            recipe, net = trainer.untrained(judged)
        elif instead is None and options.refit:
            recipe, net = trainer.again(splits, judged)
        else:
            recipe, net = judged.recipe, judged.net
        tail = shorten(Tail.whole(panel), recipe, net, keep_rows=instead not in (None, START))
        self._fitted = Fitted(options, columns, recipe, net, tail, evaluation, judged.history, story, instead)
        return self

    def update(self, data: Any) -> Self:
        """Read on: new rows are added to the series, and the next forecast begins after them. No weight changes.

        The forecast has the same bits as that of the same net which has read all rows at once.
        """
        self._fitted = self._current("to go on reading").updated(data)
        return self

    def predict(
        self,
        data: Any = None,
        *,
        future: Any = None,
        decimal: Decimal | None = None,
        encoding: str | None = None,
    ) -> Forecast:
        """Quantiles for the next `horizon` steps of each series.

        Without `data` the forecast goes on from the end of the data of the fit. With it, the series in it are
        forecast from their own ends: rows that follow the data of the fit are joined to it, other series are not.
        `future` is a table of the columns known in advance for the steps ahead, where `data` does not hold them in rows
        without a target; several such tables give several scenarios. `decimal` and `encoding` are those of the
        fit, unless given.
        """
        fitted = self._ready()
        if isinstance(fitted, FittedVersion1):
            return fitted.predict(data, decimal, encoding)
        return fitted.predict(data, decimal, encoding, future)

    @property
    def evaluation(self) -> Evaluation:
        """The scores on the held-out part, beside those of the baselines."""
        return self._ready().evaluation

    @property
    def verdict(self) -> str:
        """One sentence: whether the net is better than the best baseline, and by how much."""
        return self._ready().verdict

    @property
    def notes(self) -> tuple[str, ...]:
        """What was sorted, filled, joined or missing in the data of the fit, in sentences."""
        fitted = self._ready()
        return tuple(fitted.story.notes) if isinstance(fitted, Fitted) else ()

    @property
    def history(self) -> History:
        """The record of the training."""
        return self._ready().history

    def diagnose(self, data: Any = None, *, rules: Sequence[Rule] | None = None) -> Diagnosis:
        """How gradients go through time in the layer, over the last `context` steps of each series.

        `data` is as in `predict`. The loss is the quantile loss where the truth is known; `rules`
        are compared with its exact gradient, see `tidegate.gradients.diagnose`.
        """
        fitted = self._current("for a diagnosis")
        return diagnose_fitted(fitted, fitted.tail if data is None else fitted.read(data), rules)

    def write_report(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one HTML file, with its numbers as JSON beside it; returns the path of the page."""
        page = Path(path)
        fitted = self._current("for a report")
        numbers = to_json(forecast_numbers(fitted), indent=2)
        write_atomic(page.with_suffix(".json"), numbers.encode())
        write_atomic(page, forecast_page(fitted).encode())
        return page

    def to_spec(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The forecaster as plain data and tensors, for `tidegate.save`. The end of its series is part of it."""
        return self._ready().to_spec()

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The forecaster that `to_spec` wrote."""
        kind = FittedVersion1 if is_version1(spec) else Fitted
        fitted = kind.from_spec(spec, tensors)
        forecaster = cls(**fitted.options.model_dump())
        forecaster.cell, forecaster._fitted = fitted.net.layer.cell, fitted
        return forecaster

    def _ready(self) -> Fitted | FittedVersion1:
        if self._fitted is None:
            raise ArgumentError("This forecaster has not been fitted. Call fit(data, target=...) first.")
        return self._fitted

    def _current(self, what: str) -> Fitted:
        fitted = self._ready()
        if isinstance(fitted, FittedVersion1):
            raise ArgumentError(
                f"This forecaster was saved by Tidegate 0.1, which kept too little {what}. It can predict and be "
                "saved; fit it again for the rest."
            )
        return fitted
