"""Cut along time: the phases of every cell compute what the plain step does, and each holds only what belongs to it."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from catalogue import ALL
from layer_cases import assert_same, broadcast, gradients, looks_back, narrow, told_once
from tidegate.calculus.phases import phases
from tidegate.equations import Cell, Graph, Rate, cell, linear, matrix, sigmoid, tanh, walk, weight
from tidegate.nn.initialise import draw
from tidegate.reference import bound, step, torch_ops
from tidegate.reference.unroll import ReferenceUnroll, UnrollArguments

SIZES = {"I": 3, "H": 12, "P": 5, "S": 4, "R": 2, "N": 8, "G": 6}
T, B = 4, 5
Tensors = dict[str, Tensor]


@cell(
    states="h c", source="a test: a state that is a weight, one that is the input, an output that is a constant apart"
)
def odd(x, h, c):
    gate = sigmoid(weight("g", init=0.3))
    h = tanh(matrix("A") @ c + (matrix("A2") - matrix("A2b").T) @ c + linear("x", x)) * gate + 0.1 * h
    return h, gate


@cell(states="h c:I", output="y", source="a test: the output needs an old state, and products of two phases")
def late(x, h, c):
    y = linear("y", h, c) + linear("u", h) * linear("v", x)
    h = tanh(linear("h", h, x))
    return y, h, x


@cell(states="h", output="y", source="a test: the output is an input-only value")
def early(x, h):
    y = tanh(linear("y", x))
    h = 0.5 * h + y
    return y, h


@cell(states="h", inputs="x z:S who:G@sequence", source="a test: a linear with three parts that go before time")
def many_early(x, z, who, h):
    h = tanh(linear("h", x, h, z, who)) * sigmoid(linear("g", z, h, who, bias=None))
    return h


OWN = {c.name: c for c in (many_early, told_once, narrow, broadcast, looks_back, odd, late, early)}
CELLS: dict[str, Cell] = ALL | OWN
every_cell = pytest.mark.parametrize("name", CELLS)


def setting(graph: Graph) -> tuple[Tensors, Tensors, Tensors]:
    weights = {n: w + (0.3 * torch.randn_like(w)).abs() for n, w in draw(graph, SIZES).items()}
    for name, value in graph.weights.items():
        if not value.attrs["learn"]:
            weights[name] = draw(graph, SIZES)[name]
    lead = {Rate.SEQUENCE: (B,), Rate.INPUT: (T, B)}
    inputs = {i.name: torch.rand(*lead[i.rate], *bound(i.size, SIZES)).double() + 0.1 for i in graph.inputs}
    states = {s.name: torch.rand(B, *bound(s.size, SIZES)).double() for s in graph.states}
    return weights, inputs, states


def plain(graph: Graph, weights: Tensors, inputs: Tensors, states: Tensors) -> Tensors:
    """The reference's step, again and again."""
    moving = {i.name for i in graph.inputs if i.rate == Rate.INPUT}
    outputs = []
    for t in range(T):
        now = {k: v[t] if k in moving else v for k, v in inputs.items()}
        first = dict(sorted(now.items(), key=lambda item: item[0] not in moving))
        y, states = step(graph, weights, first, states, torch_ops, SIZES)
        outputs.append(y)
    return {"y": torch.stack(outputs), **states}


@every_cell
def test_phases_compute_what_the_step_does(name: str) -> None:
    graph = CELLS[name].graph
    parts = setting(graph)
    leaves = {f"{k} {n}": v.requires_grad_() for k, part in enumerate(parts) for n, v in part.items()}
    start = {n: v[:1] for n, v in parts[2].items()}
    y, ends = ReferenceUnroll(graph, SIZES)(UnrollArguments(*parts, start))
    ours, theirs = {"y": y, **ends}, plain(graph, *parts)
    assert_same(ours, theirs, 1e-12)
    assert_same(gradients(ours, leaves), gradients(theirs, leaves), 1e-12)


@every_cell
def test_each_phase_holds_what_belongs_to_it(name: str) -> None:
    graph = CELLS[name].graph
    cut = phases(graph)
    assert all(v.rate == Rate.WEIGHTS for v in cut.prologue)
    assert all(Rate.WEIGHTS < v.rate < Rate.STATE for v in cut.before)
    assert all(v.rate == Rate.STATE for v in cut.carried)
    assert list(cut.new) == [s.name for s in graph.states]
    known = {*cut.prologue, *cut.before}
    inside = [v for v in walk([*cut.new.values(), *cut.carried]) if v.rate == Rate.STATE and v not in known]
    assert not [v for v in inside if v.op == "linear" and any(a.rate < Rate.STATE for a in v.args[1::2])]
    products = [v for v in inside if v.op == "product" and "blocks" not in v.args[0].attrs]
    assert len({v.args[1] for v in products}) == len(products), "two products of one vector are one"


