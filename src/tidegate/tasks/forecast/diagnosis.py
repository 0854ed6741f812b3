"""How gradients go through time in a fitted forecaster's layer, over the end of its series."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tidegate.gradients import Diagnosis, Rule, diagnose
from tidegate.tasks.forecast.fitted import Fitted
from tidegate.tasks.forecast.model.inputs import ForecastInputs
from tidegate.tasks.forecast.model.task import origin_loss
from tidegate.tasks.forecast.tail import Tail

_ORIGINS = 8


def diagnose_fitted(fitted: Fitted, tail: Tail, rules: Sequence[Rule] | None) -> Diagnosis:
    """The diagnosis over the last `context` steps of each series (those of the shortest, where it is shorter).

    The loss is the quantile loss, looked back from some steps whose truth is known whole. Where there is no such step,
    or no update improved on the start, whose head lets no gradient through, a random projection of the layer's outputs
    is used instead.
    """
    inputs = tail.inputs(fitted.recipe)
    steps = min(fitted.recipe.context, int(inputs.lengths.min()))
    ends = inputs.offsets + inputs.lengths
    rows = ends - steps + torch.arange(steps)[:, None]
    x, origins = inputs.x[rows], _origins(inputs, rows, ends)
    if not origins or not fitted.net.head.weight.any():
        return diagnose(fitted.net.layer, x, rules=rules)
    levels = torch.tensor(fitted.options.quantiles, dtype=x.dtype)

    def loss(outputs: Tensor, some: Tensor) -> Tensor:
        every = torch.ones_like(some, dtype=torch.bool)
        return origin_loss(fitted.net, inputs, levels, some, every, ends.expand_as(some), outputs)[0]

    found = diagnose(fitted.net.layer, x, rows, loss, origins=origins, rules=rules)
    return replace(found, loss="the quantile loss of the forecasts")


def _origins(inputs: ForecastInputs, rows: Tensor, ends: Tensor) -> list[int]:
    """Steps of the windows, the later half first, whose forecasts can be judged in every series."""
    known = ~inputs.targets(rows, ends.expand_as(rows)).isnan().any(-1)
    usable = known.all(1).nonzero().flatten()
    later = usable[len(usable) // 2 :]
    return [int(later[k]) for k in torch.linspace(0, len(later) - 1, min(_ORIGINS, len(later))).long()]
