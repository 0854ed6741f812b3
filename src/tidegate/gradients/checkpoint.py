"""The schedule of checkpointing: which states to store and which steps to run again within a memory budget.

A sequence is cut into blocks of steps. Only states at the beginnings of blocks are stored; the activations of one block
at a time are held, while it is differentiated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

from tidegate.equations.values import whole
from tidegate.errors import ArgumentError

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class Move:
    """From the stored state at block `begin`, run the blocks before `end`; then differentiate block `end` (`turn`), or
    store the state there."""

    begin: int
    end: int
    turn: bool


def read_checkpoint(given: object) -> int | str:
    """Normalise the argument of `BPTT(checkpoint=...)`. Raises ArgumentError for invalid values."""
    if (number := whole(given)) is not None and number > 0:
        return number
    if isinstance(given, str):
        size, unit = given[:-3].strip(), given[-3:].lower()
        for name in UNITS:
            if unit == name.lower() and size.isdecimal() and int(size) > 0:
                return f"{int(size)}{name}"
    raise ArgumentError(
        f"checkpoint must be a number of states to store or a memory budget, got {given!r}: pass a positive integer "
        f"such as 50, or text with one of the units {', '.join(UNITS)}, such as '64MiB'."
    )


def bytes_of(budget: str) -> int:
    """The bytes of a budget as `read_checkpoint` writes it."""
    return int(budget[:-3]) * UNITS[budget[-3:]]


@dataclass(frozen=True)
class CheckpointLayout:
    """How memory is used: `blocks` are differentiated one by one, where the last one consists of `last` blocks of the
    usual length, and up to `states` states are stored."""

    blocks: int
    last: int
    states: int


def laid_out(checkpoint: int | str, blocks: int, state_bytes: int, block_bytes: int) -> CheckpointLayout:
    """The layout for a sequence of so many blocks, one of whose states and whose activations take so many bytes.

    A budget is spent on states first, as each saves the most for its size; the rest holds activations
    of the first run, so that the last blocks need not be run again. Raises ArgumentError if it is not enough for one
    state and the activations of one block.
    """
    if isinstance(checkpoint, int):
        return CheckpointLayout(blocks, 1, checkpoint)
    budget = bytes_of(checkpoint)
    least = block_bytes + (state_bytes if blocks > 1 else 0)
    if budget < least:
        raise ArgumentError(
            f"checkpoint={checkpoint!r} is {budget} bytes, but this net needs at least {least}: the activations of a "
            f"block of steps take {block_bytes} and a state {state_bytes}. Give that much, or use a smaller batch."
        )
    spare = budget - (blocks - 1) * state_bytes - block_bytes
    if spare < 0:
        return CheckpointLayout(blocks, 1, (budget - block_bytes) // state_bytes)
    more = blocks - 1 if block_bytes <= state_bytes else min(blocks - 1, spare // (block_bytes - state_bytes))
    return CheckpointLayout(blocks - more, 1 + more, blocks - 1 - more)


def schedule(blocks: int, states: int) -> Iterator[Move]:
    """The moves that differentiate all blocks, from the last to the first, with the fewest runs of a block.

    The state at block 0 is given; at most `states` others are stored at a time, and a stored state is dropped once its
    own block has been differentiated. This is Revolve (Griewank & Walther 2000,
    doi:10.1145/347837.347846), with blocks as its steps.
    """
    stored, end = [0], blocks
    while end:
        begin, free = stored[-1], states + 1 - len(stored)
        if not free or end - begin == 1:
            end -= 1
            yield Move(begin, end, turn=True)
            if end == begin:
                stored.pop()
        else:
            stored.append(begin + _first_part(end - begin, free + 1))
            yield Move(begin, stored[-1], turn=False)


def _repeats(blocks: int, stored: int) -> int:
    """The most runs of a block, besides the one in which it is differentiated."""
    repeats = 0
    while comb(stored + repeats, stored) < blocks:
        repeats += 1
    return repeats


def _first_part(blocks: int, stored: int) -> int:
    """The number of blocks to run before the next state is stored; `stored` counts it and the one at the beginning.

    Any number is optimal if neither part, with the states left to it, needs more repeats than the whole
    (Griewank & Walther, proposition 1).
    """
    repeats = _repeats(blocks, stored)
    return max(comb(stored + repeats - 2, stored), blocks - comb(stored - 1 + repeats, stored - 1), 1)
