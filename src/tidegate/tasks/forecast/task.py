"""Forecasting as the training loop sees it: random windows, each step of which is an origin."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tidegate.data import Series, draw_windows, window_rows
from tidegate.metrics import naive, pinball
from tidegate.nn import State
from tidegate.tasks.forecast.inputs import ForecastInputs
from tidegate.tasks.forecast.net import ForecastNet
from tidegate.tasks.forecast.split import Split

_BATCH = 32
_ROWS_AT_ONCE = 64
_MOST_LOOKS = 256


@dataclass(frozen=True)
class Windows:
    """A batch: rows `[T, B]`, and for each window its series' first row and the row where the training part stops."""

    rows: Tensor
    firsts: Tensor
    stops: Tensor


class ForecastTask:
    """The net, windows of the training parts, and the mean quantile loss over the validation parts."""

    def __init__(self, net: ForecastNet, inputs: ForecastInputs, splits: tuple[Split, ...], levels: Tensor) -> None:
        self.module, self.inputs, self.splits, self.levels = net, inputs, splits, levels
        self.looks = _looks(inputs, splits)
        self.stops = inputs.offsets + torch.tensor([cut.validation for cut in splits])

    def draw(self, generator: torch.Generator) -> Windows:
        """Windows of `context` steps from anywhere in the training parts."""
        length = self.inputs.recipe.context
        counts = [cut.validation - length + 1 for cut in self.splits]
        series, starts = draw_windows(counts, _BATCH, generator)
        rows = window_rows(self.inputs.offsets, series, starts, length)
        return Windows(rows, self.inputs.offsets[series], self.stops[series])

    def length(self, batch: Windows) -> int:
        """The number of steps in a batch."""
        return len(batch.rows)

    def run(self, batch: Windows, start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        """Outputs of the layer for these steps."""
        return self.module(self.inputs.x[batch.rows[start:stop]], state)

    def score(self, batch: Windows, outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The quantile loss, averaged over levels and summed over origins and horizons whose truth is known."""
        first = max(start, self.inputs.recipe.warm)
        scored = replace(batch, rows=batch.rows[first:stop])
        return window_loss(self.module, self.inputs, self.levels, scored, outputs[first - start :])

    def validate(self) -> float:
        """The mean quantile loss over origins of the validation parts: all of them, or where they are many a sample."""
        forecasts, places = run_stretches(self.module, self.inputs, *self.looks)
        rows = self.inputs.offsets[self.looks[0]] + places
        ends = self.inputs.offsets + torch.tensor([cut.held_out for cut in self.splits])
        targets = self.inputs.targets(rows, ends[self.looks[0]].expand(rows.shape))
        losses = pinball(targets[..., None], forecasts, self.levels).mean(-1)
        return float(losses.nanmean())


def window_loss(
    net: ForecastNet, inputs: ForecastInputs, levels: Tensor, windows: Windows, outputs: Tensor
) -> tuple[Tensor, Tensor]:
    """The quantile loss from the layer's outputs at rows `[T, B]`, averaged over levels and summed over origins and
    horizons whose truth is known, and the number of these."""
    rows, firsts = windows.rows, windows.firsts + inputs.recipe.past
    targets = inputs.targets(rows, windows.stops)
    early = rows < firsts
    known = ~(targets.isnan() | early[..., None])
    forecasts = net.forecast(outputs, inputs.anchors(torch.where(early, firsts, rows)))
    losses = pinball(targets.nan_to_num(0.0)[..., None], forecasts, levels).mean(-1)
    return (losses * known).sum(), known.sum()


def _looks(inputs: ForecastInputs, splits: tuple[Split, ...]) -> tuple[Tensor, Tensor]:
    """Stretches that cover the validation parts, or at most `_MOST_LOOKS` of them, spread evenly."""
    parts = [torch.arange(cut.validation - 1, cut.held_out - 1, inputs.recipe.stretch) for cut in splits]
    series = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts]))
    chosen = torch.linspace(0, len(series) - 1, min(len(series), _MOST_LOOKS)).long()
    return series[chosen], torch.cat(parts)[chosen]


@torch.no_grad()
def rolling(net: ForecastNet, inputs: ForecastInputs, series: int, first: int, stop: int) -> Tensor:
    """Quantiles `[N, K, Q]` in scaled units from the value at the origin, for the origins first ... stop - 1.

    Each origin is seen by a net that started afresh at most `context` steps before it, as in training.
    """
    starts = torch.arange(first, stop, inputs.recipe.stretch)
    forecasts, _ = run_stretches(net, inputs, torch.full_like(starts, series), starts)
    return forecasts.transpose(0, 1).flatten(0, 1)[: stop - first]


def forecasts_at(
    net: ForecastNet, inputs: ForecastInputs, index: int, series: Series, origins: np.ndarray
) -> np.ndarray:
    """Quantiles `[N, K, Q]` in the units of a panel's series number `index`, for a run of neighbouring origins."""
    anchored = rolling(net, inputs, index, int(origins[0]), int(origins[-1]) + 1).numpy().astype(float)
    return naive(series.values, origins, 1)[..., None] + inputs.recipe.scale(series).unit * anchored


@torch.no_grad()
def run_stretches(net: ForecastNet, inputs: ForecastInputs, series: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles `[S, N, K, Q]` of N stretches of S origins each, and the origins' places `[S, N]` in their series.

    Stretch n begins at the place `starts[n]` of `series[n]`, after the steps that warm the net up. Places after the
    end of a series are its last one.
    """
    pieces = [
        _run_some(net, inputs, some, begin)
        for some, begin in zip(series.split(_ROWS_AT_ONCE), starts.split(_ROWS_AT_ONCE), strict=True)
    ]
    forecasts, places = zip(*pieces, strict=True)
    return torch.cat(forecasts, 1), torch.cat(places, 1)


def _run_some(net: ForecastNet, inputs: ForecastInputs, series: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    recipe, offsets, last = inputs.recipe, inputs.offsets[series], inputs.lengths[series] - 1
    begins = (starts - recipe.warm).clamp(min=0)
    steps = torch.arange(recipe.warm + recipe.stretch)[:, None]
    outputs, _ = net(inputs.x[offsets + torch.minimum(begins + steps, last)])
    places = torch.minimum(starts + steps[: recipe.stretch], last)
    taken = outputs[places - begins, torch.arange(len(starts))]
    return net.forecast(taken, inputs.anchors(offsets + places)), places


def training_origins(inputs: ForecastInputs, splits: tuple[Split, ...], most: int = 4096) -> tuple[Tensor, Tensor]:
    """Rows of origins spread evenly over the training parts, and where each one's training part stops: `[N]` each."""
    rows, stops = [], []
    for offset, cut in zip(inputs.offsets.tolist(), splits, strict=True):
        origins = np.arange(offset + inputs.recipe.past, offset + cut.validation - 1)
        rows.append(origins)
        stops.append(np.full(len(origins), offset + cut.validation))
    chosen = np.linspace(0, sum(map(len, rows)) - 1, min(most, sum(map(len, rows)))).astype(int)
    return torch.from_numpy(np.concatenate(rows)[chosen]), torch.from_numpy(np.concatenate(stops)[chosen])
