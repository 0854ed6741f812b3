"""Adam on one vector, with a state that is plain tensors, and the learning rate of a learner that backs off."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8
STREAK = 3  # refused steps of a key in a row; one or two may be outliers
QUIET = 5000  # updates without a refused step, after which a lowered rate doubles (docs/decisions/0021)
LEAST = 2.0**-10  # of the rate in the options; below this weights hardly move


class Adam:
    """Kingma & Ba 2015, arXiv:1412.6980, algorithm 1, with its usual decay rates: `mean` and `square` are m and v."""

    def __init__(self, weights: Tensor, rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)

    def clear(self) -> None:
        """Forget all gradients."""
        self.steps = 0
        self.mean.zero_()
        self.square.zero_()

    def step(self, weights: Tensor, gradient: Tensor) -> None:
        """Update the weights in place."""
        self.steps += 1
        self.mean.lerp_(gradient, 1.0 - FIRST)
        self.square.mul_(SECOND).addcmul_(gradient, gradient, value=1.0 - SECOND)
        correction = math.sqrt(1.0 - SECOND**self.steps)
        denominator = self.square.sqrt().add_(EPSILON * correction)
        weights.addcdiv_(self.mean, denominator, value=-self.rate * correction / (1.0 - FIRST**self.steps))


@dataclass
class BackOff:
    """The learning rate: halved after refused steps, doubled after a quiet time, never above the one in the options.

    The rule of dynamic loss scaling (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2): overflows are cheap and
    rare, so the scale is found by trying.
    """

    option: float
    rate: float
    quiet: int = 0  # updates since the last refused step or change of the rate

    @property
    def lowered_before(self) -> bool:
        """Whether the rate has not yet recovered."""
        return self.rate < self.option

    def lowered(self) -> float:
        """The rate after one more back-off."""
        self.quiet, self.rate = 0, max(self.rate / 2.0, self.option * LEAST)
        return self.rate

    def updated(self) -> float:
        """The rate after one more update."""
        self.quiet += 1
        if self.quiet >= QUIET:
            self.quiet, self.rate = 0, min(self.rate * 2.0, self.option)
        return self.rate
