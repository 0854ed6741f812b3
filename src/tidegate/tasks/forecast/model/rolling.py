"""A net over whole series: outputs at every step with the state carried from the start, and forecasts from them."""

import numpy as np
import torch
from torch import Tensor

from tidegate.data import Series
from tidegate.nn import State
from tidegate.tasks.forecast.model.inputs import ForecastInputs
from tidegate.tasks.forecast.model.net import ForecastNet

_ROWS_AT_ONCE = 64
_STEPS_AT_ONCE = 4096
_ORIGINS_AT_ONCE = 2048


@torch.no_grad()
def outputs_of(
    net: ForecastNet, inputs: ForecastInputs, stops: Tensor | None = None, states: list[State | None] | None = None
) -> tuple[Tensor, list[State]]:
    """Outputs `[R, H]` of the layer at every row of every series before `stops`, and each series' last state.

    Series of like length run together. `states` are those before the first step of each (None: the net's own start).
    """
    lengths = inputs.lengths if stops is None else stops
    outputs = torch.zeros(len(inputs.x), net.layer.output_size)
    ends: list[State | None] = [None] * len(lengths)
    order = torch.argsort(lengths, stable=True)
    for some in order.split(_ROWS_AT_ONCE):
        before = None if states is None else [states[k] for k in some.tolist()]
        for k, state in zip(some.tolist(), _run_some(net, inputs, outputs, some, lengths[some], before), strict=True):
            ends[k] = state
    return outputs, [state for state in ends if state is not None]


def _run_some(
    net: ForecastNet,
    inputs: ForecastInputs,
    outputs: Tensor,
    series: Tensor,
    lengths: Tensor,
    before: list[State | None] | None,
) -> list[State]:
    own = net.layer.initial_state(1)
    state = State.cat([own if one is None else one for one in before or [None] * len(series)])
    for start in range(0, int(lengths.max()), _STEPS_AT_ONCE):
        left = (lengths - start).clamp(0, _STEPS_AT_ONCE)
        steps = torch.arange(start, start + int(left.max()))[:, None]
        rows = inputs.offsets[series] + torch.minimum(steps, (lengths - 1).clamp(min=0))
        found, state = net(inputs.x[rows], state, lengths=left)
        inside = steps < lengths
        outputs[rows[inside]] = found[inside]
    return [state.rows([k]) for k in range(len(series))]


@torch.no_grad()
def forecasts_from(net: ForecastNet, inputs: ForecastInputs, outputs: Tensor, rows: Tensor) -> Tensor:
    """Quantiles `[N, K, Q]` in scaled units from the value at the origin, for origins at rows `[N]`."""
    pieces = [
        net.forecast(outputs[some], inputs.anchors(some), inputs.known(some)) for some in rows.split(_ORIGINS_AT_ONCE)
    ]
    return torch.cat(pieces)


def in_units(
    net: ForecastNet, inputs: ForecastInputs, outputs: Tensor, index: int, series: Series, origins: np.ndarray
) -> np.ndarray:
    """Quantiles `[N, K, Q]` in the units of series number `index` at these origins, counted from its first step."""
    rows = inputs.offsets[index] + torch.from_numpy(origins)
    anchored = forecasts_from(net, inputs, outputs, rows).numpy().astype(float)
    scaled = anchored + inputs.filled[rows].numpy().astype(float)[:, None, None]
    first = series.start + len(series) - int(inputs.lengths[index])
    places = first + origins[:, None] + np.arange(1, inputs.recipe.horizon + 1)
    return inputs.recipe.scale(series).restored(scaled, places)
