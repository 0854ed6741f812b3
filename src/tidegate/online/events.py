"""Events of a learner while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidegate.online.names import Key


@dataclass(frozen=True)
class Drifted:
    """Errors have become larger than they were, at this step, whose error this is."""

    step: int
    key: Key
    error: float


@dataclass(frozen=True)
class Refused:
    """Nothing was learned from a step, and the state stayed, because `what` was not finite."""

    step: int
    key: Key
    what: str


@dataclass(frozen=True)
class Forgotten:
    """The state of a key was dropped: more than `max_keys` were met."""

    step: int
    key: Key


Event = Drifted | Refused | Forgotten
Listener = Callable[[Event], None]
