"""What a fit leaves: all that predicting, reporting and saving need."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.config import ForecastOptions, checked
from tidegate.data import Decimal, Panel, Reading, read_panel
from tidegate.equations import Cell
from tidegate.errors import ArgumentError, DataError, ModelFileError
from tidegate.nn.weights import fill
from tidegate.tasks.forecast.judging.baselines import baseline_quantiles, baselines
from tidegate.tasks.forecast.judging.evaluation import START, Evaluation
from tidegate.tasks.forecast.model.net import ForecastNet
from tidegate.tasks.forecast.model.recipe import Recipe
from tidegate.tasks.forecast.model.rolling import in_units, outputs_of
from tidegate.tasks.forecast.result import Forecast
from tidegate.tasks.forecast.saved import VERSION, ForecasterData, check_agreement
from tidegate.tasks.forecast.story import Story
from tidegate.tasks.forecast.tail import (
    Tail,
    continue_tail,
    joined_known,
    merged,
    shorten,
    tail_from_data,
    tail_to_data,
    with_states,
)
from tidegate.tasks.forecast.training import make_net
from tidegate.training import History


@dataclass(frozen=True)
class Columns:
    """The names of the columns that the forecaster was fitted on, and how they were read."""

    target: str
    time: str | None
    id: str | None
    covariates: tuple[str, ...]
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class Fitted:
    """A trained net with its recipe, the end of its series, its judgement and its record.

    `instead` is the baseline that forecasts in place of a net that lost to it, or the untrained start.
    """

    options: ForecastOptions
    columns: Columns
    recipe: Recipe
    net: ForecastNet
    tail: Tail
    evaluation: Evaluation
    history: History
    story: Story
    instead: str | None = None

    @property
    def replaced(self) -> bool:
        """Whether a baseline forecasts, and not a net."""
        return self.instead not in (None, START)

    @property
    def refitted(self) -> bool:
        """Whether the net that forecasts was fitted again on all of the data after the judgement."""
        return self.options.refit and self.instead is None

    @property
    def verdict(self) -> str:
        """The judgement in a sentence, and what predicts where the net lost."""
        return (
            f"{self.evaluation.verdict} Forecasts are those of {_called(self.instead)}."
            if self.instead
            else self.evaluation.verdict
        )

    def predict(
        self,
        data: Any = None,
        decimal: Decimal | None = None,
        encoding: str | None = None,
        future: Any = None,
    ) -> Forecast:
        """The forecast after the end of the data of the fit, or of new rows."""
        tail = self.tail if data is None else self.read(data, decimal, encoding)
        if future is not None:
            tail = self._with_future(tail, future, decimal, encoding)
        self._refuse_unknown(tail)
        return self.forecast(tail)

    def _with_future(self, tail: Tail, future: Any, decimal: Decimal | None, encoding: str | None) -> Tail:
        """The tail with rows of what is known in advance after the ends of its series."""
        columns, known = self.columns, self.columns.reading.known
        if not known:
            raise ArgumentError("This forecaster has no column known in advance. Fit it with known=, or omit future.")
        panel = read_panel(
            future,
            known[0],
            time=columns.time,
            id=None if columns.reading.wide else columns.id,
            covariates=known[1:],
            grid=tail.panel.grid,
            decimal=decimal or columns.reading.decimal,
            encoding=encoding or columns.reading.encoding,
        )
        found = {series.name: series for series in panel.series}
        parts = []
        for part in tail.parts:
            kept, new = part.series, found.get("" if columns.reading.wide else part.series.name)
            if new is not None:
                at = new.start - kept.start if columns.time is not None else len(kept) + new.start
                plan = np.concatenate([new.values[:, None], new.covariates], axis=1)
                part = replace(part, series=replace(kept, known=joined_known(kept, plan, at)))
            parts.append(part)
        return replace(tail, parts=tuple(parts))

    def _refuse_unknown(self, tail: Tail) -> None:
        """Raise DataError where a column known in advance is missing for a step to forecast."""
        for part in () if self.replaced else tail.parts:
            series = part.series
            ahead = np.full((self.recipe.horizon, len(self.recipe.known)), np.nan)
            given = series.known[len(series) :][: self.recipe.horizon]
            ahead[: len(given)] = given
            missing = np.argwhere(np.isnan(ahead))
            if len(missing):
                step, column = missing[0]
                [time] = tail.panel.grid.texts(np.array([series.stop + step]))
                name, whose = self.columns.reading.known[column], f" of series '{series.name}'" if series.name else ""
                raise DataError(
                    f"Column '{name}' is known in advance, but its value at {time}{whose} is missing. Give "
                    "the steps ahead in rows without a target, or in a table of their own: --future "
                    "FILE (in Python future=)."
                )

    def read(self, data: Any, decimal: Decimal | None = None, encoding: str | None = None) -> Tail:
        """New rows, joined to the kept end where they follow it."""
        columns, grid = self.columns, self.tail.panel.grid
        reading = columns.reading
        new = read_panel(
            data,
            columns.target,
            time=columns.time,
            id=None if reading.wide else columns.id,
            covariates=columns.covariates,
            grid=grid,
            **asdict(replace(reading, decimal=decimal or reading.decimal, encoding=encoding or reading.encoding)),
        )
        return continue_tail(self.tail, new, self.recipe, columns.time is not None)

    def updated(self, data: Any) -> "Fitted":
        """The same net after new rows."""
        new = shorten(self.read(data), self.recipe, self.net, keep_rows=self.replaced)
        return replace(self, tail=merged(self.tail, new))

    def forecast(self, tail: Tail) -> Forecast:
        """Quantiles for the steps after the end of each series of a tail."""
        panel = tail.panel
        quantiles = np.stack(self._by_baseline(panel) if self.replaced else self._by_net(tail))
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

    def _by_net(self, tail: Tail) -> list[np.ndarray]:
        inputs = tail.inputs(self.recipe)
        outputs, _ = outputs_of(self.net, inputs, states=list(tail.states))
        ends = (inputs.lengths - 1).numpy()
        return [  # one by one: the same bits whatever else is forecast
            in_units(self.net, inputs, outputs, index, series, ends[index : index + 1])[0]
            for index, series in enumerate(tail.panel.series)
        ]

    def _by_baseline(self, panel: Panel) -> list[np.ndarray]:
        assert self.instead is not None
        recipe, levels, found = self.recipe, np.array(self.options.quantiles), []
        for series in panel.series:
            values, last = series.values, np.array([len(series) - 1])
            baseline = baselines(values, recipe.season)[self.instead]
            stop = len(values)
            found.append(
                baseline_quantiles(baseline, values, stop, last, recipe.horizon, levels, recipe.first_origin)[0]
            )
        return found

    def to_spec(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain data and tensors, which `from_spec` reads."""
        tail, tensors = tail_to_data(self.tail, self.net)
        columns = self.columns
        spec = {
            "version": VERSION,
            "options": self.options.model_dump(),
            "cell": self.net.layer.cell.to_json(),
            "columns": [columns.target, columns.time, columns.id, list(columns.covariates)],
            "reading": asdict(columns.reading),
            "recipe": self.recipe.to_json(),
            "tail": tail,
            "evaluation": self.evaluation.to_json(),
            "history": self.history.to_json(),
            "story": self.story.to_json(),
            "instead": self.instead,
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
        panel = tail_from_data(data.tail, left)
        check_agreement(data, panel)
        with torch.device("meta"):
            net = make_net(data.options, Cell.from_json(spec["cell"]), panel, data.recipe).eval()
        fill(net, {name[4:]: left.pop(name) for name in list(left) if name.startswith("net.")})
        tail = with_states(panel, data.tail, left, net)
        if left:
            raise ModelFileError(f"tensor {next(iter(left))!r:.80} belongs to no part of the model")
        columns, story = Columns(*data.columns, data.reading), data.story
        return cls(data.options, columns, data.recipe, net, tail, data.evaluation, data.history, story, data.instead)


def _called(instead: str) -> str:
    return f"the {START}, which did better" if instead == START else instead


@torch.no_grad()
def trace_end(fitted: Fitted) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What the top layer did over the last steps of the first series: their times `[T]`, and label to `[T, size]`."""
    series, state = fitted.tail.panel.series[0], fitted.tail.states[0]
    inputs = fitted.tail.inputs(fitted.recipe)
    first, count = int(inputs.offsets[0]), int(inputs.lengths[0])
    traced = fitted.net.layer.trace(inputs.x[first : first + count, None], state)
    times = fitted.tail.panel.grid.clocks(np.arange(series.stop - count, series.stop))
    return times, {label: traced[label][:, 0].numpy() for label in traced}
