"""The Jacobians of one step: new states with respect to old states, pre-activations and weights.

They are graphs whose structure is derived from the equations: `Diagonal` if units do not mix (an element-wise
recurrence), else `Dense`; zero Jacobians are omitted. The Jacobian in a linear's matrix W is that in its
result, `z = W v`, times v: d s_k / d W_ij = (d s_k / d z_i) v_j, so that only the first factor is computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from tidegate.calculus.simplify import simplify
from tidegate.equations.graph import Graph
from tidegate.equations.ops import OPS, count
from tidegate.equations.values import Rate, Size, Value, constant, walk
from tidegate.errors import EquationError


@dataclass(frozen=True, eq=False)
class Diagonal:
    """A diagonal Jacobian d result_k / d of_k, as a vector."""

    value: Value


@dataclass(frozen=True, eq=False)
class Dense:
    """A full Jacobian d result_k / d of_j, as a matrix `[result, of]`."""

    value: Value


Jacobian = Diagonal | Dense


@dataclass(frozen=True, eq=False)
class StepJacobians:
    """`states[new, old]`, `linears[new, z]` in the results z of linears and products, `vectors[new, w]` in the vectors
    of weights that the step reads unit by unit; where one is made of another, as 1 - f of f, each holds the other
    fixed. Pairs that do not depend on each other are absent."""

    states: Mapping[tuple[str, str], Jacobian]
    linears: Mapping[tuple[str, Value], Jacobian]
    vectors: Mapping[tuple[str, Value], Jacobian]


def jacobians(graph: Graph) -> StepJacobians:
    """The Jacobians of a cell's step. `clip_gradient` counts as the identity: it acts on gradients, not on values."""
    old = {v: name for name, v in graph.old.items()}
    products = [v for v in graph.values if v.op in ("linear", "product") and v.rate > Rate.WEIGHTS]
    vectors = _vectors(graph)
    states = {key: j for leaf, name in old.items() for key, j in _columns(graph, leaf, name).items()}
    linears = {(n, z): j for z in products for (n, _), j in _columns(graph, z, "").items()}
    weights = {(n, w): j for w in vectors for (n, _), j in _columns(graph, w, "").items()}
    groups: tuple[dict[Any, Jacobian], ...] = (states, linears, weights)
    small = simplify([j.value for group in groups for j in group.values()])
    states, linears, weights = ({key: type(j)(small[j.value]) for key, j in group.items()} for group in groups)
    return StepJacobians(states, linears, weights)


def direct_jacobians(graph: Graph) -> dict[tuple[str, str], Jacobian]:
    """The Jacobians of new with respect to old states with linears and products held fixed: what a state does without
    any matrix, such as a leak or a forget gate's factor."""
    found = {
        key: j for name, leaf in graph.old.items() for key, j in _columns(graph, leaf, name, through=False).items()
    }
    small = simplify([j.value for j in found.values()])
    return {key: type(j)(small[j.value]) for key, j in found.items()}


def on_diagonal(jacobian: Jacobian) -> Value | None:
    """The diagonal of a square Jacobian as a vector, computed without the rest; None where that is not possible."""
    return jacobian.value if isinstance(jacobian, Diagonal) else _diagonal_of(jacobian.value)


def _diagonal_of(matrix: Value) -> Value | None:
    if matrix.op == "diagonal":
        return matrix.args[0]
    if matrix.rate == Rate.WEIGHTS:
        return Value("diagonal_part", (matrix,), matrix.size[:1])
    if matrix.op not in ("scale_rows", "scale_columns", "add"):
        return None
    parts = [a if len(a.size) == 1 else _diagonal_of(a) for a in matrix.args]
    if any(p is None for p in parts):
        return None
    left, right = parts
    return left + right if matrix.op == "add" else left * right  # type: ignore[operator, arg-type]


def _vectors(graph: Graph) -> list[Value]:
    """The values that depend on weights only and that a step reads unit by unit: peepholes, leaks, biases outside
    linears."""
    found: dict[Value, None] = {}
    for value in graph.values:
        if value.rate == Rate.WEIGHTS or value.op in ("linear", "product"):
            continue
        for a in value.args:
            if a.rate == Rate.WEIGHTS and any(v.op == "weight" for v in walk([a])):
                found[a] = None
    return list(found)


def _columns(graph: Graph, variable: Value, name: str, *, through: bool = True) -> dict[tuple[str, str], Jacobian]:
    """The Jacobians of all new states with respect to one value, by forward mode, `through` linears and products or
    around them."""
    known: dict[Value, Jacobian] = {variable: Diagonal(constant(1.0))}
    for value in graph.values:
        if not through and value.op in ("linear", "product"):
            continue
        if value.rate > Rate.WEIGHTS and value is not variable and any(a in known for a in value.args):
            found = _through(value, known)
            if found is not None:
                known[value] = found
    sizes = {s.name: s.size for s in graph.states}
    result = {}
    for state, value in graph.new.items():
        if value in known:
            result[state, name] = _fit(known[value], value.size, sizes[state])
    return {key: _materialised(j, variable.size) for key, j in result.items()}


