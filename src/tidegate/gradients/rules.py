"""Rules for gradients through time, as plain values.

A rule cuts a sequence of T steps into segments. Each segment is one update: the net runs from `start`, where the state
is taken as a constant, to `stop`; the losses of the steps from `scored` on are counted, each step's exactly once.
"""

from dataclasses import dataclass
from typing import Protocol

from tidegate.errors import ArgumentError
from tidegate.gradients.checkpoint import read_checkpoint


@dataclass(frozen=True)
class Segment:
    """Steps `start` to `stop` are run, those from `scored` on are counted: start <= scored < stop."""

    start: int
    scored: int
    stop: int


class Rule(Protocol):
    """What a training loop asks of a rule. `str(rule)` is the text that the option `gradient` takes."""

    def segments(self, length: int) -> tuple[Segment, ...]:
        """The segments of a sequence of `length` steps, in order."""


@dataclass(frozen=True)
class BPTT:
    """Back-propagation through the whole sequence: one segment, one update, the exact gradient.

    With `checkpoint` few states are stored and the steps between them run again (Gruslys et al. 2016,
    arXiv:1606.03401): a whole number, of states to store, or text such as "64MiB", the memory for states and
    activations.
    """

    checkpoint: int | str | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is not None:
            object.__setattr__(self, "checkpoint", read_checkpoint(self.checkpoint))

    def segments(self, length: int) -> tuple[Segment, ...]:
        """The sequence as one segment."""
        return (Segment(0, 0, length),) if length else ()

    def __str__(self) -> str:
        return "bptt" if self.checkpoint is None else f"bptt:{self.checkpoint}"


@dataclass(frozen=True)
class TruncatedBPTT:
    """An update every `k1` steps, with gradients through the last `k2` steps (k2 >= k1).

    The state is carried over the borders and detached there. Every step's loss is counted once, in the update that
    follows it. This is BPTT(h; h') of Williams & Peng 1990, doi:10.1162/neco.1990.2.4.490, with h = k2 and h' = k1.
    A sequence whose length is no multiple of k1 ends with a shorter segment.
    """

    k1: int
    k2: int

    def __post_init__(self) -> None:
        if not 1 <= self.k1 <= self.k2:
            raise ArgumentError(
                f"TruncatedBPTT was given k1={self.k1} and k2={self.k2}, but must have 1 <= k1 <= k2: "
                "a gradient reaches back at least as far as the last update. Give for example k1=16, k2=32."
            )

    def segments(self, length: int) -> tuple[Segment, ...]:
        """One segment for every k1 steps, each reaching back k2 steps from its end."""
        borders = [(scored, min(scored + self.k1, length)) for scored in range(0, length, self.k1)]
        return tuple(Segment(min(scored, max(0, stop - self.k2)), scored, stop) for scored, stop in borders)

    def __str__(self) -> str:
        return f"truncated:{self.k1},{self.k2}"
