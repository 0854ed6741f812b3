"""The canonical form of graphs that kernels are planned from.

Products become linears of one term; linears that are only added become one linear, whose products form one chain; a
product of weights alone is a value of weights; a mean is a total over a count.
"""

from collections.abc import Iterable
from dataclasses import replace

from tidegate.calculus import simplify_graph
from tidegate.equations.graph import Graph
from tidegate.equations.ops import count, total
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import Rate, Value, products, walk

Term = tuple[Value, Value]  # matrix, vector


def canonical_graph(graph: Graph) -> Graph:
    """The simplified graph in canonical form."""
    small = simplify_graph(graph)
    found = canonical(small.roots)
    return replace(small, output=found[small.output], new={name: found[v] for name, v in small.new.items()})


def canonical(roots: Iterable[Value], fixed: Iterable[Value] = ()) -> dict[Value, Value]:
    """The canonical form of each value; `fixed` values stay as they are."""
    ends, kept = list(roots), set(fixed)
    plain = rewrite(ends, lambda value, args: value if value in kept else _plain(value, args))
    joined = _with_joined_sums([plain[r] for r in ends], kept)
    return {value: joined[new] for value, new in plain.items() if new in joined}


def bias(value: Value) -> Value | None:
    """The bias of a linear, if it has one."""
    return value.args[-1] if value.attrs["bias"] else None


def linear(terms: list[Term], added: Value | None, size: tuple[str | int, ...]) -> Value:
    """A linear with these terms."""
    args = [part for term in terms for part in term]
    labels = [str(k) for k in range(len(terms))]
    return Value(
        "linear", (*args, *([added] if added is not None else [])), size, labels=labels, bias=added is not None
    )


def _plain(value: Value, args: tuple[Value, ...]) -> Value:
    new = with_args(value, args)
    if value.rate == Rate.WEIGHTS:
        return new
    if value.op == "mean":
        return total(args[0]) / count(args[0].size)
    if value.op == "product":
        return _named(linear([(args[0], args[1])], None, value.size), value)
    if value.op != "linear":
        return new
    moving = [t for t in products(new) if t[1].rate > Rate.WEIGHTS]
    still = [t for t in products(new) if t[1].rate == Rate.WEIGHTS]
    if not still:
        return new
    added = bias(new)
    for matrix, vector in still:
        part = Value("product", (matrix, vector), value.size)
        added = part if added is None else added + part
    return _named(linear(moving, added, value.size), value)


def _named(new: Value, value: Value) -> Value:
    new.name, new.version = value.name, value.version
    return new


def _with_joined_sums(roots: list[Value], kept: set[Value]) -> dict[Value, Value]:
    single = _used_once(roots, kept)
    new: dict[Value, Value] = {}
    for value in walk(roots):
        copy = value if value in kept else with_args(value, [new[a] for a in value.args])
        if value.op == "add" and value.rate > Rate.WEIGHTS and value not in kept:
            copy = _one_chain(copy, [(new[a], a in single) for a in _addends(value, single)])
        new[value] = copy
    return new


def _used_once(roots: list[Value], kept: set[Value]) -> set[Value]:
    uses: dict[Value, int] = dict.fromkeys(roots, 2)
    for value in walk(roots):
        for a in value.args:
            uses[a] = uses.get(a, 0) + 1
    return {v for v, n in uses.items() if n == 1 and v not in kept}


def _addends(value: Value, single: set[Value]) -> list[Value]:
    found: list[Value] = []
    for a in value.args:
        inner = a.op == "add" and a in single and a.size == value.size and a.rate > Rate.WEIGHTS
        found += _addends(a, single) if inner else [a]
    return found


def _one_chain(value: Value, addends: list[tuple[Value, bool]]) -> Value:
    """The sum with its linears merged into one, if there are several that nothing else reads."""
    linears = [
        a for a, alone in addends if alone and a.op == "linear" and a.rate > Rate.WEIGHTS and a.size == value.size
    ]
    if len(linears) < 2:
        return value
    biases = [b for b in map(bias, linears) if b is not None]
    result = linear([t for a in linears for t in products(a)], biases[0] if biases else None, value.size)
    joined = set(linears)
    for other in [*biases[1:], *(a for a, _ in addends if a not in joined)]:
        result = result + other
    return _named(result, value)