def _through(value: Value, known: dict[Value, Jacobian]) -> Jacobian | None:
    kind = OPS[value.op].kind
    if kind == "pointwise":
        return _pointwise(value, known)
    if kind == "product":
        return _product(value, known)
    if kind == "units":
        return _across(value, known)
    raise EquationError(f"{value.op!r} has no Jacobian within a step")


def _pointwise(value: Value, known: dict[Value, Jacobian]) -> Jacobian | None:
    if value.op == "clip_gradient":
        return known.get(value.args[0])
    derivative = OPS[value.op].derivative
    assert derivative is not None
    partials = derivative(constant(1.0), value, *value.args)
    terms = [
        _scaled(partial, _fit(known[a], a.size, value.size))
        for a, partial in zip(value.args, partials, strict=True)
        if a in known and partial is not None
    ]
    return _added(terms)


def _product(value: Value, known: dict[Value, Jacobian]) -> Jacobian | None:
    pairs = list(zip(value.args[::2], value.args[1::2], strict=False))
    terms: list[Jacobian] = [_composed(matrix, known[v]) for matrix, v in pairs if v in known]
    if value.attrs.get("bias") and value.args[-1] in known:
        terms.append(known[value.args[-1]])
    return _added(terms)


def _across(value: Value, known: dict[Value, Jacobian]) -> Jacobian:
    if value.op == "concat":
        return _side_by_side(value, known)
    (operand,) = value.args
    dense = _dense(known[operand], operand.size)
    columns = dense.value.size[1]
    if value.op == "spread":
        return Dense(Value("spread_rows", (dense.value,), (value.size[0], columns)))
    summed = Value("total_rows", (dense.value,), (value.size[0], columns))
    return Dense(summed / count(operand.size) if value.op == "mean" else summed)


def _side_by_side(value: Value, known: dict[Value, Jacobian]) -> Jacobian:
    """The Jacobian of a concatenation: those of its parts stacked, with zeros for parts that do not depend."""
    parts = {k: _dense(known[a], a.size).value for k, a in enumerate(value.args) if a in known}
    columns = next(iter(parts.values())).size[1]
    rows = [a.size[0] for a in value.args]
    return Dense(Value("stack_known", tuple(parts.values()), (value.size[0], columns), rows=rows, known=list(parts)))


def _scaled(by: Value, jacobian: Jacobian) -> Jacobian:
    if isinstance(jacobian, Diagonal):
        return Diagonal(by * jacobian.value)
    return Dense(Value("scale_rows", (by, jacobian.value), jacobian.value.size))


def _composed(matrix: Value, jacobian: Jacobian) -> Jacobian:
    full = Value("dense", (matrix,), matrix.size) if "blocks" in matrix.attrs else matrix
    if isinstance(jacobian, Diagonal):
        return Dense(Value("scale_columns", (full, jacobian.value), full.size))
    return Dense(Value("compose", (full, jacobian.value), (full.size[0], jacobian.value.size[1])))


def _added(terms: list[Jacobian]) -> Jacobian | None:
    return reduce(_sum, terms) if terms else None


def _sum(a: Jacobian, b: Jacobian) -> Jacobian:
    if isinstance(a, Diagonal) and isinstance(b, Diagonal):
        return Diagonal(a.value + b.value)
    size = a.value.size if isinstance(a, Dense) else b.value.size
    left, right = (j.value if isinstance(j, Dense) else _on_diagonal(j, size) for j in (a, b))
    return Dense(Value("add", (left, right), size))


def _on_diagonal(jacobian: Diagonal, size: Size) -> Value:
    vector = jacobian.value if jacobian.value.size == size[:1] else Value("spread", (jacobian.value,), size[:1])
    return Value("diagonal", (vector,), size)


def _dense(jacobian: Jacobian, size: Size) -> Dense:
    if isinstance(jacobian, Dense):
        return jacobian
    return Dense(_on_diagonal(jacobian, (size[0], size[0])))


def _fit(jacobian: Jacobian, have: Size, want: Size) -> Jacobian:
    """The Jacobian of a value broadcast from `have` to `want`."""
    if have == want:
        return jacobian
    dense = _dense(jacobian, have)
    return Dense(Value("spread_rows", (dense.value,), (want[0], dense.value.size[1])))


def _materialised(jacobian: Jacobian, size: Size) -> Jacobian:
    if isinstance(jacobian, Dense) or jacobian.value.size == size:
        return jacobian
    return Diagonal(Value("spread", (jacobian.value,), size))
