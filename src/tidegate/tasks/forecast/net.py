"""The net: a recurrent layer, and quantiles for every horizon from its output at the origin."""

from typing import Any

import torch
from torch import Tensor, nn

from tidegate.cells import get
from tidegate.equations import Cell
from tidegate.equations.values import show_size
from tidegate.errors import ArgumentError
from tidegate.nn import Recurrent, State
from tidegate.tasks.forecast.inputs import ANCHORS

_CHOOSY = 4.0
_LEAST_GAP = 1e-3


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
    between neighbouring quantiles are linear in the layer's output, squashed so that quantiles never cross. The head
    starts at zero: before training the net forecasts the best fixed mixture, with the spread of its own errors.
    As in the multi-horizon quantile net of Wen et al. 2017, arXiv:1711.11053, every step of a window is an origin.
    """

    def __init__(
        self, cell: Cell | str, inputs: int, horizon: int, levels: tuple[float, ...], hidden: int, layers: int
    ) -> None:
        super().__init__()
        self.inputs, self.horizon, self.middle = inputs, horizon, levels.index(0.5)
        self.layer = Recurrent(_checked(cell), inputs, hidden, num_layers=layers)
        self.head = nn.Linear(self.layer.output_size, horizon * (len(ANCHORS) + len(levels)))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.mixture = nn.Parameter(torch.zeros(horizon, len(ANCHORS)))
        self.spread = nn.Parameter(torch.zeros(horizon, len(levels)))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Outputs of the layer for inputs `[T, B, F]`, and its state."""
        output: Any = self.layer(x, state)
        return output

    def forecast(self, outputs: Tensor, anchors: Tensor) -> Tensor:
        """Quantiles `[..., K, Q]` in scaled units from the value at the origin; anchors are `[..., K, A]`."""
        head = self.head(outputs).unflatten(-1, (self.horizon, -1))
        mixture = (self.mixture + head[..., : len(ANCHORS)]).softmax(-1)
        spread = self.spread + head[..., len(ANCHORS) :]
        centre = (mixture * anchors).sum(-1, keepdim=True) + spread[..., self.middle, None]
        below = nn.functional.softplus(spread[..., : self.middle]).flip(-1).cumsum(-1).flip(-1)
        above = nn.functional.softplus(spread[..., self.middle + 1 :]).cumsum(-1)
        return torch.cat([centre - below, centre, centre + above], -1)

    @torch.no_grad()
    def start_from(self, anchors: Tensor, targets: Tensor, levels: Tensor) -> None:
        """Set mixture and spread from origins `[N]` of the training part: anchors `[N, K, A]`, targets `[N, K]`."""
        errors = (targets[..., None] - anchors).abs().nanmean(0)
        best = errors.min(-1, keepdim=True).values.clamp(min=_LEAST_GAP)
        self.mixture.copy_((-_CHOOSY * (errors / best - 1)).nan_to_num(0.0).clamp(min=-8.0))
        centre = (self.mixture.softmax(-1) * anchors).sum(-1)
        found = (targets - centre).nanquantile(levels, dim=0).T.nan_to_num(0.0)
        gaps = found.diff(dim=-1).clamp(min=_LEAST_GAP).expm1().log()
        middle = found[:, self.middle, None]
        self.spread.copy_(torch.cat([gaps[:, : self.middle], middle, gaps[:, self.middle :]], -1))
