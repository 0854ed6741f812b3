"""Events of a training run, for listeners."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """Training begins, or continues from a checkpoint that was written after `update` updates and `seconds`.

    `parameters` is the number of learned weights, `budget` the seconds that training may take, or None where it may
    take `updates` updates.
    """

    parameters: int
    budget: float | None
    updates: int | None = None
    update: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Checked:
    """The validation loss was computed after `update` updates.

    `training` is the mean training loss since the last check (None at the first, before any update), `best` says
    whether this is the lowest validation loss so far.
    """

    update: int
    seconds: float
    training: float | None
    validation: float
    learning_rate: float
    best: bool


@dataclass(frozen=True)
class Undone:
    """The update after `update` was not made, because its loss or the norm of its gradient is not finite.

    The rest of its batch was skipped. `row` is the number of such updates in a row.
    """

    update: int
    seconds: float
    loss: float
    norm: float
    row: int


@dataclass(frozen=True)
class Finished:
    """Training ended: after how many updates and seconds, why, and which update's weights were kept."""

    updates: int
    seconds: float
    reason: str
    best_update: int


Event = Started | Checked | Undone | Finished
Listener = Callable[[Event], None]
