"""What is kept of each key: where learning stands, where predictions are made, and what waits in between."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

from tidegate.gradients import Memory
from tidegate.nn import State
from tidegate.online.names import Key
from tidegate.online.targets import Guess

T = TypeVar("T")


@dataclass(slots=True)
class Track:
    """One key's part.

    `memory` is the learning line: state and influence after the last step whose label's time has come. Where labels
    come late, `ahead` is the prediction line, the state after the last step of all, and `waiting` holds the steps in
    between, the oldest first: what the net read, and what was guessed.
    """

    memory: Memory
    ahead: State | None = None
    waiting: deque[tuple[Tensor, Guess]] = field(default_factory=deque)


class Recent(Generic[T]):
    """The values of the keys met last, at most so many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: OrderedDict[Key, T] = OrderedDict()

    def find(self, key: Key) -> T | None:
        """The value of a key, if it is kept; the order stays."""
        return self.kept.get(key)

    def keep(self, key: Key, value: T) -> list[Key]:
        """Have this key as the last met; returns the keys that had to go."""
        self.kept[key] = value
        self.kept.move_to_end(key)
        return [self.kept.popitem(last=False)[0]] if len(self.kept) > self.most else []


def unsound(state: State, out: Sequence[float]) -> str:
    """What of a step is not finite; nothing where all of it is."""
    for directions in state.layers:
        for named in directions:
            for tensor in named.values():
                if not math.isfinite(tensor.sum().item()):
                    return "state"
    return "" if all(map(math.isfinite, out)) else "output"
