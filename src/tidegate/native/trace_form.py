"""Eligibility traces of one linear: which states hold them, and which coefficients there are."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.errors import ArgumentError


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

    def sources(self, state: int) -> list[int]:
        """From which states one takes; itself last, for that is the chain which the next step waits for."""
        return sorted((of for s, of in self.pairs if s == state), key=lambda of: (of == state, of))
