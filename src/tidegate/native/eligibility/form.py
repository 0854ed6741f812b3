"""The form of a linear's eligibility traces: which states carry them, and their coefficients."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.errors import ArgumentError

GRADIENT = -1  # the output of a block that is the gradient, not a trace
RECURSION_SHARE = 32  # units times vectors assumed to share one recursion, in `pays_in_blocks`


@dataclass(frozen=True)
class TraceForm:
    """What the code of traces depends on; sizes are arguments of the kernel.

    For each of K units and V columns of a linear, `states` numbers are carried from step to step, of state s

        e[s] <- sum over (s, s') in pairs of d[s, s'] * e[s'] + (u[s] * v if s is driven)

    with all e on the right from before the step, and after each step g += sum over the scored s of delta[s] * e[s].
    Raises ArgumentError for an unknown state, and for duplicates within pairs, driven or scored.
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
                f"pairs, driven and scored must number states from 0 to {self.states - 1} without duplicates, got "
                f"pairs={self.pairs}, driven={self.driven} and scored={self.scored}."
            )

    @property
    def coefficients(self) -> tuple[str, ...]:
        """The names of the arrays [T, B, K], in the order of pairs, driven, scored."""
        d = [f"d.{s}.{of}" for s, of in self.pairs]
        return (*d, *(f"u.{s}" for s in self.driven), *(f"delta.{s}" for s in self.scored))

    @property
    def taken(self) -> tuple[int, ...]:
        """The states whose traces the next step reads."""
        return tuple(sorted({of for _, of in self.pairs}))

    def sources(self, state: int) -> list[int]:
        """The states that a state reads; itself last, since the next step waits for that chain."""
        return sorted((of for s, of in self.pairs if s == state), key=lambda of: (of == state, of))

    def outputs(self, ends: Sequence[int]) -> tuple[int, ...]:
        """What a block computes: the gradient, if a state is scored, and the traces wanted after it; those that others
        read come last."""
        last = sorted(ends, key=lambda s: (s in self.taken, s))
        return (GRADIENT, *last) if self.scored else tuple(last)

    def chain(self, output: int) -> list[int]:
        """The states that an output depends on."""
        found = set(self.scored) if output == GRADIENT else {output}
        while more := {of for s, of in self.pairs if s in found} - found:
            found |= more
        return sorted(found)

    @property
    def pays_in_blocks(self) -> bool:
        """Whether a block with its recursion and products costs less than single steps."""
        outputs = self.outputs(self.taken)
        chains = [self.chain(o) for o in outputs]
        recursion = sum(1 + sum(s in chain for s, _ in self.pairs) + len(chain) for chain in chains)
        return len(outputs) + recursion / RECURSION_SHARE < len(self.coefficients)
