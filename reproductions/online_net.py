"""A recurrent layer and a linear readout that learn at every step of a stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tidegate.equations import Cell
from tidegate.gradients import Rule, online
from tidegate.nn import Recurrent


class OnlineNet:
    """A layer under a rule, and outputs `W y + b`, one step at a time.

    `sizes` are inputs, hidden and outputs; `options` are those of the layer. `weights` are all that is learned: those
    of the layer, then W and b. With `feedback` fixed random weights stand for W where the gradient
    of a loss goes back to the layer (Lillicrap et al. 2016, doi:10.1038/ncomms13276).
    """

    def __init__(
        self,
        cell: Cell | str,
        sizes: tuple[int, int, int],
        rule: Rule,
        lanes: int,
        *,
        feedback: bool = False,
        **options: Any,
    ) -> None:
        inputs, hidden, outputs = sizes
        self.layer = Recurrent(cell, inputs, hidden, **options)
        self.readout = nn.Linear(hidden, outputs)
        self.back = nn.Linear(hidden, outputs).weight.detach() if feedback else self.readout.weight
        self.lanes, self.learner = lanes, online(self.layer, rule)
        self.weights: list[Tensor] = [*self.layer.parameters(), self.readout.weight, self.readout.bias]
        self.reset()

    def reset(self) -> None:
        """Back to the layer's start: neither a state nor an influence is left."""
        self.memory = self.learner.begin(self.lanes)
        self.y = torch.zeros(self.lanes, self.layer.output_size)

    @torch.no_grad()
    def step(self, x: Tensor) -> Tensor:
        """One step with `x` `[B, inputs]`: the outputs `[B, outputs]`."""
        self.y, self.memory = self.learner.step(self.memory, x)
        return torch.addmm(self.readout.bias, self.y, self.readout.weight.t())

    @torch.no_grad()
    def gradients(self, d: Tensor) -> list[Tensor]:
        """The gradients of `weights`, of a loss with the gradient `d` `[B, outputs]` in the last step's outputs."""
        of_layer = self.learner.gradient(self.memory, d @ self.back)
        return [*of_layer.values(), d.t() @ self.y, d.sum(0)]
