"""UORO as two cells. The first, without a recurrence, finds what steps add over weights and what the second reads; the
second is the recursion of the vector over states.

States are known for all steps before, so that only the product of the Jacobian with the vector, its norm and some
scalings are left to the recurrence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from itertools import pairwise
from operator import add

from tidegate.calculus import Tangent, jvp, pulled_back
from tidegate.equations.graph import Graph, Input, StateVariable
from tidegate.equations.ops import OPS, spread, total
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import SCALAR, Rate, Size, Value, constant, pointwise, walk
from tidegate.gradients.influence.parameter_groups import ParameterGroup
from tidegate.nn.growing import NORM
from tidegate.reference import bound
from tidegate.runtime.feedforward import NOTHING
from tidegate.runtime.unroll import Unroll as Run

TINY = 1e-7
FLAGS = ("fresh", "valid")
Bundles = tuple[tuple[ParameterGroup, ...], ...]
Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells for some states of a graph, and the groups of weights that reach them, in bundles that read the same.

    `added` gives for each bundle its rows, one group's beside the other's, and what they read; then what `recursion`
    reads of a step, its inputs `given.0` ... It is told each input of the graph by its name, the states before the step
    and after it as `old.0` and `new.0` ... in the order of the graph, signs as `sign.0` ... in the order of `states`,
    what else is `known` of a step as `known.0` ..., and `ones.0`, which is 1.
    """

    graph: Graph
    states: tuple[str, ...]
    bundles: Bundles
    jvp: Tangent

    def added(self, sizes: Mapping[str, int]) -> Added:
        """The first cell, for a layer of these sizes."""
        return _added(self, tuple(sizes.items()))

    def recursion(self, sizes: Mapping[str, int], flags: tuple[str, ...]) -> Run:
        """The second, for steps with these flags.

        Its states are `state.0` ..., and `norm`, the size of the vector over weights, which it leaves as it is. Each
        step reads `sign.0` ... and `drive`, whose products are added to the states. It puts out the states, and last
        what they were multiplied by, which the vector over weights is divided by.
        """
        return _recursion(self, tuple(sizes.items()), flags)


@dataclass(frozen=True, eq=False)
class Added:
    """The first cell with bound sizes: where its output `rows` and `read` of each bundle stand, and what is `given`.

    `known` are values that the run which finds the states tells as well, so that no product is computed twice.
    """

    run: Run
    known: tuple[Value, ...]
    rows: tuple[slice, ...]
    read: tuple[slice, ...]
    given: Mapping[str, slice]


@lru_cache(maxsize=256)
def cells(graph: Graph, states: tuple[str, ...], bundles: Bundles) -> Cells:
    """The cells of a layer, made once."""
    return Cells(graph, states, bundles, jvp(graph, states))


def _input(name: str, size: Size) -> Value:
    return Value("input", (), size, Rate.INPUT, name=name)


def _side_by_side(graph: Graph, values: Sequence[Value], name: str) -> Graph:
    """The graph with these values as its output; nobody asks for derivatives."""
    still = [Value("stop", (v,), v.size) for v in values]
    output = Value("concat", tuple(still), ("+".join(str(v.size[0]) for v in still),))
    return replace(graph, output=output, output_name=name, masks={})


# what steps add


@lru_cache(maxsize=256)
def _added(made: Cells, sizes: Sizes) -> Added:
    sizes_of = {s.name: s.size for s in made.graph.states}
    signs = {name: _input(f"sign.{k}", sizes_of[name]) for k, name in enumerate(made.states)}
    pulled = pulled_back(made.graph, signs, [g.result for b in made.bundles for g in b])
    rows = [[pulled.get(g.result, _nothing(signs, g.result.size)) for g in bundle] for bundle in made.bundles]
    ones = _input("ones.0", SCALAR)
    read = [[*(v for _, v in b[0].factors), *([ones] if _has_ones(b[0]) else [])] for b in made.bundles]
    parts = [*rows, *read, *([v] for v in made.tangent.given)]
    flat = [v for part in parts for v in part]
    leaves = _told(made.graph)
    known = _made_by_products(made.graph, flat, leaves)
    leaves |= {v: _input(f"known.{k}", v.size) for k, v in enumerate(known)}
    copies = rewrite(flat, lambda v, args: leaves[v] if v in leaves else with_args(v, args))
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + sum(bound(v.size, dict(sizes))[0] for v in part))
    places, n = [slice(a, b) for a, b in pairwise(ends)], len(made.bundles)
    inputs = [Input(v.attrs["name"], v.size) for v in (*signs.values(), *leaves.values(), ones)]
    found = replace(
        _side_by_side(made.graph, [copies[v] for v in flat], "added"),
        name=f"{made.graph.name} under UORO",
        states=(NOTHING,),
        new={NOTHING.name: constant(0.0)},
    )
    used = found.input_values
    found = replace(found, inputs=tuple(i for i in (*inputs, *made.graph.inputs) if i.name in used))
    given = {f"given.{k}": place for k, place in enumerate(places[2 * n :])}
    return Added(Run(found, dict(sizes)), tuple(known), tuple(places[:n]), tuple(places[n : 2 * n]), given)


