"""How a step moves with its states, against torch.func.jvp on the reference, and gradients of what it is made of."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.func
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calculus_steps import first_step
from catalogue import ALL
from graphs import SIZES as SMALL
from graphs import cells
from oracles.agreement import BATCH, SIZES
from tidegate.calculus import Dense, independent, jacobians, jvp, pulled_back
from tidegate.equations import Cell, Graph, Rate, Value, cell, clip_gradient, linear, sigmoid, tanh, total
from tidegate.equations.ops import OPS
from tidegate.equations.values import pointwise
from tidegate.reference import bound, evaluate, leaves, step, torch_ops, weight_shape

# torch.func.jvp loads its decompositions through a part of torch that torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

TOLERANCE = 1e-11
POINTWISE = [name for name, row in OPS.items() if row.kind == "pointwise"]
Tensors = dict[str, Tensor]


def check(graph: Graph, weights: Tensors, inputs: Tensors, states: Tensors, sizes: dict[str, int]) -> None:
    """The tangents of all new states, for random tangents of the old ones."""
    source = torch.Generator().manual_seed(5)
    moves = {n: torch.randn(s.shape, dtype=s.dtype, generator=source) for n, s in states.items()}

    def new(moving: Tensors) -> Tensors:
        found = step(graph, weights, inputs, moving, torch_ops, sizes)[1]
        return {s.name: found[s.name].expand(len(states[s.name]), *bound(s.size, sizes)) for s in graph.states}

    wanted = torch.func.jvp(new, (states,), (moves,))[1]
    made = jvp(graph)
    env: dict[Value, Any] = leaves(graph, weights, inputs, states)
    env |= {seed: moves[name] for name, seed in made.seeds.items()}
    evaluate(made.states.values(), env, torch_ops, sizes)
    for name, right in wanted.items():
        ours = env[made.states[name]] if name in made.states else torch.zeros_like(right)
        torch.testing.assert_close(ours.expand_as(right), right, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("definition", ALL.values(), ids=ALL.keys())
def test_agrees_with_jvp(definition: Cell) -> None:
    check(definition.graph, *first_step(definition.graph), SIZES)


@settings(max_examples=40)
@given(cells(smooth=True), st.integers(0, 10**6))
def test_random_cells(made: Cell, seed: int) -> None:
    graph, source = made.graph, torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return 0.5 * torch.randn(*shape, dtype=torch.float64, generator=source)

    weights = {n: some(*weight_shape(w, SMALL)) for n, w in graph.weights.items()}
    inputs = {i.name: some(2, *bound(i.size, SMALL)) for i in graph.inputs}
    check(graph, weights, inputs, {s.name: some(2, *bound(s.size, SMALL)) for s in graph.states}, SMALL)


@pytest.mark.parametrize("name", POINTWISE)
def test_every_operation(name: str) -> None:
    @cell(states="a b c", source="a test: one operation")
    def one(x: Any, a: Any, b: Any, c: Any) -> Any:
        operands = [a, 50.0] if name == "clip_gradient" else [a, b, c][: OPS[name].arity]
        a = tanh(linear("m", x, a=pointwise(name, *operands)))
        return a, b, c

    source = torch.Generator().manual_seed(3)
    graph = one.graph
    weights = {n: torch.randn(weight_shape(w, SIZES), dtype=torch.float64) for n, w in graph.weights.items()}
    # positive numbers, none of them equal or whole, where every operation is smooth
    states = {n: 0.3 + 0.55 * torch.rand(4, SIZES["H"], dtype=torch.float64, generator=source) for n in "abc"}
    check(graph, weights, {"x": torch.randn(4, SIZES["I"], dtype=torch.float64)}, states, SIZES)


def test_what_is_independent_of_what_moves() -> None:
    made = jvp(ALL["shipped lstm"].graph)
    assert set(made.seeds) == {"h", "c"} == set(made.states)
    given = independent(made.states.values(), made.seeds.values())
    moving = [v for v in given if v.rate > Rate.WEIGHTS]
    assert len(moving) == 6  # one for each of four products, the forget gate, and what goes from c to h
    assert all(len(v.size) == 1 for v in moving)
    assert {v.attrs["name"] for v in given if v.rate == Rate.WEIGHTS} == {"i.h", "f.h", "g.h", "o.h"}


def test_states_that_are_left_out_stand_still() -> None:
    made = jvp(ALL["shipped lstm"].graph, ["c"])
    assert set(made.seeds) == {"c"}
    assert set(made.states) == {"h", "c"}


def test_a_vector_that_is_put_together() -> None:
    """No cell is written so, but layers side by side as one cell are."""
    graph = ALL["shipped elman"].graph
    old, new = graph.old["h"], graph.new["h"]
    (given,) = graph.input_values.values()
    both = Value("concat", (tanh(old), sigmoid(given), new), ("H+I+H",))
    graph = replace(graph, output=old, new={"h": total(both * both) * new})
    check(graph, *first_step(graph), SIZES)


@pytest.mark.parametrize("definition", ALL.values(), ids=ALL.keys())
def test_vjps_are_gradients_times_jacobians(definition: Cell) -> None:
    graph = definition.graph
    found = jacobians(graph)
    groups = {**found.linears, **found.vectors}
    output_gradients = {s.name: Value("seed", (), s.size, Rate.STATE, name=s.name) for s in graph.states}
    ours = pulled_back(graph, output_gradients, {v for _, v in groups})
    env: dict[Value, Any] = leaves(graph, *first_step(graph))
    source = torch.Generator().manual_seed(7)
    for s in graph.states:
        env[output_gradients[s.name]] = torch.randn(BATCH, *bound(s.size, SIZES), dtype=torch.float64, generator=source)
    evaluate([*ours.values(), *(j.value for j in groups.values())], env, torch_ops, SIZES)
    assert set(ours) == {v for _, v in groups}
    for v, gradient in ours.items():
        right: Any = 0.0
        for (state, of), jacobian in groups.items():
            if of is v:
                output_gradient, matrix = (
                    env[output_gradients[state]],
                    torch.as_tensor(env[jacobian.value], dtype=torch.float64),
                )
                dense = isinstance(jacobian, Dense)
                right = right + (
                    (output_gradient.unsqueeze(-2) @ matrix).squeeze(-2) if dense else output_gradient * matrix
                )
        torch.testing.assert_close(env[gradient].expand_as(right), right, rtol=TOLERANCE, atol=TOLERANCE)


def test_clipping_of_gradients_is_no_part_of_an_adjoint() -> None:
    @cell(states="h", source="a test: a clipped gradient")
    def clipped(x, h):
        h = tanh(clip_gradient(linear("n", x, h), 0.01))
        return h

    graph = clipped.graph
    output_gradient = Value("seed", (), ("H",), Rate.STATE, name="h")
    (z,) = (v for v in graph.values if v.op == "linear")
    (gradient,) = pulled_back(graph, {"h": output_gradient}, [z]).values()
    env: dict[Value, Any] = leaves(graph, *first_step(graph))
    env[output_gradient] = torch.full((BATCH, SIZES["H"]), 3.0, dtype=torch.float64)
    evaluate([gradient, graph.new["h"]], env, torch_ops, SIZES)
    torch.testing.assert_close(env[gradient], 3.0 * (1 - env[graph.new["h"]] ** 2))
