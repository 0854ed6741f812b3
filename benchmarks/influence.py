"""What a rule that carries gradients forward has to compute and to move, counted from what it follows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tidegate.gradients.forward_rules import Forward
from tidegate.gradients.influence.capture import Tracker
from tidegate.gradients.influence.dense import DenseInfluence
from tidegate.gradients.influence.diagonal import DiagonalInfluence
from tidegate.gradients.influence.engine import InfluenceEngine


@dataclass(frozen=True)
class Load:
    """Of one step and row: `flops` of the recursion, and `numbers` that are carried on."""

    flops: int
    numbers: int


def load(layer: nn.Module, rule: Forward) -> Load:
    """What a rule does for a layer, the layer's own steps and the Jacobians not counted."""
    machine = InfluenceEngine(layer, rule)
    like = next(iter(machine.flat.begin(1, None).values()))
    numbers = sum(t.numel() for named in machine.nothing(1, like) for t in named.values())
    return Load(sum(map(_flops, machine.trackers)), numbers)


def _flops(tracker: Tracker) -> int:
    """At least: a product with the Jacobian, a drive, and the gradient, two operations a number each."""
    if isinstance(tracker, DenseInfluence):
        return 2 * (tracker.D + 1) * tracker.D * tracker.P
    if isinstance(tracker, DiagonalInfluence):
        rows, columns = tracker.shape
        return 2 * rows * columns * (len(tracker.states) + len(tracker.group.jacobians) + 1)
    raise TypeError(f"no operations are counted of a {type(tracker).__name__}")
