"""A layer run step by step, so that autograd has a separate tensor for every state: for gradients through time."""

from typing import Any

from torch import Tensor

from tidegate.cells.glossary import label
from tidegate.equations.graph import Graph
from tidegate.nn.arguments import Batch
from tidegate.nn.layer import Recurrent
from tidegate.nn.stack import Stack
from tidegate.nn.state import State
from tidegate.nn.trace import AutogradUnroll, follow_cell

__all__ = ["AutogradUnroll", "follow", "state_label"]


def follow(layer: Recurrent | Stack, x: Any, state: State | None = None) -> tuple[Tensor, list[AutogradUnroll]]:
    """The output `[T, B, size]` for time-major `x`, and the run of each layer, the first one first.

    It runs on the reference path, with masks at their expected values and without dropout. The layer must have one
    direction.
    """
    if isinstance(layer, Stack):
        y, runs = layer.through(x, state, follow)
        return y, runs
    batch = Batch(layer.graph, x, None, None, False, layer.sizes)
    return layer.one_by_one(batch, state, follow_cell)


def state_label(graph: Graph, state: str) -> str:
    """A state's label in plots: from the glossary, or its name."""
    return label(graph, state) if state in graph.named else state
