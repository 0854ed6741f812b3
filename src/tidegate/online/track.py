"""The state of each key: of the learning line, of the prediction line, and the steps in between."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from tidegate.gradients import Memory
from tidegate.nn import State
from tidegate.online.events import Key
from tidegate.online.targets import Guess

T = TypeVar("T")


class Waiting(NamedTuple):
    """A step whose label is still to come: what the net read, the last label known then, and what was guessed."""

    x: Tensor
    last: Any
    guess: Guess


@dataclass(slots=True)
class Track:
    """The state of one key.

    `memory` is the learning line: state and influence after the last step whose label's time has come. Where labels
    come late, `ahead` is the prediction line, the state after the last step of all, and `waiting` holds the steps in
    between, the oldest first. `last` is the newest label, if the target is anchored to it. `streak` counts refused
    steps since the last update.
    """

    memory: Memory
    ahead: State | None = None
    waiting: deque[Waiting] = field(default_factory=deque)
    last: Any = None
    streak: int = 0


class Recent(Generic[T]):
    """Values by key, of the `most` most recent keys."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: OrderedDict[Key, T] = OrderedDict()

    def find(self, key: Key) -> T | None:
        """The value of a key, or None; the order of keys is unchanged."""
        return self.kept.get(key)

    def keep(self, key: Key, value: T) -> list[Key]:
        """Store a value and make its key the most recent; returns the keys that were dropped."""
        self.kept[key] = value
        self.kept.move_to_end(key)
        return [self.kept.popitem(last=False)[0]] if len(self.kept) > self.most else []


def unsound(state: State, out: Sequence[float]) -> str:
    """The name of what is not finite in a step; empty if all is finite."""
    for directions in state.layers:
        for named in directions:
            for tensor in named.values():
                if not math.isfinite(tensor.sum().item()):
                    return "state"
    return "" if all(map(math.isfinite, out)) else "output"
