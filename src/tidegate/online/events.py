"""Events of a learner while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Key = str | int | None


@dataclass(frozen=True)
class Drifted:
    """The drift alarm was raised at this step, whose error this is."""

    step: int
    key: Key
    error: float


@dataclass(frozen=True)
class Refused:
    """Nothing was learned from a step, and its state was discarded, because `what` was not finite or exploded."""

    step: int
    key: Key
    what: str


@dataclass(frozen=True)
class BackedOff:
    """Several steps of a key in a row were refused: states start anew, and this is the learning rate from here on."""

    step: int
    key: Key
    learning_rate: float


@dataclass(frozen=True)
class Forgotten:
    """The state of the least recently seen key was dropped, since there were more than `max_keys`."""

    step: int
    key: Key


Event = Drifted | Refused | BackedOff | Forgotten
Listener = Callable[[Event], None]
