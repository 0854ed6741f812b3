"""The order in which a call goes through rows and steps.

Rows stand in *slots*, dealt out to the threads so that each has its longest rows first and all have about as much to do.
`place` says for each step and slot which step and row of the batch that is: `t * B + row`; backwards, a row's first step
is the last one before its own end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tidegate.native.frame import Shape

Integers = NDArray[np.int64]
NEVER = np.zeros(1, np.uint8)


@dataclass(frozen=True, eq=False)
class Tables:
    """`rows[slot]` and `lens[slot]`: the row in a slot and its steps; `place[step, slot]`; `valid`: the steps and slots
    that are computed, as `step * B + slot`, ascending."""

    rows: Integers
    lens: Integers
    place: Integers
    valid: Integers

    @property
    def addresses(self) -> dict[str, int]:
        """As a kernel is told."""
        return {name: getattr(self, name).ctypes.data for name in ("rows", "lens", "place", "valid")}


@lru_cache(maxsize=32)
def whole(T: int, B: int, backwards: bool) -> Tables:
    """The order where every row has T steps."""
    t = np.arange(T, dtype=np.int64)
    rows = np.arange(B, dtype=np.int64)
    place = (t[::-1] if backwards else t)[:, None] * B + rows
    return Tables(rows, np.full(B, T, np.int64), np.ascontiguousarray(place), np.arange(T * B, dtype=np.int64))


def ragged(lengths: Integers, shape: Shape, backwards: bool) -> Tables:
    """The order where rows end on their own; `lengths` `[B]`."""
    rows = _dealt(np.argsort(-lengths, kind="stable"), 1 if shape.hidden else shape.threads)
    lens = lengths[rows]
    step = np.arange(shape.T, dtype=np.int64)[:, None]
    inside = step < lens
    t = np.where(inside, lens - 1 - step, step) if backwards else step
    return Tables(rows, lens, np.ascontiguousarray(t * shape.B + rows), np.flatnonzero(inside))


def _dealt(order: Integers, threads: int) -> Integers:
    """Rows, longest first, given out in turn to threads that take equal shares of the slots."""
    B = len(order)
    borders = [B * j // threads for j in range(threads + 1)]
    room = [b - a for a, b in zip(borders, borders[1:], strict=False)]
    turn = [j for k in range(max(room, default=0)) for j in range(threads) if room[j] > k]
    who = np.array(turn, dtype=np.int64)
    return np.concatenate([order[who == j] for j in range(threads)]) if B else order


def fresh_starts(reset: NDArray[np.bool_], tables: Tables, backwards: bool) -> NDArray[np.uint8]:
    """Which step and slot starts afresh, with a step more that none does; `reset` `[T, B]` as a user gives it.

    Backwards, that is the last step before a reset, which comes right after the reset's own.
    """
    T, B = reset.shape
    found = np.zeros((T + 1, B), np.uint8)
    flags = np.ascontiguousarray(reset).reshape(-1)[tables.place]
    if backwards:
        found[1 : T + 1] = flags
        found[T] = 0
    else:
        found[:T] = flags
    return found
