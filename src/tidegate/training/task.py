"""The interface between the training loop and a task."""

from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from tidegate.nn import State

Batch = TypeVar("Batch")


class Task(Protocol[Batch]):
    """A net, its batches and its losses. The loop knows nothing else of what is learned."""

    @property
    def module(self) -> nn.Module:
        """The net, whose weights the loop changes."""

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Training batches without end; all random numbers are from the generator."""

    def length(self, batch: Batch) -> int:
        """The number of steps in a batch."""

    def run(self, batch: Batch, start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        """Outputs of the net for these steps, from that state (None: the net's own start), and the new state."""

    def score(self, batch: Batch, outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The sum of the losses of these steps and the number of terms in it."""

    def validate(self) -> float:
        """The loss on the validation part; lower is better."""
