"""A recurrent layer with a linear head, all weights in one vector, trained by Adam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tidegate.gradients import Memory, Online, Rule, online
from tidegate.nn import Recurrent
from tidegate.online.adam import Adam

EXPLODED = 1e3  # the norm of a gradient, of a loss in units of deviations; in healthy streams it reached 160


class OnlineNet:
    """The layer's learned weights, the head's `[outputs, H]` and its bias are views of `weights`, which Adam moves.

    The head begins at zero: the net predicts the mean, or every label alike, until it has learned something.
    """

    def __init__(self, layer: Recurrent, outputs: int, rule: Rule, rate: float, clip: float) -> None:
        self.layer, self.clip = layer, clip
        learned = {name: p for name, p in layer.named_parameters() if p.requires_grad}
        head = next(layer.parameters()).new_zeros(outputs, layer.output_size)
        parts = [*(p.detach() for p in learned.values()), head, head[:, 0]]
        self.weights = torch.cat([part.reshape(-1) for part in parts])
        views = [v.view_as(p) for v, p in zip(self.weights.split([p.numel() for p in parts]), parts, strict=True)]
        for parameter, view in zip(learned.values(), views, strict=False):
            parameter.data = view
        self.head, self.bias = views[-2:]
        self._names = list(learned)
        self.adam = Adam(self.weights, rate)
        self.online: Online[Any] = online(layer, rule)

    def restart(self, fresh: Recurrent) -> None:
        """Take over the weights of a new layer; the head is zero again."""
        new, own = dict(fresh.named_parameters()), dict(self.layer.named_parameters())
        self.weights.zero_()
        for name in self._names:
            own[name].data.copy_(new[name].detach())

    def outputs(self, h: Tensor) -> list[float]:
        """The head's outputs for the layer's `[1, H]`."""
        found: list[float] = torch.addmv(self.bias, self.head, h[0]).tolist()
        return found

    def learn(self, memory: Memory, h: Tensor, dy: Sequence[float]) -> bool:
        """One update, from the gradient of the loss in the outputs of the step that gave `h` and `memory`.

        The gradient is scaled down to the norm `clip`; where it is not finite or has exploded nothing changes, and the
        answer is no.
        """
        given = torch.tensor(dy, dtype=self.weights.dtype)
        found = self.online.gradient(memory, (given @ self.head).unsqueeze(0))
        head = torch.outer(given, h[0])
        gradient = torch.cat([*(found[name].reshape(-1) for name in self._names), head.reshape(-1), given])
        norm = float(torch.linalg.vector_norm(gradient))
        if not norm <= EXPLODED:
            return False
        if norm > self.clip:
            gradient.mul_(self.clip / norm)
        self.adam.step(self.weights, gradient)
        return True
