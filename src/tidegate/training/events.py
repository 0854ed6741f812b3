"""Events of a training run, for listeners."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """Training begins: the number of learned weights, and the seconds it may take."""

    parameters: int
    budget: float


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
class Finished:
    """Training ended: after how many updates and seconds, why, and which update's weights were kept."""

    updates: int
    seconds: float
    reason: str
    best_update: int


Event = Started | Checked | Finished
Listener = Callable[[Event], None]
