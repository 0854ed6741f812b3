"""How gradients go through time in a fitted forecaster's layer, over the end of its series."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tidegate.data import Panel
from tidegate.gradients import Diagnosis, Rule, diagnose
from tidegate.tasks.forecast.fitted import Fitted
from tidegate.tasks.forecast.inputs import ForecastInputs, make_inputs
from tidegate.tasks.forecast.task import Windows, window_loss

_ORIGINS = 8


def diagnose_fitted(fitted: Fitted, panel: Panel, rules: Sequence[Rule] | None) -> Diagnosis:
    """The diagnosis over the last `context` steps of each series (those of the shortest, where it is shorter).

    The loss is the quantile loss, looked back from some steps whose truth is known whole. Where there is no such step,
    or no update improved on the start, whose head lets no gradient through, a random projection of the layer's outputs
    is used instead.
    """
    inputs = make_inputs(panel, fitted.recipe)
    steps = min(fitted.recipe.context, int(inputs.lengths.min()))
    ends = inputs.offsets + inputs.lengths
    windows = Windows(ends - steps + torch.arange(steps)[:, None], inputs.offsets, ends)
    x, origins = inputs.x[windows.rows], _origins(inputs, windows)
    if not origins or not fitted.net.head.weight.any():
        return diagnose(fitted.net.layer, x, rules=rules)
    levels = torch.tensor(fitted.options.quantiles, dtype=x.dtype)

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        return window_loss(fitted.net, inputs, levels, Windows(rows, windows.firsts, ends), outputs)[0]

    found = diagnose(fitted.net.layer, x, windows.rows, loss, origins=origins, rules=rules)
    return replace(found, loss="the quantile loss of the forecasts")


def _origins(inputs: ForecastInputs, windows: Windows) -> list[int]:
    """Steps of the windows, the later half first, whose forecasts can be made and judged in every series."""
    early = windows.rows < windows.firsts + inputs.recipe.past
    known = ~inputs.targets(windows.rows, windows.stops).isnan().any(-1)
    usable = (known & ~early).all(1).nonzero().flatten()
    later = usable[len(usable) // 2 :]
    return [int(later[k]) for k in torch.linspace(0, len(later) - 1, min(_ORIGINS, len(later))).long()]
