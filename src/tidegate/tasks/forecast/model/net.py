"""The net: a recurrent layer, and quantiles for every horizon from its output at the origin."""

from typing import Any

import torch
from torch import Tensor, nn

from tidegate.cells import get
from tidegate.equations import Cell
from tidegate.equations.values import show_size
from tidegate.errors import ArgumentError
from tidegate.nn import Recurrent, State

_CHOOSY = 4.0
_LEAST_GAP = 1e-3
_LEAST_LOGIT = -20.0  # of an anchor far from the best: nothing that a net learns brings it back
_FUTURE_UNITS = 16


def _checked(cell: Cell | str) -> Cell:
    """The cell, if one vector of inputs a step and a hidden size are all that it needs."""
    found = get(cell) if isinstance(cell, str) else cell
    graph = found.graph
    names = ", ".join(i.name for i in graph.inputs)
    if len(graph.inputs) > 1 or graph.inputs[0].size != ("I",):
        raise ArgumentError(
            f"cell {graph.name!r} cannot forecast: a forecaster gives it one input of size I, and it reads {names} of "
            f"{', '.join(show_size(i.size) for i in graph.inputs)}; choose or write a cell with inputs='x'"
        )
    others = [letter for letter in graph.letters if letter not in "HI"]
    if others:
        raise ArgumentError(
            f"cell {graph.name!r} cannot forecast: besides H and I it has the size {others[0]}, which a forecaster "
            "does not choose; choose or write a cell without it"
        )
    return found


class ForecastNet(nn.Module):
    """Direct quantiles of all horizons from the state at the origin.

    The median is a mixture of plain forecasts (see `ANCHORS`) plus a correction; mixture, correction and the distances
    between neighbouring quantiles are linear in the layer's output, squashed so that quantiles never cross. What is
    known in advance of a step (`known` numbers) corrects its median further, through a hidden layer. The head starts at
    zero: before training the net forecasts the best fixed mixture, with the spread of its own errors. As in the
    multi-horizon quantile net of Wen et al. 2017, arXiv:1711.11053, every step is an origin.

    `widths [K, Q]` scale the distances of the quantiles from the median; calibration sets them, training leaves them.
    """

    widths: Tensor

    def __init__(
        self,
        cell: Cell | str,
        sizes: tuple[int, int],
        anchors: int,
        horizon: int,
        levels: tuple[float, ...],
        *,
        hidden: int,
        layers: int,
    ) -> None:
        super().__init__()
        self.horizon, self.middle, self.kinds = horizon, levels.index(0.5), anchors
        inputs, known = sizes
        self.layer = Recurrent(_checked(cell), inputs, hidden, num_layers=layers)
        self.head = nn.Linear(self.layer.output_size, horizon * (anchors + len(levels)))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.mixture = nn.Parameter(torch.zeros(horizon, anchors))
        self.spread = nn.Parameter(torch.zeros(horizon, len(levels)))
        self.future = _Future(self.layer.output_size, known) if known else None
        self.register_buffer("widths", torch.ones(horizon, len(levels)))

    def forward(self, x: Tensor, state: State | None = None, **given: Any) -> tuple[Tensor, State]:
        """Outputs of the layer for inputs `[T, B, F]`, and its state; `lengths` and `reset` are those of the layer."""
        output: Any = self.layer(x, state, **given)
        return output

    def forecast(self, outputs: Tensor, anchors: Tensor, known: Tensor) -> Tensor:
        """Quantiles `[..., K, Q]` in scaled units from the value at the origin.

        Outputs are `[..., H]`, anchors `[..., K, A]`, what is known in advance `[..., K, C]`.
        """
        head = self.head(outputs).unflatten(-1, (self.horizon, -1))
        mixture = (self.mixture + head[..., : self.kinds]).softmax(-1)
        spread = self.spread + head[..., self.kinds :]
        centre = (mixture * anchors).sum(-1, keepdim=True) + spread[..., self.middle, None]
        if self.future is not None:
            centre = centre + self.future(outputs, known)
        gaps = nn.functional.softplus(spread)
        below = self._distances(gaps[..., : self.middle].flip(-1), self.widths[:, : self.middle].flip(-1)).flip(-1)
        above = self._distances(gaps[..., self.middle + 1 :], self.widths[:, self.middle + 1 :])
        return torch.cat([centre - below, centre, centre + above], -1)

    def _distances(self, gaps: Tensor, widths: Tensor) -> Tensor:
        """Distances from the median, rising outwards whatever the widths are."""
        distances = gaps.cumsum(-1) * widths
        return distances.cummax(-1).values if distances.shape[-1] else distances

    @torch.no_grad()
    def start_from(self, anchors: Tensor, targets: Tensor, levels: Tensor) -> None:
        """Set mixture and spread from origins `[N]` of the training part: anchors `[N, K, A]`, targets `[N, K]`."""
        errors = (targets[..., None] - anchors).abs().nanmean(0)
        best = errors.min(-1, keepdim=True).values.clamp(min=_LEAST_GAP)
        self.mixture.copy_((-_CHOOSY * (errors / best - 1)).nan_to_num(0.0).clamp(min=_LEAST_LOGIT))
        centre = (self.mixture.softmax(-1) * anchors).sum(-1)
        found = (targets - centre).nanquantile(levels, dim=0).T.nan_to_num(0.0)
        gaps = found.diff(dim=-1).clamp(min=_LEAST_GAP)
        gaps = gaps + (-(-gaps).expm1()).log()  # the inverse of softplus, which does not overflow
        middle = found[:, self.middle, None]
        self.spread.copy_(torch.cat([gaps[:, : self.middle], middle, gaps[:, self.middle :]], -1))


class _Future(nn.Module):
    """A correction `[..., K, 1]` of the median from what is known of a step in advance; zero before training."""

    def __init__(self, outputs: int, known: int) -> None:
        super().__init__()
        self.state, self.step = nn.Linear(outputs, _FUTURE_UNITS), nn.Linear(known, _FUTURE_UNITS, bias=False)
        self.correction = nn.Linear(_FUTURE_UNITS, 1, bias=False)
        nn.init.zeros_(self.correction.weight)

    def forward(self, outputs: Tensor, known: Tensor) -> Tensor:
        correction: Tensor = self.correction(torch.tanh(self.state(outputs)[..., None, :] + self.step(known)))
        return correction
