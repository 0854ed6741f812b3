"""Groups of weights with bound sizes: the shapes of influences, and the values that they are computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from tidegate.calculus import Dense
from tidegate.equations.values import Value
from tidegate.gradients.influence.parameter_groups import ParameterGroup, Structure
from tidegate.reference import bound

Columns = tuple[Value, int, int, tuple[int, ...] | None]


@dataclass(frozen=True, eq=False)
class ParameterLayout:
    """A structure with bound sizes; of the `weights` by name, fixed ones are inspected for zeros."""

    structure: Structure
    sizes: Mapping[str, int]
    weights: Mapping[str, Tensor]
    _shapes: dict[Value, tuple[int, ...]] = field(default_factory=dict, init=False)
    _columns: dict[ParameterGroup, list[Columns]] = field(default_factory=dict, init=False)

    def shape_of(self, value: Value) -> tuple[int, ...]:
        """A value's size in elements."""
        found = self._shapes.get(value)
        if found is None:
            found = self._shapes[value] = bound(value.size, self.sizes)
        return found

    @cached_property
    def width(self) -> dict[str, int]:
        """The units of each state."""
        return {s.name: bound(s.size, self.sizes)[0] for s in self.structure.graph.states}

    def rows(self, group: ParameterGroup) -> int:
        """The units of a group's result."""
        return self.shape_of(group.result)[0]

    def columns(self, group: ParameterGroup) -> int:
        """The weights of one row of a group."""
        if group.is_vector:
            return 1
        widths = (self.shape_of(m)[1] // m.attrs.get("blocks", 1) for m, _ in group.factors)
        return sum(widths) + (group.bias is not None)

    def columns_of(self, group: ParameterGroup) -> list[Columns]:
        """The columns of each matrix in a row of a group, and its shape if it has blocks."""
        found = self._columns.get(group)
        if found is None:
            found, begin = [], 0
            for matrix, _ in group.factors:
                (rows, width), blocks = self.shape_of(matrix), matrix.attrs.get("blocks", 1)
                end = begin + width // blocks
                found.append((matrix, begin, end, None if blocks == 1 else (blocks, rows // blocks, width // blocks)))
                begin = end
            self._columns[group] = found
        return found

    def shape(self, group: ParameterGroup) -> tuple[int, int]:
        """The weights of a group as rows and columns."""
        return self.rows(group), self.columns(group)

    def places(self, states: Sequence[str]) -> tuple[dict[str, slice], int]:
        """The range of each state among the units of all these states, and the number of units."""
        found, D = {}, 0
        for name in states:
            found[name] = slice(D, D + self.width[name])
            D += self.width[name]
        return found, D

    def read(self, groups: Sequence[ParameterGroup]) -> list[Value]:
        """The vectors that some groups' weights multiply, and the Jacobians of the states in the results."""
        vectors = [v for g in groups for _, v in g.factors]
        return [*vectors, *(j.value for g in groups for j in g.jacobians.values())]

    def between(self, states: Sequence[str]) -> list[Value]:
        """The Jacobians of some states in themselves."""
        pairs = self.structure.jacobians.states
        return [j.value for (new, old), j in pairs.items() if new in states and old in states]

    def on_diagonals(self, states: Sequence[str]) -> list[Value]:
        """The diagonals of these Jacobians, or the whole Jacobian if its diagonal cannot be computed alone."""
        known, pairs = self.structure.diagonals, self.structure.jacobians.states
        return [known.get(key, j.value) for key, j in pairs.items() if key[0] in states and key[1] in states]

    def directly(self, states: Sequence[str]) -> list[Value]:
        """The Jacobians of some states in themselves that go through no matrix."""
        return [j.value for (new, old), j in self.structure.direct.items() if new in states and old in states]

    def bundles(self, groups: Sequence[ParameterGroup]) -> "list[Bundle]":
        """Bundle groups that read the same vectors and act on their own units, such as the gates of a cell."""
        found: dict[object, list[ParameterGroup]] = {}
        for group in groups:
            alone = any(isinstance(j, Dense) for j in group.jacobians.values())
            read = tuple((v, m.attrs.get("blocks")) for m, v in group.factors), group.bias is not None
            found.setdefault(group if alone else (read, self.shape(group)), []).append(group)
        return [Bundle(tuple(some), *self.shape(some[0])) for some in found.values()]


@dataclass(frozen=True, eq=False)
class Bundle:
    """Groups of equal shape that read the same vectors."""

    groups: tuple[ParameterGroup, ...]
    rows: int
    columns: int

    @property
    def count(self) -> int:
        """The number of weights."""
        return len(self.groups) * self.rows * self.columns
