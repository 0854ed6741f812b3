"""Floating-point operations of whole runs, by which cells are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.rows import FORWARD, TRAINING
from benchmarks.shapes import Shape
from tidegate.equations import Graph
from tidegate.nn.operations import Operations, operations

PASSES = {FORWARD: 1, TRAINING: 3}  # a training step multiplies forward, for the data and for the weights


@dataclass(frozen=True)
class Work(Operations):
    """What one step of one row takes, for runs of a shape."""

    def flops(self, shape: Shape, what: str) -> int:
        """Operations in products, which GF/s count: an LSTM has 8 T B (I + H) H forward, 24 in training."""
        return PASSES[what] * shape.T * shape.B * self.products

    def whole(self, shape: Shape, what: str) -> int:
        """All operations, those of gates and norms with them: what two cells are compared by."""
        return PASSES[what] * shape.T * shape.B * (self.products + self.others)

    def weight_bytes(self, what: str) -> int:
        """Bytes of recurrent matrices, in float32, that a step has to read: in training forward and backward."""
        return 4 * self.recurrent * (2 if what == TRAINING else 1)


def work(graph: Graph, sizes: Mapping[str, int]) -> Work:
    """Count a step."""
    return Work(**vars(operations(graph, sizes)))
