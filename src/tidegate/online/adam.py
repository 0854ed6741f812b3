"""Adam on one vector, with a state that is plain tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Kingma & Ba 2015, arXiv:1412.6980, algorithm 1, with its usual decay rates: `mean` and `square` are m and v."""

    def __init__(self, weights: Tensor, rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)

    def step(self, weights: Tensor, gradient: Tensor) -> None:
        """Update the weights in place."""
        self.steps += 1
        self.mean.lerp_(gradient, 1.0 - FIRST)
        self.square.mul_(SECOND).addcmul_(gradient, gradient, value=1.0 - SECOND)
        correction = math.sqrt(1.0 - SECOND**self.steps)
        denominator = self.square.sqrt().add_(EPSILON * correction)
        weights.addcdiv_(self.mean, denominator, value=-self.rate * correction / (1.0 - FIRST**self.steps))
