"""Forward mode, graph to graph: how a step's new states change with its old states.

Baydin et al. 2018, arXiv:1502.05767, section 3.1: the Jacobian of a step times a vector, at the cost of a step and
without the Jacobian. Inputs and weights are constant. Element-wise factors of the vector are merged as far as
possible, since they can be computed for all steps at once if the states are known.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

from tidegate.calculus.simplify import simplify
from tidegate.equations.graph import Graph
from tidegate.equations.ops import OPS, spread, total
from tidegate.equations.values import SCALAR, Rate, Size, Value, constant, pointwise, products, walk
from tidegate.errors import EquationError

Sum = dict[Value, Value]  # tangents with their factors


@dataclass(frozen=True, eq=False)
class Tangent:
    """The effect of one step on small changes. `seeds` are leaves for the changes of old states, by state. `states` are
    the resulting changes of new states, without those that do not change."""

    seeds: Mapping[str, Value]
    states: Mapping[str, Value]


def independent(roots: Iterable[Value], seeds: Iterable[Value]) -> list[Value]:
    """The values that the roots read and that do not depend on the seeds, without constants."""
    moving, found = set(seeds), dict[Value, None]()
    for value in walk(roots):
        if not moving.isdisjoint(value.args):
            moving.add(value)
            found |= dict.fromkeys(a for a in value.args if a not in moving and a.op != "constant")
    return list(found)


def jvp(graph: Graph, states: Collection[str] | None = None) -> Tangent:
    """The jvp of a cell's step with respect to its states, or some of them; `clip_gradient` is the identity."""
    sizes = {s.name: s.size for s in graph.states}
    seeds = {
        name: Value("seed", (), sizes[name], Rate.STATE, name=f"tangent.{name}")
        for name in graph.old
        if states is None or name in states
    }
    step = _Step({graph.old[name]: seed for name, seed in seeds.items()})
    for value in graph.values:
        step.see(value)
    new = {name: _broadcast(step.whole(v), sizes[name]) for name, v in graph.new.items() if v in step.sums}
    small = simplify(new.values(), fixed=graph.values)
    return Tangent(seeds, {name: small[v] for name, v in new.items()})


class _Step:
    """The values of a step that change, each as a sum."""

    def __init__(self, seeds: Mapping[Value, Value]) -> None:
        self.sums: dict[Value, Sum] = {v: {seed: constant(1.0)} for v, seed in seeds.items()}
        self._wholes: dict[Value, Value] = dict(seeds)

    def see(self, value: Value) -> None:
        """Process a value whose operands have been processed."""
        if value not in self.sums and any(a in self.sums for a in value.args):
            found = self._through(value)
            if found:
                self.sums[value] = found

    def whole(self, value: Value) -> Value:
        """The change of a value, as one value of its size, or of one unit where all units change alike."""
        if value not in self._wholes:
            self._wholes[value] = reduce(add, (by * moving for moving, by in self.sums[value].items()))
        return self._wholes[value]

    def _through(self, value: Value) -> Sum:
        kind = OPS[value.op].kind
        if kind == "pointwise":
            return self._pointwise(value)
        if kind == "product":
            return self._product(value)
        if kind == "units":
            return {self._across(value): constant(1.0)}
        raise EquationError(f"{value.op!r} has no jvp within a step")

    def _pointwise(self, value: Value) -> Sum:
        if value.op == "clip_gradient":
            return self.sums.get(value.args[0], {})
        if value.op == "where":
            return self._chosen(value)
        derivative = OPS[value.op].derivative
        assert derivative is not None
        partials = derivative(constant(1.0), value, *value.args)
        found: Sum = {}
        for a, partial in zip(value.args, partials, strict=True):
            if a in self.sums and partial is not None:
                for moving, by in self._scaled(a, partial).items():
                    found[moving] = found[moving] + by if moving in found else by
        return found

    def _scaled(self, value: Value, by: Value) -> Sum:
        """Multiply out a sum of several terms by numbers only, since each product would cost an operation."""
        known = self.sums[value]
        if len(known) > 1 and by.op != "constant":
            known = {self.whole(value): constant(1.0)}
        return {moving: by * first for moving, first in known.items()}

    def _chosen(self, value: Value) -> Sum:
        condition, *branches = value.args
        if not any(b in self.sums for b in branches):
            return {}
        moved = (self.whole(b) if b in self.sums else 0.0 for b in branches)
        return {pointwise("where", condition, *moved): constant(1.0)}

    def _product(self, value: Value) -> Sum:
        found: Sum = {}
        for matrix, v in products(value):
            if v in self.sums:
                moved = _broadcast(self.whole(v), v.size)
                found[Value("product", (matrix, moved), value.size)] = constant(1.0)
        if value.attrs.get("bias") and value.args[-1] in self.sums:
            found[_broadcast(self.whole(value.args[-1]), value.size)] = constant(1.0)
        return found

    def _across(self, value: Value) -> Value:
        parts = [_broadcast(self.whole(a), a.size) if a in self.sums else a < a for a in value.args]
        if value.op == "total":
            return total(parts[0], value.size)
        if value.op == "spread":
            return spread(parts[0], value.size)
        return Value(value.op, tuple(parts), value.size)


def _broadcast(moved: Value, size: Size) -> Value:
    return spread(moved, size) if moved.size == SCALAR else moved
