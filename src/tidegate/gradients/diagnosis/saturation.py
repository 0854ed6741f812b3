"""Saturation of gates and other sigmoid or tanh values, and the time constants of gates that keep a state."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.calculus import updates
from tidegate.cells.glossary import label
from tidegate.equations import Graph
from tidegate.gradients.diagnosis.subject import DiagnosedLayer
from tidegate.nn.unroll_autograd import AutogradUnroll

ENDS = {
    "sigmoid": (0.0, 0.05, 0.95, 1.0),
    "tanh": (-1.0, -0.9, 0.9, 1.0),
}  # where the derivative is a fifth of its maximum
BINS = 20
SATURATED_SHARE = 0.5


@dataclass(frozen=True)
class Activation:
    """The values of a sigmoid or tanh over the data.

    `low` and `high` are the shares of its values in the lowest and the highest twentieth of its range (below 0.05 and
    above 0.95; for a tanh below -0.9 and above 0.9), `unit_low` and `unit_high` the same for each unit. `counts` is the
    histogram over equal bins between the two `ends`. `keeps` and `enters` are the states whose old value or whose input
    it scales. If it keeps one, `time_constants` has for each unit -1 / log(share kept), in steps, of the geometric mean
    over the data; None where nothing is lost.
    """

    layer: int
    name: str
    label: str
    kind: str
    keeps: list[str]
    enters: list[str]
    ends: tuple[float, float]
    counts: list[int]
    low: float
    high: float
    unit_low: list[float]
    unit_high: list[float]
    time_constants: list[float | None] | None

    @property
    def saturated(self) -> bool:
        """Whether more than half of its values are at the ends."""
        return self.low + self.high > SATURATED_SHARE


def activations(subject: DiagnosedLayer, layer: int, run: AutogradUnroll) -> Iterator[Activation]:
    """Every named sigmoid and tanh of a layer."""
    graph = run.graph
    for name, value in graph.named.items():
        if value.op in ENDS and name in run.values[0]:
            values = torch.stack([step[name] for step in run.values])[subject.valid].detach().double()
            yield _activation(layer, name, label(graph, name), value.op, _roles(graph, name), values)


def _roles(graph: Graph, name: str) -> dict[str, list[tuple[str, bool]]]:
    """The states that a value keeps and enters, and whether it does so as 1 - value."""
    value, found = graph.named[name], updates(graph)
    return {
        "keeps": [(u.state, g.turned) for u in found for g in u.keep if g.sigmoid is value],
        "enters": [(u.state, g.turned) for u in found for g in u.enter if g.sigmoid is value],
    }


def _activation(
    layer: int, name: str, text: str, kind: str, roles: dict[str, list[tuple[str, bool]]], values: Tensor
) -> Activation:
    least, below, above, most = ENDS[kind]
    low, high = (values < below).double().mean(0), (values > above).double().mean(0)
    counts = torch.histc(values.cpu(), BINS, least, most)
    keeps = roles["keeps"]
    return Activation(
        layer,
        name,
        text,
        kind,
        [state for state, _ in keeps],
        [state for state, _ in roles["enters"]],
        (least, most),
        [int(count) for count in counts],
        float(low.mean()),
        float(high.mean()),
        low.tolist(),
        high.tolist(),
        _time_constants(values, turned=keeps[0][1]) if keeps else None,
    )


def _time_constants(values: Tensor, *, turned: bool) -> list[float | None]:
    kept = torch.log1p(-values) if turned else values.log()
    steps = (-1.0 / kept.mean(0)).tolist()
    return [None if math.isinf(step) else abs(step) for step in steps]
