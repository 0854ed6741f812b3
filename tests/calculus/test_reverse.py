"""The backward pass as a graph, against torch's autograd on the reference."""

from typing import Any

import pytest
import torch
from torch import Tensor

from calculus_steps import first_step
from catalogue import ALL
from oracles.agreement import BATCH, SIZES
from tidegate.calculus import StepVJP, saved_values, simplify_graph, vjp
from tidegate.equations import Cell, Graph, Rate, Value, cell, linear, sigmoid, tanh, walk, weight
from tidegate.equations.formats.text import expression
from tidegate.reference import Program, bound, evaluate, leaves, step, torch_ops

TOLERANCE = 1e-10


def print_values(roots: dict[str, Value]) -> str:
    """Derived values as numbered text: `%3 = mul(%1, f)`, then the roots by name."""
    order = [v for v in walk(roots.values()) if not v.is_leaf]
    names = {v: v.label or f"%{k}" for k, v in enumerate(order)}

    def reference(value: Value) -> str:
        return names[value] if value in names else expression(value)

    lines = [f"{names[v]} = {v.op}({', '.join(reference(a) for a in v.args)})" for v in order]
    return "\n".join([*lines, *(f"{name} := {reference(v)}" for name, v in roots.items())]) + "\n"


def seeds_for(graph: Graph) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(11)
    sizes = {f"out.{graph.output_name}": graph.output_size} | {f"new.{s.name}": s.size for s in graph.states}
    return {k: torch.randn(BATCH, *bound(v, SIZES), dtype=torch.float64, generator=source) for k, v in sizes.items()}


def expected(graph: Graph, seeds: dict[str, Tensor]) -> dict[str, Tensor | None]:
    """Gradients of the seeded sum of output and new states, by autograd."""
    weights, inputs, states = first_step(graph)
    parts = {f"weights/{k}": v for k, v in weights.items()} | {f"inputs/{k}": v for k, v in inputs.items()}
    parts |= {f"states/{k}": v for k, v in states.items()}
    parts = {k: v.clone().requires_grad_() for k, v in parts.items()}

    def taken(kind: str) -> dict[str, Tensor]:
        return {k.removeprefix(kind): v for k, v in parts.items() if k.startswith(kind)}

    output, new = step(graph, taken("weights/"), taken("inputs/"), taken("states/"), torch_ops, SIZES)
    total = (output * seeds[f"out.{graph.output_name}"]).sum()
    for name, value in new.items():
        total = total + (value * seeds[f"new.{name}"]).sum()
    found = torch.autograd.grad(total, list(parts.values()), allow_unused=True)
    return dict(zip(parts, found, strict=True))


def run_backward(graph: Graph, back: StepVJP, seeds: dict[str, Tensor], env: dict[Value, Any]) -> dict[str, Tensor]:
    """The gradients of everything, from an environment that holds what the backward pass may read."""
    env |= {back.seeds[k]: v for k, v in seeds.items()}
    evaluate(back.roots, env, torch_ops, SIZES)
    found = {f"states/{k}": env[v].expand(BATCH, -1) for k, v in back.states.items()}
    found |= {f"inputs/{k}": env[v].expand(BATCH, -1) for k, v in back.inputs.items()}
    sums = {v: sum(env[c].reshape(BATCH, *env[c].shape[1:]).sum(0) for c in group) for v, group in back.weights.items()}
    weights = {v: first_step(graph)[0][name].clone().requires_grad_() for name, v in graph.weights.items()}
    read = evaluate(sums, dict(weights), torch_ops, SIZES)
    totals = [total.reshape(value.shape) for total, value in zip(sums.values(), read, strict=True)]
    gradients = torch.autograd.grad(read, list(weights.values()), totals, allow_unused=True)
    return found | {f"weights/{v.attrs['name']}": g for v, g in zip(weights, gradients, strict=True) if g is not None}


def recomputed(graph: Graph, back: StepVJP, stored: tuple[Value, ...]) -> set[Value]:
    """The values of the step that the backward pass computes again."""
    given = {v for v in graph.values if v.is_leaf or v.rate == Rate.WEIGHTS}.union(stored, graph.new.values())
    found = set(Program(back.roots, given=given | set(back.seeds.values())).order) & set(graph.values)
    return {v for v in found if v.op not in ("constant", "count")}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor | None]) -> None:
    for name, gradient in wanted.items():
        if name not in found:
            assert gradient is None or not gradient.any(), f"{name}: nothing came, and autograd has a gradient"
            continue
        reference = torch.zeros_like(found[name]) if gradient is None else gradient
        assert found[name].shape == reference.shape, name
        worst = float((found[name] - reference).abs().max() / (1 + reference.abs().max()))
        assert worst <= TOLERANCE, f"{name}: relative difference {worst:.1e}"


