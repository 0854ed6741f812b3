"""Running stacked layers in one or two directions, for `Recurrent` and the drop-ins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tidegate.equations.graph import Graph
from tidegate.nn.arguments import Batch
from tidegate.reference.unroll import UnrollArguments
from tidegate.runtime.unroll import Unroll

Merge = Literal["concat", "sum", "mean"]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Direction:
    """One direction of one layer: the unrolled cell, its weights, and its initial states `[1, size]`."""

    unroll: Unroll
    weights: Mapping[str, Tensor]
    start: Mapping[str, Tensor]


@dataclass(frozen=True)
class Stacked:
    """A stack ready to run: a list of directions, the forward one first, for each layer."""

    graph: Graph
    layers: Sequence[Sequence[Direction]]
    merge: Merge = "concat"
    dropout: float = 0.0
    training: bool = False

    def __call__(
        self, batch: Batch, states: Sequence[Sequence[Mapping[str, Tensor]]]
    ) -> tuple[Tensor, list[list[Tensors]]]:
        """The top layer's output `[T, B, size]`, and the final states by layer and direction.

        `dropout` is the probability between layers; 0 outside of training.
        """
        inputs, ends = dict(batch.inputs), []
        first = self.graph.inputs[0].name
        for k, (directions, begin) in enumerate(zip(self.layers, states, strict=True)):
            if k and self.dropout:
                inputs[first] = nn.functional.dropout(inputs[first], self.dropout)
            runs = [
                self._run(d, inputs, dict(s), batch, backwards=bool(number))
                for number, (d, s) in enumerate(zip(directions, begin, strict=True))
            ]
            inputs[first] = self._merged([y for y, _ in runs])
            ends.append([end for _, end in runs])
        return inputs[first], ends

    def _run(
        self, d: Direction, inputs: Mapping[str, Tensor], state: Tensors, batch: Batch, *, backwards: bool
    ) -> tuple[Tensor, Tensors]:
        """Run one direction of one layer, with its own masks."""
        unroll, masks, weights = d.unroll, d.unroll.masks, d.weights
        if masks.any and (self.training or any(name in inputs for name in masks.names)):
            like = next(iter(weights.values()))
            inputs = masks.inputs(batch.steps, batch.rows, inputs, like)
            weights = masks.weights(weights, like)
        else:
            unroll = unroll.average
        return unroll(UnrollArguments(weights, inputs, state, d.start, batch.lengths, batch.reset, backwards))

    def _merged(self, outputs: list[Tensor]) -> Tensor:
        if len(outputs) == 1:
            return outputs[0]
        if self.merge == "concat":
            return torch.cat(outputs, -1)
        joined = outputs[0] + outputs[1]
        return joined if self.merge == "sum" else joined / 2
