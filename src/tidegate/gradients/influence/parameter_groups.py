"""Groups of weights by where a step reads them, and the states that they influence: the structure of the influence."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from torch import Tensor

from tidegate.calculus import Diagonal, StepJacobians, direct_jacobians, jacobians, on_diagonal
from tidegate.calculus.jacobian import Jacobian
from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, Value, products, walk


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Weights that a step reads at one place: those of a linear, or a vector that is read unit by unit.

    `result` is the linear's result, or the vector. `factors` are the learned matrices with what they multiply, `bias`
    a learned vector that is added; both empty for a vector. `jacobians` are those of the new states in `result`.
    """

    result: Value
    factors: tuple[tuple[Value, Value], ...]
    bias: Value | None
    jacobians: Mapping[str, Jacobian]
    reach: tuple[str, ...]

    @property
    def is_vector(self) -> bool:
        """Whether the weights are read unit by unit."""
        return not self.factors and self.bias is None

    @property
    def parameters(self) -> tuple[Value, ...]:
        """The values that the group has gradients of: matrices, then bias; or the vector."""
        if self.is_vector:
            return (self.result,)
        return (*(m for m, _ in self.factors), *(() if self.bias is None else (self.bias,)))

    @property
    def name(self) -> str:
        """Its name in the equations, such as l0.i for the linear of gate i; if it has none, the names of its
        weights."""
        if self.result.label:
            return self.result.label.removesuffix(".net")
        return " + ".join(v.attrs["name"] for v in walk(self.parameters) if v.op == "weight")

    def stays_in_its_unit(self, states: Mapping[tuple[str, str], Jacobian]) -> bool:
        """Whether a unit's weights only ever influence that unit of each state: an element-wise recurrence."""
        between = [j for (new, old), j in states.items() if new in self.reach and old in self.reach]
        return all(isinstance(j, Diagonal) for j in (*self.jacobians.values(), *between))


@dataclass(frozen=True, eq=False)
class Structure:
    """A graph's groups, and the Jacobians of its step."""

    graph: Graph
    groups: tuple[ParameterGroup, ...]
    jacobians: StepJacobians

    @cached_property
    def direct(self) -> Mapping[tuple[str, str], Jacobian]:
        """The Jacobians of new states in old ones that go through no matrix."""
        return direct_jacobians(self.graph)

    @cached_property
    def diagonals(self) -> Mapping[tuple[str, str], Value]:
        """The diagonals of the Jacobians between states, where they can be computed alone."""
        sizes = {s.name: s.size for s in self.graph.states}
        square = {(n, o): j for (n, o), j in self.jacobians.states.items() if sizes[n] == sizes[o]}
        found = {key: on_diagonal(j) for key, j in square.items()}
        return {key: v for key, v in found.items() if v is not None}

    @property
    def parameters(self) -> tuple[Value, ...]:
        """The values of weights that influence a state, without duplicates."""
        return tuple(dict.fromkeys(p for g in self.groups for p in g.parameters))

    @property
    def states(self) -> tuple[str, ...]:
        """The states that learned weights influence, in the graph's order."""
        reached = {name for g in self.groups for name in g.reach}
        return tuple(s.name for s in self.graph.states if s.name in reached)


@lru_cache(maxsize=256)
def structure(graph: Graph) -> Structure:
    """The groups of a graph."""
    found = jacobians(graph)
    linears = [v for v in graph.values if v.op in ("linear", "product") and v.rate > Rate.WEIGHTS]
    vectors = list(dict.fromkeys(w for _, w in found.vectors))
    groups = [_of_linear(found, z) for z in linears] + [_of_vector(found, w) for w in vectors]
    return Structure(graph, tuple(g for g in groups if g is not None), found)


def _of_linear(found: StepJacobians, z: Value) -> ParameterGroup | None:
    factors = tuple((m, v) for m, v in products(z) if _learned(m))
    bias = z.args[-1] if z.op == "linear" and z.attrs["bias"] and _learned(z.args[-1]) else None
    into = {new: j for (new, of), j in found.linears.items() if of is z}
    if not into or not (factors or bias is not None):
        return None
    return ParameterGroup(z, factors, bias, into, _reach(found, into))


def _of_vector(found: StepJacobians, w: Value) -> ParameterGroup | None:
    into = {new: j for (new, of), j in found.vectors.items() if of is w}
    return ParameterGroup(w, (), None, into, _reach(found, into)) if into and _learned(w) else None


def _learned(value: Value) -> bool:
    return any(v.op == "weight" and v.attrs["learn"] for v in walk([value]))


def _reach(found: StepJacobians, into: Mapping[str, Jacobian]) -> tuple[str, ...]:
    """The states that become influenced if those in `into` are."""
    reached = dict.fromkeys(into)
    while True:
        more = [new for new, old in found.states if old in reached and new not in reached]
        if not more:
            return tuple(reached)
        reached |= dict.fromkeys(more)


def add(into: dict[Value, Tensor], more: Mapping[Value, Tensor]) -> None:
    """Add gradients by value to others."""
    for value, gradient in more.items():
        into[value] = into[value] + gradient if value in into else gradient
