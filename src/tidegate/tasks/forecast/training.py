"""From a panel to a trained net: the one that is judged, and the one fitted again on all of the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tidegate.config import ForecastOptions
from tidegate.data import Panel
from tidegate.equations import Cell
from tidegate.files import disk
from tidegate.gradients import rule_from_text
from tidegate.tasks.forecast.judging.calibration import calibrate
from tidegate.tasks.forecast.judging.split import Split
from tidegate.tasks.forecast.model.inputs import ANCHORS, CYCLE_ANCHORS, ForecastInputs, input_sizes, make_inputs
from tidegate.tasks.forecast.model.net import ForecastNet
from tidegate.tasks.forecast.model.recipe import Recipe, make_recipe
from tidegate.tasks.forecast.model.task import ForecastTask, training_origins
from tidegate.training import History, Listener, TrainingPlan, seeded, train

_LONGER = 2  # times the updates that were best: the mean of the falling rate is half of its start
_FEWEST_UPDATES = 100  # of a net that is trained on all of the data, where any were good
_JUDGED_SHARE = 0.6  # of the budget, where another net is trained after it


@dataclass(frozen=True)
class Trained:
    """A net with the inputs it was trained on; `start` is the net before training."""

    recipe: Recipe
    inputs: ForecastInputs
    net: ForecastNet
    start: ForecastNet
    history: History


class NetTrainer:
    """Trains nets for a panel by the same options; `checkpoint` and `resume` are those of `tidegate.training.train`."""

    def __init__(
        self,
        panel: Panel,
        options: ForecastOptions,
        cell: Cell | str,
        season: int,
        listeners: Sequence[Listener] = (),
        checkpoint: Path | None = None,
        resume: bool = False,
    ) -> None:
        self.panel, self.options, self.cell, self.season = panel, options, cell, season
        self.listeners, self.checkpoint, self.resume = listeners, checkpoint, resume
        self.levels = torch.tensor(options.quantiles, dtype=torch.float32)

    def judged(self, splits: tuple[Split, ...]) -> Trained:
        """The net that is trained before the held-out parts, stopped and calibrated by the validation parts."""
        share = _JUDGED_SHARE if self.options.refit else 1.0
        return self._validated(splits, self.checkpoint, self.options.budget * share)

    def again(self, splits: tuple[Split, ...], judged: Trained) -> tuple[Recipe, ForecastNet]:
        """A net that has seen the held-out parts, too.

        Where there are more steps than the net has weights, it is trained on all of the data, with as much learning as
        was best for the judged net, whose widths it takes. With fewer it would learn them by heart, as nothing stops
        it: then the parts are moved to the end, so that it is trained on what was validation, and stopped and
        calibrated by the newest steps.
        """
        steps = sum(len(series) for series in self.panel.series)
        if steps >= sum(weight.numel() for weight in judged.net.parameters()):
            found = self._on_all(judged)
        else:
            moved = tuple(
                Split(cut.stop - cut.held_out + cut.validation, cut.stop, cut.stop) if cut.judged else cut
                for cut in splits
            )
            again = self._validated(moved, self._second_checkpoint, self.options.budget * (1 - _JUDGED_SHARE))
            found = again.recipe, again.net
        if self._second_checkpoint is not None and self._second_checkpoint.exists():
            disk.remove(self._second_checkpoint)
        return found

    def untrained(self, judged: Trained) -> tuple[Recipe, ForecastNet]:
        """The start of the judged net, with scales and mixture from all of the data, and its own widths."""
        if not self.options.refit:
            return judged.recipe, judged.start
        stops = [len(series) for series in self.panel.series]
        recipe, inputs = self._inputs(stops)
        net, _ = self._start(recipe, inputs, stops)
        net.widths.copy_(judged.start.widths)
        return recipe, net.eval()

    def _validated(self, splits: tuple[Split, ...], checkpoint: Path | None, budget: float) -> Trained:
        options, stops = self.options, [cut.validation for cut in splits]
        recipe, inputs = self._inputs(stops)
        net, start = self._start(recipe, inputs, stops)
        spans = [(cut.validation, cut.held_out) for cut in splits]
        task = ForecastTask(net, inputs, spans, self.levels)
        history = train(task, self._plan(budget), self.listeners, checkpoint=checkpoint, resume=self.resume)
        net.eval()
        for one in (net, start):
            calibrate(one, inputs, spans, options.quantiles)
        return Trained(recipe, inputs, net, start, history)

    def _on_all(self, judged: Trained) -> tuple[Recipe, ForecastNet]:
        """The learning rate falls along half a cosine, since there is no part left to choose weights by."""
        stops = [len(series) for series in self.panel.series]
        recipe, inputs = self._inputs(stops)
        net, _ = self._start(recipe, inputs, stops)
        best = judged.history.finished.best_update
        if best:
            updates = max(_LONGER * best, min(_FEWEST_UPDATES, self.options.updates or _FEWEST_UPDATES))
            plan = replace(self._plan(self.options.budget), updates=updates, schedule="cosine", validated=False)
            task = ForecastTask(net, inputs, [(stop, stop) for stop in stops], self.levels)
            train(task, plan, self.listeners, checkpoint=self._second_checkpoint, resume=self.resume)
        net.widths.copy_(judged.net.widths)
        return recipe, net.eval()

    @property
    def _second_checkpoint(self) -> Path | None:
        return self.checkpoint and self.checkpoint.with_stem(f"{self.checkpoint.stem}-again")

    def _inputs(self, stops: list[int]) -> tuple[Recipe, ForecastInputs]:
        options = self.options
        recipe = make_recipe(
            self.panel,
            stops,
            horizon=options.horizon,
            season=self.season,
            context=options.context,
            positive=options.positive,
            count=options.count,
        )
        return recipe, make_inputs(self.panel, recipe)

    def _start(self, recipe: Recipe, inputs: ForecastInputs, stops: list[int]) -> tuple[ForecastNet, ForecastNet]:
        """A net that forecasts the best fixed mixture of the anchors, twice."""
        with seeded(self.options.seed):
            net = make_net(self.options, self.cell, self.panel, recipe)
        rows, ends = training_origins(inputs, stops)
        net.start_from(inputs.anchors(rows), inputs.targets(rows, ends), self.levels)
        start = make_net(self.options, self.cell, self.panel, recipe).eval()
        start.load_state_dict(net.state_dict())
        return net, start

    def _plan(self, budget: float) -> TrainingPlan:
        options = self.options
        return TrainingPlan(
            learning_rate=options.learning_rate,
            clip=options.clip,
            budget=budget if options.updates is None else math.inf,
            seed=options.seed,
            rule=rule_from_text(options.gradient),
            updates=options.updates,
            schedule=options.schedule,
            accumulate=options.accumulate,
        )


def make_net(options: ForecastOptions, cell: Cell | str, panel: Panel, recipe: Recipe) -> ForecastNet:
    """A new net for a panel read by this recipe."""
    return ForecastNet(
        cell,
        input_sizes(panel.grid, recipe),
        len(ANCHORS) + (len(CYCLE_ANCHORS) if recipe.cycle else 0),
        options.horizon,
        options.quantiles,
        hidden=options.hidden_size,
        layers=options.num_layers,
    )
