"""The interface between the training loop and a task."""

from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from tidegate.nn import State

Batch = TypeVar("Batch")


class Task(Protocol[Batch]):
    """A net, its batches and its losses. The loop knows nothing else of what is learned.

    A task that changes from batch to batch, for example because it reads its data in order or carries a state from
    one batch to the next, is also `Resumable`. All random numbers come from the generator or torch's own.
    """

    @property
    def module(self) -> nn.Module:
        """The net, whose weights the loop changes."""

    def draw(self, generator: torch.Generator) -> Batch:
        """The next training batch. What moves the position in the data happens here, not in `run`."""

    def length(self, batch: Batch) -> int:
        """The number of steps in a batch."""

    def run(self, batch: Batch, start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        """Outputs of the net for these steps, from that state (None: the net's own start), and the new state."""

    def score(self, batch: Batch, outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The sum of the losses of these steps and the number of terms in it."""

    def validate(self) -> float:
        """The loss on the validation part; lower is better."""


@runtime_checkable
class Resumable(Protocol):
    """The part of a task that is saved in checkpoints: its position in the data, and the state that it carries.

    The loop also takes it between `draw` and `run`, and puts it back when the batch's update is undone.
    """

    def state_dict(self) -> dict[str, Any]:
        """A snapshot as tensors, numbers, texts, None, and lists and dictionaries (with texts as keys) of these."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a snapshot."""


@runtime_checkable
class Shareable(Protocol[Batch]):
    """The part of a task whose batches several processes share."""

    def share(self, batch: Batch, rank: int, size: int) -> Batch:
        """The rows of a batch for process `rank` of `size`: each row is in one share, with all of its steps.

        A carried state is that of these rows; each process saves its own.
        """