@pytest.mark.parametrize("definition", ALL.values(), ids=ALL.keys())
def test_agrees_with_autograd(definition: Cell) -> None:
    graph = definition.graph
    seeds = seeds_for(graph)
    env = leaves(graph, *first_step(graph))
    assert_same(run_backward(graph, vjp(graph), seeds, env), expected(graph, seeds))


@pytest.mark.parametrize("definition", ALL.values(), ids=ALL.keys())
def test_what_is_kept_is_enough(definition: Cell) -> None:
    """The backward pass runs from what is at hand and what is stored, with products done only once."""
    graph = definition.graph
    back, seeds = vjp(graph), seeds_for(graph)
    stored = saved_values(graph, back)
    forward = leaves(graph, *first_step(graph))
    at_hand = set(forward) | {v for v in graph.values if v.rate == Rate.WEIGHTS}
    evaluate(graph.values, forward, torch_ops, SIZES)
    given = {*at_hand, *stored, *graph.new.values()}
    env = {v: a for v, a in forward.items() if v in given}
    assert not [v for v in recomputed(graph, back, stored) if v.op in ("linear", "product", "mean", "total")]
    assert_same(run_backward(graph, back, seeds, env), expected(graph, seeds))


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("elman", []),
        ("lstm", ["i", "f", "g", "o"]),
        ("lstm_peephole", ["i", "f", "g", "o"]),
        ("lstm_coupled", ["f", "g", "o"]),
        ("gru", ["r", "z", "n"]),
    ],
)
def test_a_smallest_set_is_kept(name: str, stored: list[str]) -> None:
    graph = ALL[f"shipped {name}"].graph
    assert [v.label for v in saved_values(graph, vjp(graph))] == stored


def test_the_new_cell_state_is_at_hand_and_its_tanh_computed_again() -> None:
    graph = ALL["shipped lstm"].graph
    back = vjp(graph)
    assert [v.op for v in recomputed(graph, back, saved_values(graph, back))] == ["tanh"]


def test_equal_weights_do_not_merge_and_equal_computations_do() -> None:
    @cell(states="h", source="a test")
    def twice(x, h):
        a = tanh(linear("a", x, h))
        b = tanh(linear("b", x, h))
        h = weight("u") * sigmoid(h) * a + weight("v") * sigmoid(h) * b
        return h

    small = simplify_graph(twice.graph)
    ops = [v.op for v in walk(small.roots)]
    assert ops.count("sigmoid") == 1
    assert ops.count("linear") == 2
    assert ops.count("weight") == 8


def test_a_product_with_zero_stays() -> None:
    @cell(states="h", source="a test")
    def zero(x, h):
        h = 0.0 * h + 1.0 * tanh(linear("a", x)) - 0.0
        return h

    small = simplify_graph(zero.graph)
    assert [v.op for v in walk(small.roots) if not v.is_leaf] == ["mul", "linear", "tanh", "add"]


@pytest.mark.parametrize("definition", ALL.values(), ids=ALL.keys())
def test_simplified_values_are_the_same_bits(definition: Cell) -> None:
    graph, (weights, inputs, states) = definition.graph, first_step(definition.graph)
    written = step(graph, weights, inputs, states, torch_ops, SIZES)
    small = step(simplify_graph(graph), weights, inputs, states, torch_ops, SIZES)
    assert torch.equal(written[0], small[0])
    assert all(torch.equal(written[1][k], small[1][k]) for k in written[1])


def test_printed(golden: Any) -> None:
    """The backward pass of the LSTM as text, to be read by people when it changes."""
    graph = ALL["shipped lstm"].graph
    back = vjp(graph)
    roots = {f"d {k}[t-1]": v for k, v in back.states.items()} | {f"d {k}": v for k, v in back.inputs.items()}
    roots |= {f"d {w.name}": v for w, group in back.weights.items() for v in group}
    golden("calculus/lstm_backward.txt", print_values(roots))
