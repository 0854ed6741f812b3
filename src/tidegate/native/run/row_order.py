"""The order in which a call processes rows and steps.

Rows are assigned to *slots*, dealt out to the threads so that each has its longest rows first and all have about as
much to do. `place` says for each step and slot which step and row of the batch that is: `t * B + row`; backwards, a
row's first step is the last one before its own end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tidegate.native.compile.arguments import CallShape
from tidegate.native.compile.gemm import GRADIENT_BLOCK

Integers = NDArray[np.int64]
Flags = NDArray[np.uint8]
NEVER = np.zeros(1, np.uint8)
NEVER_ADDRESS: int = NEVER.ctypes.data
MAX_CACHED_PLACES = 1 << 16  # steps times rows
BLOCK_STEPS = 32  # blocks of a sum over steps end at its multiples: there a sequence may be cut into calls


@dataclass(frozen=True, eq=False)
class RowOrder:
    """`rows[slot]` and `lens[slot]`: the row in a slot and its steps; `place[step, slot]`; `valid`: what is computed,
    as `step * B + slot`, in an order that does not depend on who computes it; `blocks[number]`: the first of these in a
    block that is summed for itself, and how many it has, the last steps' first. `slots`: where each row is, if not in
    its own place."""

    rows: Integers
    lens: Integers
    place: Integers
    valid: Integers
    blocks: Integers
    slots: Integers | None
    addresses: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        found = {name: getattr(self, name).ctypes.data for name in ("rows", "lens", "place", "valid", "blocks")}
        counts = {"count": len(self.valid), "block.count": len(self.blocks)}
        object.__setattr__(self, "addresses", found | counts)


def whole(T: int, B: int, backwards: bool) -> RowOrder:
    """The order if every row has T steps."""
    return _cached_whole(T, B, backwards) if T * B <= MAX_CACHED_PLACES else _whole(T, B, backwards)


def _whole(T: int, B: int, backwards: bool) -> RowOrder:
    every = np.arange(T * B, dtype=np.int64)
    place = np.ascontiguousarray(every.reshape(T, B)[::-1]) if backwards else every
    blocks = _blocks(range(0, T * B + 1, B) if B else [0] * (T + 1))
    return RowOrder(np.arange(B, dtype=np.int64), np.full(B, T, np.int64), place, every, blocks, None)


_cached_whole = lru_cache(maxsize=64)(_whole)


def ragged(lengths: Integers, shape: CallShape, backwards: bool) -> RowOrder:
    """The order if rows have their own `lengths` `[B]`."""
    B = shape.B
    ranked = np.argsort(-lengths, kind="stable")
    rows = _dealt(ranked, 1 if shape.hidden else shape.threads)
    slots = np.empty(B, np.int64)
    slots[rows] = np.arange(B, dtype=np.int64)
    step = np.arange(shape.T, dtype=np.int64)[:, None]
    lens = lengths[rows]
    t = np.where(step < lens, lens - 1 - step, step) if backwards else step
    runs = step < lengths
    blocks = _blocks([0, *np.cumsum(runs.sum(1)).tolist()])
    return RowOrder(rows, lens, np.ascontiguousarray(t * B + rows), (step * B + slots)[runs], blocks, slots)


def _blocks(begins: Sequence[int]) -> Integers:
    """The blocks, given where each step begins in `valid`, and the end."""
    borders = [*begins[:-1:BLOCK_STEPS], begins[-1]]
    found = []
    for begin, end in reversed([*pairwise(borders)]):
        count = -(-(end - begin) // GRADIENT_BLOCK)
        cuts = [begin + (end - begin) * k // max(count, 1) for k in range(count + 1)]
        found += [(first, after - first) for first, after in pairwise(cuts)]
    return np.array(found, np.int64).reshape(-1, 2)


def _dealt(order: Integers, threads: int) -> Integers:
    """Deal out the rows, longest first, to threads with equal shares of the slots."""
    B = len(order)
    capacity = [b - a for a, b in pairwise([B * j // threads for j in range(threads + 1)])]
    turn = [j for k in range(max(capacity, default=0)) for j in range(threads) if capacity[j] > k]
    who = np.array(turn, dtype=np.int64)
    return np.concatenate([order[who == j] for j in range(threads)]) if B else order


def fresh_starts(reset: NDArray[np.bool_], order: RowOrder, backwards: bool) -> Flags:
    """Where state is reset, by step and slot, with one more step without resets; `reset` `[T, B]` as a user gives it.

    Backwards, that is the last step before a reset. There are no resets after a row's end.
    """
    T, B = reset.shape
    found = np.zeros((T + 1, B), np.uint8)
    place = order.place.reshape(T, B)
    first = int(backwards)
    step = np.arange(first, T, dtype=np.int64)[:, None]
    flags = np.ascontiguousarray(reset).reshape(-1)[place[: T - first]]
    found[first:T] = flags & (step < order.lens)
    return found
