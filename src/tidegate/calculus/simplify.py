"""Simplifies a graph without changing any value by a bit, NaN and infinity included.

Equal computations are merged, constants folded, and products with 1, sums with 0 and double negations removed.
A product with 0 stays: it is NaN where the other factor is not finite. Two weights never merge, however equal.
"""

from collections.abc import Hashable, Iterable
from dataclasses import replace
from math import isfinite

from tidegate.equations.graph import Graph
from tidegate.equations.ops import OPS
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import Value, walk

Key = tuple[Hashable, ...]
FOLDED = frozenset({"add", "sub", "mul", "div", "neg"})


def simplify(roots: Iterable[Value], fixed: Iterable[Value] = ()) -> dict[Value, Value]:
    """The replacement of each value that the roots depend on; `fixed` values stay."""
    known: dict[Key, Value] = {}
    unchanged = set(fixed)
    for value in walk(unchanged):
        known.setdefault(_key(value), value)

    def visit(value: Value, args: tuple[Value, ...]) -> Value:
        if value in unchanged:
            return value
        candidates = (_folded(value, args), _without_effect(value, args), with_args(value, args))
        found = next(c for c in candidates if c is not None)
        return known.setdefault(_key(found), found)

    return rewrite(roots, visit)


def simplify_graph(graph: Graph) -> Graph:
    """The graph simplified for machines; people are shown the graph as written."""
    small = simplify(graph.roots)
    return replace(graph, output=small[graph.output], new={name: small[v] for name, v in graph.new.items()})


def _key(value: Value) -> Key:
    if value.op in ("input", "old", "weight", "seed"):
        return (value.op, value.attrs["name"])
    attrs = tuple(sorted((k, str(v)) for k, v in value.attrs.items() if k != "linear"))
    return (value.op, tuple(id(a) for a in value.args), value.size, attrs)


def _number(value: Value) -> float | None:
    """The value of a nameless constant; options keep their names and are not folded."""
    return value.attrs["value"] if value.op == "constant" and "name" not in value.attrs else None


def _folded(value: Value, args: tuple[Value, ...]) -> Value | None:
    numbers = [_number(a) for a in args]
    compute = OPS[value.op].value if value.op in FOLDED else None
    if compute is None or any(n is None for n in numbers) or (value.op == "div" and numbers[1] == 0.0):
        return None
    result = compute(None, *numbers)
    return Value("constant", value=result) if isfinite(result) else None


def _without_effect(value: Value, args: tuple[Value, ...]) -> Value | None:
    left = args[0] if args else None
    if left is None:
        return None
    first, second = _number(left), _number(args[1]) if len(args) == 2 else None
    unchanged: Value | None = None
    if value.op == "mul":
        unchanged = args[1] if first == 1.0 else left if second == 1.0 else None
    elif value.op in ("div", "pow", "scale_columns") and second == 1.0:
        unchanged = left
    elif value.op == "neg" and left.op == "neg":
        unchanged = left.args[0]
    elif value.op == "scale_rows" and first == 1.0:
        unchanged = args[1]
    elif value.op == "sub" and second == 0.0:
        unchanged = left
    return unchanged if unchanged is not None and unchanged.size == value.size else None
