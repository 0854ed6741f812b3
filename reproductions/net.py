"""A recurrent layer with logistic outputs, trained by gradient descent: the nets of 1997 and 2000."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.equations import Cell
from tidegate.nn import Recurrent, State, clip_norm_


class LogisticNet(nn.Module):
    """A layer, and outputs whose logistic function is `sigmoid(W h + V x + b)`.

    `sizes` are inputs, hidden and outputs; `bias` says whether there is `b`, `shortcut` whether there is `V`, which
    takes indices. `options` are those of the layer.
    With a `width` all weights start uniform on ±width, but for those of the cell that are `kept`.
    """

    def __init__(
        self,
        cell: Cell,
        sizes: tuple[int, int, int],
        *,
        width: float | None = None,
        kept: Collection[str] = (),
        bias: bool = False,
        shortcut: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        inputs, hidden, outputs = sizes
        self.layer = Recurrent(cell, inputs, hidden, **options)
        self.out = nn.Linear(hidden, outputs, bias=bias)
        self.shortcut = nn.Embedding(inputs, outputs) if shortcut else None
        if width is not None:
            self._start(width, kept)

    def _start(self, width: float, kept: Collection[str]) -> None:
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.removeprefix("layer.l0.") not in kept:
                    weight.uniform_(-width, width)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The outputs before the logistic function, `[T, B, outputs]`, and the state at the end."""
        h, end = self.layer(x, state)
        nets = self.out(h)
        return (nets if self.shortcut is None else nets + self.shortcut(x)), end

    def last(self, x: Tensor, *, linear: bool = False) -> Tensor:
        """The outputs after the last step only, `[B, outputs]`, logistic unless `linear`."""
        h, _ = self.layer(x)
        nets = self.out(h[-1])
        return nets if linear else torch.sigmoid(nets)

    def at_end(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """The same for rows of different lengths."""
        _, end = self.layer(x, lengths=lengths)
        return torch.sigmoid(self.out(end["h"][0]))


class Descent:
    """Plain gradient descent, without the cost of an optimiser's call."""

    def __init__(self, module: nn.Module, rate: float) -> None:
        self.weights: list[Tensor] = list(module.parameters())
        self.rate = rate

    def __call__(self, loss: Tensor) -> None:
        """One step down."""
        gradients = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            torch._foreach_add_(self.weights, gradients, alpha=-self.rate)


class Adam:
    """Adam, with the norm of the gradient clipped where `clip` is given."""

    def __init__(self, module: nn.Module, rate: float, clip: float | None = None) -> None:
        self.weights, self.clip = list(module.parameters()), clip
        self.optimiser = torch.optim.Adam(self.weights, lr=rate)

    def __call__(self, loss: Tensor) -> None:
        """One step down."""
        self.optimiser.zero_grad()
        loss.backward()
        if self.clip is not None:
            clip_norm_(self.weights, self.clip)
        self.optimiser.step()


def count(module: nn.Module) -> int:
    """The number of weights that are learned."""
    return sum(weight.numel() for weight in module.parameters())
