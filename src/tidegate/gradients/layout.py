"""Groups of weights with bound sizes: how many numbers an influence has, and what of a step it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from tidegate.calculus import Diagonal
from tidegate.equations.values import Value
from tidegate.gradients.groups import Group, Structure
from tidegate.reference import bound


@dataclass(frozen=True, eq=False)
class Layout:
    """A structure whose sizes are bound; `weights` by name, of which those that are never learned are looked at."""

    structure: Structure
    sizes: Mapping[str, int]
    weights: Mapping[str, Tensor]

    @cached_property
    def width(self) -> dict[str, int]:
        """The units of each state."""
        return {s.name: bound(s.size, self.sizes)[0] for s in self.structure.graph.states}

    def rows(self, group: Group) -> int:
        """The units of a group's result."""
        return bound(group.result.size, self.sizes)[0]

    def columns(self, group: Group) -> int:
        """The weights of one row of a group."""
        if group.is_vector:
            return 1
        widths = (bound(m.size, self.sizes)[1] // m.attrs.get("blocks", 1) for m, _ in group.factors)
        return sum(widths) + (group.bias is not None)

    def shape(self, group: Group) -> tuple[int, int]:
        """The weights of a group as rows and columns."""
        return self.rows(group), self.columns(group)

    def places(self, states: Sequence[str]) -> tuple[dict[str, slice], int]:
        """Where each of some states stands among their units, and how many units there are."""
        found, D = {}, 0
        for name in states:
            found[name] = slice(D, D + self.width[name])
            D += self.width[name]
        return found, D

    def read(self, groups: Sequence[Group]) -> list[Value]:
        """What the weights of some groups are multiplied by, and the Jacobians of the states in the results."""
        vectors = [v for g in groups for _, v in g.factors]
        return [*vectors, *(j.value for g in groups for j in g.jacobians.values())]

    def between(self, states: Sequence[str]) -> list[Value]:
        """The Jacobians of some states in themselves."""
        pairs = self.structure.jacobians.states
        return [j.value for (new, old), j in pairs.items() if new in states and old in states]

    def on_diagonals(self, states: Sequence[str]) -> list[Value]:
        """What the diagonals of these Jacobians are made of."""
        pairs = self.structure.jacobians.states
        found: list[Value] = []
        for (new, old), j in pairs.items():
            if new in states and old in states:
                if isinstance(j, Diagonal):
                    found.append(j.value)
                elif self.width[new] == self.width[old]:
                    found += _parts(j.value)
        return found

    def directly(self, states: Sequence[str]) -> list[Value]:
        """The Jacobians of some states in themselves that go through no matrix."""
        return [j.value for (new, old), j in self.structure.direct.items() if new in states and old in states]


def _parts(matrix: Value) -> Iterator[Value]:
    """What the diagonal of a Jacobian is made of, without the rest of it where that can be."""
    if matrix.op in ("scale_rows", "scale_columns", "add"):
        for a in matrix.args:
            yield from _parts(a) if len(a.size) == 2 else iter((a,))
    elif matrix.op == "diagonal":
        yield matrix.args[0]
    else:
        yield matrix