def _told(graph: Graph) -> dict[Value, Value]:
    """What stands for the states before and after a step."""
    states = list(enumerate(graph.states))
    leaves = {graph.old[s.name]: _input(f"old.{k}", s.size) for k, s in states if s.name in graph.old}
    for k, s in states:
        new = graph.new[s.name]
        if new.size == s.size and not new.is_leaf and new not in leaves:
            leaves[new] = _input(f"new.{k}", s.size)
    return leaves


def _made_by_products(graph: Graph, roots: Sequence[Value], leaves: Collection[Value]) -> list[Value]:
    """The layer's own values that the roots are made of, as far up as there is a product in them."""
    order, own = list(walk(roots)), set(graph.values)
    products: set[Value] = set()
    for v in order:
        multiplied = v.op in OPS and OPS[v.op].kind == "product"
        if v not in leaves and (multiplied or not products.isdisjoint(v.args)):
            products.add(v)
    found, seen, stack = set[Value](), set[Value](leaves), list(roots)
    while stack:
        v = stack.pop()
        if v not in seen:
            seen.add(v)
            if v not in own:
                stack.extend(v.args)
            elif v in products and v.rate > Rate.SEQUENCE and len(v.size) == 1:
                found.add(v)
    return [v for v in order if v in found]


def _has_ones(group: ParameterGroup) -> bool:
    return group.is_vector or group.bias is not None


def _nothing(like: Mapping[str, Value], size: Size) -> Value:
    first = next(iter(like.values()))
    return spread(total(first < first), size)


# the recursion


@lru_cache(maxsize=256)
def _recursion(made: Cells, sizes: Sizes, flags: tuple[str, ...]) -> Run:
    return Run(_recursion_graph(made, flags), dict(sizes))


def _recursion_graph(made: Cells, flags: tuple[str, ...]) -> Graph:
    sizes = {s.name: s.size for s in made.graph.states}
    states = [StateVariable(f"state.{k}", sizes[name]) for k, name in enumerate(made.states)]
    inputs = [Input(f"sign.{k}", s.size) for k, s in enumerate(states)]
    states.append(StateVariable(NORM, SCALAR))
    inputs += [Input("drive", SCALAR), *(Input(flag, SCALAR) for flag in flags)]
    inputs += [Input(f"given.{k}", v.size) for k, v in enumerate(made.tangent.given)]
    old = {s.name: Value("old", (), s.size, Rate.STATE, name=s.name) for s in states}
    given = {i.name: _input(i.name, i.size) for i in inputs}
    *step, keep = _step(_moved(made, old, given), old, given)
    still = [Value("stop", (v,), v.size) for v in step]
    new = dict(zip(old, (*still, old[NORM]), strict=True))
    found = replace(
        made.graph, name=f"{made.graph.name} under UORO", inputs=tuple(inputs), states=tuple(states), new=new
    )
    return _side_by_side(found, [*still, keep], "found")


def _moved(made: Cells, old: Mapping[str, Value], given: Mapping[str, Value]) -> list[Value]:
    """The Jacobian times the vector, by state."""
    before = {name: old[f"state.{k}"] for k, name in enumerate(made.states)}
    leaves = {v: given[f"given.{k}"] for k, v in enumerate(made.tangent.given)}
    leaves |= {seed: before[name] for name, seed in made.tangent.seeds.items()}
    copies = rewrite(made.tangent.states.values(), lambda v, args: leaves[v] if v in leaves else with_args(v, args))
    found = {name: copies[v] for name, v in made.tangent.states.items()}
    return [_flagged(found.get(name, constant(0.0)), before[name], given) for name in made.states]


def _flagged(moved: Value, before: Value, given: Mapping[str, Value]) -> Value:
    """Nothing is carried into a fresh start, and all of it where no step takes place."""
    if "fresh" in given:
        moved = pointwise("where", given["fresh"], 0.0, moved)
    return pointwise("where", given["valid"], moved, before) if "valid" in given else moved


def _step(moved: Iterable[Value], old: Mapping[str, Value], given: Mapping[str, Value]) -> list[Value]:
    """Tallec & Ollivier 2017, arXiv:1702.05043, algorithm 1: the vector over states, and what it was multiplied by."""
    parts = list(moved)
    squares: dict[Size, Value] = {}  # one sum over units for each size
    for m in parts:
        if m.op != "constant":
            squares[m.size] = squares[m.size] + m * m if m.size in squares else m * m
    size = pointwise("sqrt", reduce(add, map(total, squares.values()))) if squares else constant(0.0)
    keep = pointwise("sqrt", old[NORM] / (size + TINY)) + TINY
    return [*(m * keep + given["drive"] * given[f"sign.{k}"] for k, m in enumerate(parts)), keep]
