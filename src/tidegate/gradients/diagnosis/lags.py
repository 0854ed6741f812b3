"""The norm of a loss's gradient at each number of steps back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.gradients.diagnosis.subject import DiagnosedLayer
from tidegate.nn.unroll_autograd import AutogradUnroll, state_label

ALL_STATES = "all states"
QUANTILES = (0.5, 0.1, 0.9)
VANISHED, EXPLODED = 0.01, 10.0  # of the norm at lag 0


@dataclass(frozen=True)
class Lags:
    """The norm of the gradient of the loss with respect to a state k steps back, for k = 0, 1, ...

    This is the total derivative: the gradient of a cell state c includes what reaches the loss through the hidden
    state of the same step. Over the rows and origins that reach back that far, `median` is the median norm, `low` the
    10th and `high` the 90th percentile. `label` is the state's name in plots. `layer` is None, and `state` "all
    states", for the norm over all of them.
    """

    layer: int | None
    state: str
    label: str
    median: list[float]
    low: list[float]
    high: list[float]

    def until(self, share: float) -> int | None:
        """The lag at which the median falls below this share of that at lag 0; None if it does not."""
        return next((k for k, norm in enumerate(self.median) if norm < share * self.median[0]), None)

    @property
    def memory(self) -> int | None:
        """The effective memory: the lag at which less than 1/e of the gradient is left."""
        return self.until(math.exp(-1))

    @property
    def growth(self) -> float | None:
        """The average factor by which the median changes per step, over all lags where it is not 0."""
        there = [k for k, norm in enumerate(self.median) if norm > 0.0]
        if not there or there[0] or not there[-1]:
            return None
        return math.exp(math.log(self.median[there[-1]] / self.median[0]) / there[-1])

    @property
    def flow(self) -> str:
        """The verdict: `exploding` where the norm grows past ten times that at lag 0, `vanishing` where it falls below
        1 % of it, else `steady`; `none` where there is no gradient at lag 0."""
        if not self.median[0]:
            return "none"
        if max(self.median) > EXPLODED * self.median[0]:
            return "exploding"
        return "steady" if self.until(VANISHED) is None else "vanishing"


def lag_norms(
    subject: DiagnosedLayer, outputs: Tensor, runs: Sequence[AutogradUnroll], origins: Sequence[Tensor]
) -> tuple[list[Lags], dict[tuple[int, str], Tensor]]:
    """The norms by lag, all states first, and for each layer and state the largest gradient of each unit, `[size]`."""
    places = [(k, s.name) for k, run in enumerate(runs) for s in run.graph.states if not s.bookkeeping]
    squares: dict[tuple[int, str], list[Tensor]] = {place: [] for place in places}
    largest: dict[tuple[int, str], Tensor] = {}
    for at in origins:
        chosen = subject.steps.unsqueeze(1) == at
        for place, found in _gradients(subject.loss_at(outputs, chosen), runs, places).items():
            squares[place].append(_by_lag(found.square().sum(-1), at))
            peak = found.abs().amax((0, 1))
            largest[place] = torch.maximum(largest[place], peak) if place in largest else peak
    joined = {place: torch.cat(parts, 1) for place, parts in squares.items()}
    reach = max(int(at.max()) for at in origins) + 1
    whole = _summary(None, ALL_STATES, ALL_STATES, torch.stack(list(joined.values())).sum(0)[:reach].sqrt())
    states = [
        _summary(layer, state, state_label(runs[layer].graph, state), rows[:reach].sqrt())
        for (layer, state), rows in joined.items()
    ]
    return [whole, *states], largest


def _gradients(
    loss: Tensor, runs: Sequence[AutogradUnroll], places: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], Tensor]:
    """The gradient in each state after each step, `[T, B, size]`, by layer and state."""
    tensors = [states[name] for k, name in places for states in runs[k].states[1:]]
    found = torch.autograd.grad(loss, tensors, retain_graph=True, materialize_grads=True, allow_unused=True)
    T = len(runs[0].values)
    return {place: torch.stack(found[n * T : (n + 1) * T]) for n, place in enumerate(places)}


def _by_lag(values: Tensor, at: Tensor) -> Tensor:
    """Reorder `[T, B]` from steps to numbers of steps before `at`, NaN where there is none."""
    index = at - torch.arange(len(values), device=values.device).unsqueeze(1)
    return torch.where(index >= 0, values.gather(0, index.clamp(min=0)), torch.nan).double()


def _summary(layer: int | None, state: str, label: str, norms: Tensor) -> Lags:
    levels = torch.tensor(QUANTILES, dtype=norms.dtype, device=norms.device)
    return Lags(layer, state, label, *norms.nanquantile(levels, dim=1).tolist())