@pytest.mark.parametrize(
    ("name", "before", "products"),
    [
        ("shipped lstm", 4, 1),
        ("shipped gru", 3, 2),
        ("shipped gru_reset_after", 3, 1),
        ("hard qrnn", 4, 1),
        ("early", 1, 0),
    ],
)
def test_what_is_left_inside(name: str, before: int, products: int) -> None:
    cut = phases(CELLS[name].graph)
    assert len([v for v in cut.before if v.op != "input" or name == "hard qrnn"]) == before
    assert len([v for v in walk(cut.new.values()) if v.op == "product"]) == products


def nodes_behind(y: Tensor) -> set[str]:
    found, waiting = set(), [y.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [n for n, _ in node.next_functions]
    return {type(n).__name__ for n in found}


def test_series_and_stacked_products_are_taken_apart_once() -> None:
    """An index for each step, or a slice for each gate, would make a whole gradient each time."""
    parts = setting(CELLS["shipped lstm"].graph)
    for v in (*parts[0].values(), *parts[1].values()):
        v.requires_grad_()
    y, _ = ReferenceUnroll(CELLS["shipped lstm"].graph, SIZES)(
        UnrollArguments(*parts, {n: v[:1] for n, v in parts[2].items()})
    )
    names = nodes_behind(y)
    assert {"UnbindBackward0", "SplitWithSizesBackward0"} <= names
    assert not {"SelectBackward0", "SliceBackward0", "IndexBackward0"} & names


def test_what_only_the_output_needs_comes_after() -> None:
    cut = phases(CELLS["shipped lru"].graph)
    inside = set(walk(cut.new.values()))
    assert [v.name for v in cut.carried] == ["re", "im"]
    assert not [v for v in inside if v.op in ("linear", "product") and v.rate == Rate.STATE]
    assert phases(early.graph).carried == ()


@settings(max_examples=60)
@given(st.data())
def test_random_cells(data: st.DataObject) -> None:
    """Cells put together at random from products, sums, gates and earlier values."""
    plan = data.draw(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=8)
    )
    picks = data.draw(st.tuples(*[st.integers(0, 99)] * 3))

    def grow(x: Any, z: Any, h: Any, c: Any) -> list[Any]:
        values = [h, c, z, linear("first", x, h)]
        for k, (kind, i, j) in enumerate(plan):
            a, b = values[i % len(values)], values[j % len(values)]
            made = [
                lambda a=a, b=b, k=k: linear(f"n{k}", p=a, q=b, bias=None),
                lambda a=a, b=b: a * sigmoid(b),
                lambda a=a, b=b: tanh(a) - b,
                lambda a=a, k=k: matrix(f"M{k}") @ a,
                lambda a=a, k=k: (matrix(f"W{k}") - matrix(f"V{k}").T) @ a + weight(f"w{k}", init=0.2),
                lambda a=a, b=b, k=k, x=x: linear(f"n{k}", x, p=a) * b,
            ][kind]
            values.append(0.5 * tanh(made()))
        return values

    @cell(states="h c", inputs="x z:H", output="y", source="a test")
    def random_cell(x, z, h, c):
        values = grow(x, z, h, c)
        total = h + 0.1 * c + 0.1 * z
        for value in values[3:]:
            total = total + 0.1 * value
        y, new_h, new_c = (values[p % len(values)] for p in picks)
        return 1.0 * y + 0.1 * linear("last", x), 0.3 * new_h + 0.1 * total, 0.5 * new_c

    parts = setting(random_cell.graph)
    leaves = {f"{k} {n}": v.requires_grad_() for k, part in enumerate(parts) for n, v in part.items()}
    y, ends = ReferenceUnroll(random_cell.graph, SIZES)(
        UnrollArguments(*parts, {n: v[:1] for n, v in parts[2].items()})
    )
    ours, theirs = {"y": y, **ends}, plain(random_cell.graph, *parts)
    assert_same(ours, theirs, 1e-12)
    assert_same(gradients(ours, leaves), gradients(theirs, leaves), 1e-11)
