"""Forecasting as the training loop sees it: lanes that go through the series, each step of which is an origin."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.metrics import pinball
from tidegate.nn import State
from tidegate.tasks.forecast.model.inputs import ForecastInputs
from tidegate.tasks.forecast.model.net import ForecastNet
from tidegate.tasks.forecast.model.rolling import forecasts_from, outputs_of

LANES = 32
_MOST_CHECKED = 4096  # origins of the validation parts, spread evenly


@dataclass(frozen=True)
class Steps:
    """A batch: rows `[T, B]`, where a lane begins another stretch, which origins are scored, and where each stretch
    stops; batches are numbered from 1."""

    rows: Tensor
    fresh: Tensor
    scored: Tensor
    stops: Tensor
    number: int


class SeriesLanes:
    """SeriesLanes that go through stretches of series side by side, each from one stretch on to the next.

    A stretch is drawn at random, a series as likely as it is long: from its start, or just as often from anywhere in
    it, to the end of its training part. The state is carried through a stretch; after a start inside a series the first
    `warm` steps are not scored.
    """

    def __init__(self, inputs: ForecastInputs, stops: list[int]) -> None:
        recipe = inputs.recipe
        self.first, self.offsets, self.stops = recipe.first_origin, inputs.offsets.tolist(), stops
        self.ends = np.cumsum([stop if stop > self.first + 1 else 0 for stop in stops])
        self.steps = recipe.context
        self.warm = min(recipe.context // 2, 2 * recipe.season + 8)
        self.series, self.place, self.scored_from = [0] * LANES, [0] * LANES, [0] * LANES
        self.drawn = self.gone = 0  # the last batch that was drawn, and the last that was gone through
        self.state: State | None = None

    def draw(self, generator: torch.Generator) -> Steps:
        """The next batch of `context` steps in each lane."""
        rows, stops = np.empty((self.steps, LANES), np.int64), np.empty((self.steps, LANES), np.int64)
        fresh, scored = np.zeros((self.steps, LANES), bool), np.zeros((self.steps, LANES), bool)
        for lane in range(LANES):
            step = 0
            while step < self.steps:
                if self.drawn == step == 0 or self.place[lane] >= self.stops[self.series[lane]]:
                    self._enter(lane, generator)
                    fresh[step, lane] = True
                offset, place, stop = self.offsets[self.series[lane]], self.place[lane], self.stops[self.series[lane]]
                count = min(self.steps - step, stop - place)
                rows[step : step + count, lane] = np.arange(offset + place, offset + place + count)
                scored[step + max(self.scored_from[lane] - place, 0) : step + count, lane] = True
                stops[step : step + count, lane] = offset + stop
                self.place[lane] += count
                step += count
        self.drawn += 1
        tensor = torch.from_numpy
        return Steps(tensor(rows), tensor(fresh), tensor(scored), tensor(stops), self.drawn)

    def _enter(self, lane: int, generator: torch.Generator) -> None:
        which, inside, where = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        series = int(np.searchsorted(self.ends, which * self.ends[-1], side="right"))
        latest = self.stops[series] - self.warm - self.first - 1
        place = int(where * latest) if inside < 0.5 and latest > 0 else 0
        self.series[lane], self.place[lane] = series, place
        self.scored_from[lane] = max(self.first, place + self.warm if place else 0)

    def state_before(self, batch: Steps) -> State | None:
        """The state that a batch goes on from; None where the batch before it was not gone through to its end."""
        return self.state if self.gone == batch.number - 1 else None

    def state_after(self, batch: Steps, state: State) -> None:
        """Keep the state at the end of a batch."""
        self.gone, self.state = batch.number, state.detach()

    def state_dict(self) -> dict[str, Any]:
        """The places of the lanes and the state that they carry."""
        places = {name: list(getattr(self, name)) for name in ("series", "place", "scored_from")}
        layers = None if self.state is None else [[dict(named) for named in layer] for layer in self.state.layers]
        return places | {"drawn": self.drawn, "gone": self.gone, "state": layers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.series, self.place, self.scored_from = (list(state[name]) for name in ("series", "place", "scored_from"))
        self.drawn, self.gone = state["drawn"], state["gone"]
        self.state = None if state["state"] is None else State(state["state"])


class ForecastTask:
    """The net, lanes through the training parts, and the mean quantile loss over the validation parts.

    `spans[s]` says where the training part of series s stops and where its validation part stops.
    """

    def __init__(self, net: ForecastNet, inputs: ForecastInputs, spans: list[tuple[int, int]], levels: Tensor) -> None:
        self.module, self.inputs, self.levels = net, inputs, levels
        self.lanes = SeriesLanes(inputs, [training for training, _ in spans])
        self.checked, self.stops = validation_origins(inputs, spans)

    def draw(self, generator: torch.Generator) -> Steps:
        """The next batch of the lanes."""
        return self.lanes.draw(generator)

    def length(self, batch: Steps) -> int:
        """The number of steps in a batch."""
        return len(batch.rows)

    def run(self, batch: Steps, start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        """Outputs of the layer for these steps; at the first the lanes' states go on."""
        fresh = batch.fresh[start:stop]
        given: dict[str, Any] = {"reset": fresh} if fresh.any() else {}
        before = self.lanes.state_before(batch) if start == 0 else state
        outputs, new = self.module(self.inputs.x[batch.rows[start:stop]], before, **given)
        if stop == len(batch.rows):
            self.lanes.state_after(batch, new)
        return outputs, new

    def score(self, batch: Steps, outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The quantile loss, averaged over levels and summed over origins and horizons whose truth is known."""
        part = slice(start, stop)
        rows, scored = batch.rows[part], batch.scored[part]
        return origin_loss(self.module, self.inputs, self.levels, rows, scored, batch.stops[part], outputs)

    def validate(self) -> float:
        """The mean quantile loss over origins of the validation parts, or where they are many, over a sample."""
        outputs, _ = outputs_of(self.module, self.inputs, self.stops)
        forecasts = forecasts_from(self.module, self.inputs, outputs, self.checked)
        targets = self.inputs.targets(self.checked, self._ends())
        return float(pinball(targets[..., None], forecasts, self.levels).mean(-1).nanmean())

    def state_dict(self) -> dict[str, Any]:
        """Where the lanes are, for checkpoints."""
        return self.lanes.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.lanes.load_state_dict(state)

    def _ends(self) -> Tensor:
        series = torch.searchsorted(self.inputs.offsets, self.checked, right=True) - 1
        return (self.inputs.offsets + self.stops)[series]


def origin_loss(
    net: ForecastNet,
    inputs: ForecastInputs,
    levels: Tensor,
    rows: Tensor,
    scored: Tensor,
    stops: Tensor,
    outputs: Tensor,
) -> tuple[Tensor, Tensor]:
    """The quantile loss from the layer's outputs at rows `[T, B]`, averaged over levels and summed over the scored
    origins and the horizons whose truth is known before `stops`, and the number of these."""
    chosen = scored.nonzero(as_tuple=True)
    rows = rows[chosen]
    targets = inputs.targets(rows, stops[chosen])
    known = ~targets.isnan()
    forecasts = net.forecast(outputs[chosen], inputs.anchors(rows), inputs.known(rows))
    losses = pinball(targets.nan_to_num(0.0)[..., None], forecasts, levels).mean(-1)
    return (losses * known).sum(), known.sum()


def validation_origins(inputs: ForecastInputs, spans: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Rows of origins whose forecasts begin in the validation parts, and where each series' validation part stops."""
    rows = [
        offset + torch.arange(max(training - 1, 0), stop - 1)
        for offset, (training, stop) in zip(inputs.offsets.tolist(), spans, strict=True)
        if stop > training
    ]
    found = torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64)
    chosen = torch.linspace(0, len(found) - 1, min(len(found), _MOST_CHECKED)).long()
    return found[chosen], torch.tensor([stop for _, stop in spans])


def training_origins(inputs: ForecastInputs, stops: list[int], most: int = 4096) -> tuple[Tensor, Tensor]:
    """Rows of origins spread evenly over the training parts, and where each one's training part stops: `[N]` each."""
    first = inputs.recipe.first_origin
    rows = [
        offset + torch.arange(first, stop - 1)
        for offset, stop in zip(inputs.offsets.tolist(), stops, strict=True)
        if stop - 1 > first
    ]
    ends = [torch.full_like(some, int(some[-1]) + 2) for some in rows]
    found, stop = torch.cat(rows), torch.cat(ends)
    chosen = torch.linspace(0, len(found) - 1, min(len(found), most)).long()
    return found[chosen], stop[chosen]
