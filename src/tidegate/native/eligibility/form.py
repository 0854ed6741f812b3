"""Eligibility traces of one linear: which states hold them, and which coefficients there are."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.errors import ArgumentError

GRADIENT = -1  # the output of a block that is no trace
SHARE = 32  # units times vectors that share a recursion over the steps of a block, where it is asked whether it pays


@dataclass(frozen=True)
class TraceForm:
    """What is known of traces when code is made; all sizes come later.

    For each of K units and V columns of a linear, `states` numbers are carried from step to step, of state s

        e[s] <- sum over (s, s') in pairs of d[s, s'] * e[s'] + (u[s] * v if s is driven)

    with all e on the right from before the step, and after each step g += sum over the scored s of delta[s] * e[s].
    Raises ArgumentError where a state is named that is not there, or one twice in its place.
    """

    states: int
    pairs: tuple[tuple[int, int], ...]
    driven: tuple[int, ...]
    scored: tuple[int, ...]

    def __post_init__(self) -> None:
        named = {*(s for pair in self.pairs for s in pair), *self.driven, *self.scored}
        twice = any(len(set(part)) < len(part) for part in (self.pairs, self.driven, self.scored))
        if twice or not named or not named <= set(range(self.states)):
            raise ArgumentError(
                f"Traces of {self.states} states name each of them by a number below {self.states}, and once in its "
                f"place; pairs={self.pairs}, driven={self.driven} and scored={self.scored} came."
            )

    @property
    def coefficients(self) -> tuple[str, ...]:
        """The names of the arrays [T, B, K], in the order of pairs, driven, scored."""
        d = [f"d.{s}.{of}" for s, of in self.pairs]
        return (*d, *(f"u.{s}" for s in self.driven), *(f"delta.{s}" for s in self.scored))

    @property
    def taken(self) -> tuple[int, ...]:
        """The states that one takes from: the traces of others are forgotten with the next step."""
        return tuple(sorted({of for _, of in self.pairs}))

    def sources(self, state: int) -> list[int]:
        """From which states one takes; itself last, for that is the chain which the next step waits for."""
        return sorted((of for s, of in self.pairs if s == state), key=lambda of: (of == state, of))

    def outputs(self, ends: Sequence[int]) -> tuple[int, ...]:
        """What a block computes: the gradient, where a state is scored, and the traces that are wanted after it; last
        those from which one takes, for they are read until then."""
        last = sorted(ends, key=lambda s: (s in self.taken, s))
        return (GRADIENT, *last) if self.scored else tuple(last)

    def chain(self, output: int) -> list[int]:
        """The states that reach an output."""
        found = set(self.scored) if output == GRADIENT else {output}
        while more := {of for s, of in self.pairs if s in found} - found:
            found |= more
        return sorted(found)

    def before(self, output: int) -> list[int]:
        """The states whose traces from before a block reach an output."""
        inside = self.chain(output)
        return sorted({of for s, of in self.pairs if s in inside})

    @property
    def pays_in_blocks(self) -> bool:
        """Whether products of a block and the recursion before them are less than steps one by one."""
        outputs = self.outputs(self.taken)
        chains = [self.chain(o) for o in outputs]
        recursion = sum(1 + sum(s in chain for s, _ in self.pairs) + len(chain) for chain in chains)
        return len(outputs) + recursion / SHARE < len(self.coefficients)
