"""Rules for gradients through time, as plain values.

A rule cuts a sequence of T steps into segments. Each segment is one update: the net runs from `start`, where the state
is taken as a constant, to `stop`; the losses of the steps from `scored` on are counted, each step's exactly once.
"""

from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

from tidegate.equations.values import whole
from tidegate.errors import ArgumentError
from tidegate.gradients.checkpoint import read_checkpoint


@dataclass(frozen=True)
class Segment:
    """Steps `start` to `stop` are run, those from `scored` on are counted: start <= scored < stop."""

    start: int
    scored: int
    stop: int


class Rule(Protocol):
    """The interface of rules for training loops. `str(rule)` is the text that the option `gradient` takes."""

    def segments(self, length: int) -> tuple[Segment, ...]:
        """The segments of a sequence of `length` steps, in order."""


class ByName:
    """A rule with keyword-only options, since a bare number would mean something different for each rule."""

    def __new__(cls, *positional: object, **options: object) -> Self:
        """Raise ArgumentError for an option without its name."""
        if positional:
            names: list[str] = [f.name for f in fields(cls)]  # type: ignore[arg-type]
            given = ", ".join(map(repr, positional))
            raise ArgumentError(
                f"{cls.__name__} takes {' and '.join(f'{name}=' for name in names)} by name, as in "
                f"{cls.__name__}({names[-1]}={positional[0]!r}), got {cls.__name__}({given})"
            )
        return super().__new__(cls)


def check_whole(rule: object, name: str, least: int = 1, instead: str = "") -> None:
    """Raise ArgumentError unless an option is an integer, and convert numpy integers."""
    given: Any = getattr(rule, name)
    number = whole(given)
    if number is None or number < least:
        kind = type(rule).__name__
        raise ArgumentError(f"{name} of {kind} must be a whole number of {least} or more{instead}, got {given!r}")
    object.__setattr__(rule, name, number)


@dataclass(frozen=True, kw_only=True)
class BPTT(ByName):
    """Back-propagation through the whole sequence: one segment, one update, the exact gradient.

    With `checkpoint`, only some states are stored and the steps between them are run again (Gruslys et al. 2016,
    arXiv:1606.03401): the number of states to store, or text such as "64MiB", the memory for states and
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

    The state is carried across segments and detached there. Every step's loss is counted once, in the update that
    follows it. This is BPTT(h; h') of Williams & Peng 1990, doi:10.1162/neco.1990.2.4.490, with h = k2 and h' = k1.
    If the length is not a multiple of k1, the last segment is shorter.
    """

    k1: int
    k2: int

    def __post_init__(self) -> None:
        check_whole(self, "k1")
        check_whole(self, "k2")
        if self.k1 > self.k2:
            raise ArgumentError(
                f"TruncatedBPTT needs 1 <= k1 <= k2, got k1={self.k1} and k2={self.k2}: "
                "gradients must reach back at least to the last update. Use for example k1=16, k2=32."
            )

    def segments(self, length: int) -> tuple[Segment, ...]:
        """One segment for every k1 steps, each reaching back k2 steps from its end."""
        borders = [(scored, min(scored + self.k1, length)) for scored in range(0, length, self.k1)]
        return tuple(Segment(min(scored, max(0, stop - self.k2)), scored, stop) for scored, stop in borders)

    def __str__(self) -> str:
        return f"truncated:{self.k1},{self.k2}"
