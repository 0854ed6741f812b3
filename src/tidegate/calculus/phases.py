"""Splits a step into what is computed once, before the recurrence, inside it and after it.

Values of weights only are computed once per call; values of inputs for all steps before the recurrence; what the
recurrence needs, step by step; what only the output needs, for all steps after it. Linears of inputs and states are
split so that their input part is computed before, and products of one vector with several matrices become one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tidegate.calculus.simplify import simplify_graph
from tidegate.equations.graph import Graph
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import Rate, Value, walk


@dataclass(frozen=True, eq=False)
class Phases:
    """A graph cut along time; each list holds the values that later phases read, in the order written.

    `prologue` depends on weights only; `before` on inputs (all steps at once); `carried` on states, saved for `output`
    after the recurrence; `new` are the new states by name.
    """

    prologue: tuple[Value, ...]
    before: tuple[Value, ...]
    carried: tuple[Value, ...]
    new: dict[str, Value]
    output: Value


def split_linear(value: Value, args: tuple[Value, ...]) -> Value:
    """Split a linear into a part that depends on states and one that does not, unless it has only one of them."""
    if value.op != "linear" or value.rate != Rate.STATE:
        return with_args(value, args)
    labels = value.attrs["labels"]
    terms = [(labels[k], args[2 * k], args[2 * k + 1]) for k in range(len(labels))]
    early = [t for t in terms if t[2].rate < Rate.STATE]
    late = [t for t in terms if t[2].rate == Rate.STATE]
    bias = args[2 * len(labels) :]
    if early:
        given: Value | None = _sum(value, early, bias)
    else:
        given = bias[0] if bias else None
    for _, matrix, vector in late:
        term = Value("product", (matrix, vector), value.size)
        given = term if given is None else given + term
    assert given is not None
    return given


def _sum(value: Value, terms: list[tuple[str, Value, Value]], bias: tuple[Value, ...]) -> Value:
    args = tuple(a for _, matrix, vector in terms for a in (matrix, vector))
    labels = [label for label, _, _ in terms]
    return Value("linear", (*args, *bias), value.size, **{**value.attrs, "labels": labels, "bias": bool(bias)})


def fuse_products(roots: Iterable[Value]) -> dict[Value, Value]:
    """Replace the products of a state with one vector by a single product with a taller matrix."""
    groups: dict[Value, list[Value]] = {}
    for value in walk(roots):
        if value.op == "product" and value.rate == Rate.STATE and "blocks" not in value.args[0].attrs:
            groups.setdefault(value.args[1], []).append(value)
    fused: dict[Value, Value] = {}
    place = {p: (g, k) for g in groups.values() if len(g) > 1 for k, p in enumerate(g)}

    def visit(value: Value, args: tuple[Value, ...]) -> Value:
        if value not in place:
            return with_args(value, args)
        group, index = place[value]
        vector = args[1]
        if vector not in fused:
            fused[vector] = _tall(group, vector)
        return Value("part", (fused[vector],), value.size, before=[p.size[0] for p in group[:index]])

    return rewrite(roots, visit)


def _tall(group: list[Value], vector: Value) -> Value:
    matrices, rows = tuple(p.args[0] for p in group), [p.size[0] for p in group]
    size = "+".join(map(str, rows)), matrices[0].size[1]
    tall = Value("stack_known", matrices, size, rows=rows, known=list(range(len(group))))
    return Value("product", (tall, vector), size[:1])


def phases(graph: Graph) -> Phases:
    """Simplify a graph and cut it along time."""
    graph = simplify_graph(graph)
    cut = rewrite(graph.roots, split_linear)
    joined = fuse_products([cut[r] for r in graph.roots])
    new = {name: joined[cut[v]] for name, v in graph.new.items()}
    output = joined[cut[graph.output]]
    roots = [output, *new.values()]
    return Phases(
        prologue=_handed_on(roots, lambda rate: rate == Rate.WEIGHTS),
        before=_handed_on(roots, lambda rate: Rate.WEIGHTS < rate < Rate.STATE),
        carried=_carried(output, set(walk(new.values()))),
        new=new,
        output=output,
    )


def _handed_on(roots: list[Value], belongs: Callable[[Rate], bool]) -> tuple[Value, ...]:
    """The values of these rates that are returned, or used by a value of another rate."""
    found = {r for r in roots if belongs(r.rate)}
    for user in walk(roots):
        if not belongs(user.rate):
            found |= {a for a in user.args if belongs(a.rate)}
    return tuple(sorted((v for v in found if v.op != "constant"), key=lambda v: v.order))


def _carried(output: Value, inside: set[Value]) -> tuple[Value, ...]:
    """The values of the recurrence that the output needs."""
    if output.rate != Rate.STATE:
        return ()
    if output in inside or output.op == "old":
        return (output,)
    late = [v for v in walk([output]) if v.rate == Rate.STATE and v not in inside and v.op != "old"]
    used = {a for v in late for a in v.args if a.rate == Rate.STATE and (a in inside or a.op == "old")}
    return tuple(sorted(used, key=lambda v: v.order))
