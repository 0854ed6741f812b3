"""The per-step Jacobians as graphs, against torch.func.jacrev on the reference."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from calculus_steps import first_step
from catalogue import ALL
from oracles.agreement import BATCH, SIZES
from tidegate.calculus import Dense, Diagonal, jacobians
from tidegate.calculus.jacobian import Jacobian
from tidegate.calculus.recurrence import delay_lines
from tidegate.equations import Cell, Graph, Rate, Value, cell, linear, relu, sigmoid, tanh, weight
from tidegate.reference import Program, bound, evaluate, leaves, torch_ops

TOLERANCE = 1e-10


def dense(jacobian: Jacobian | None, env: dict[Value, Any], shape: tuple[int, int]) -> Tensor:
    """A Jacobian as `[B, result, of]`, zero where it is absent."""
    if jacobian is None:
        return torch.zeros(BATCH, *shape, dtype=torch.float64)
    array = torch.atleast_1d(torch.as_tensor(env[jacobian.value], dtype=torch.float64))
    return (torch.diag_embed(array) if isinstance(jacobian, Diagonal) else array).expand(BATCH, *shape)


def moved(graph: Graph, variable: Value, array: Tensor, env: dict[Value, Any]) -> dict[str, Tensor]:
    """The new states of one row when one value of the step is replaced."""
    fixed = {v: a for v, a in env.items() if (v.is_leaf or v.rate == Rate.WEIGHTS) and v is not variable}
    given = {variable: array} | fixed
    program = Program(graph.new.values(), given=given)
    results = program(torch_ops, SIZES, dict(given))
    return {
        s.name: torch.as_tensor(r, dtype=torch.float64).expand(bound(s.size, SIZES))
        for s, r in zip(graph.states, results, strict=True)
    }


def row_of(env: dict[Value, Any], row: int) -> dict[Value, Any]:
    return {v: a[row] if v.op in ("input", "old") else a for v, a in env.items()}


def check(graph: Graph, variable: Value, found: dict[str, Jacobian | None], env: dict[Value, Any]) -> None:
    known = dict(env)
    evaluate([variable, *(v for v in graph.values if v.rate == Rate.WEIGHTS)], known, torch_ops, SIZES)
    batched = variable.rate > 0
    for row in range(BATCH):
        single = row_of(env, row)
        array = known[variable][row] if batched else known[variable]
        wanted = jacrev(lambda a, single=single: moved(graph, variable, a, single))(array)
        for state, matrix in wanted.items():
            mine = dense(found.get(state), known, tuple(matrix.shape))[row]
            worst = float((mine - matrix).abs().max() / (1 + matrix.abs().max()))
            assert worst <= TOLERANCE, f"d {state} / d {variable.label or variable.op}: {worst:.1e}"


@pytest.mark.parametrize("definition", ALL.values(), ids=ALL.keys())
def test_agrees_with_jacrev(definition: Cell) -> None:
    graph = definition.graph
    env = leaves(graph, *first_step(graph))
    found = jacobians(graph)
    evaluate([j.value for j in found.states.values()], env_all := dict(env), torch_ops, SIZES)
    evaluate([j.value for g in (found.linears, found.vectors) for j in g.values()], env_all, torch_ops, SIZES)
    known = {v: a for v, a in env_all.items() if v.is_leaf}
    for name, variable in graph.old.items():
        check(graph, variable, _column(found.states, name), _merged(env_all, known))
    for group in (found.linears, found.vectors):
        for variable in {v for _, v in group}:
            check(graph, variable, _column(group, variable), _merged(env_all, known))


def _column(group: Any, of: Any) -> dict[str, Jacobian | None]:
    return {state: j for (state, o), j in group.items() if o is of or (isinstance(of, str) and o == of)}


def _merged(env: dict[Value, Any], leaves_only: dict[Value, Any]) -> dict[Value, Any]:
    return {**leaves_only, **{v: a for v, a in env.items() if not v.is_leaf}}


def element_wise(graph: Graph) -> bool:
    """Whether no unit of a new state depends on another unit of an old one, delay lines apart."""
    delays = delay_lines(graph)
    return all(isinstance(j, Diagonal) for (_, old), j in jacobians(graph).states.items() if old not in delays)


def test_element_wise_recurrences_are_seen_and_not_declared() -> None:
    @cell(states="h", source="Li et al. 2018, arXiv:1803.04831")
    def independent(x, h):
        h = relu(linear("h", x) + weight("u", init=0.5) * h)
        return h

    @cell(states="h", source="Feng et al. 2024, arXiv:2410.01201")
    def minimal_gru(x, h):
        z = sigmoid(linear("z", x))
        h = (1.0 - z) * h + z * linear("n", x)
        return h

    assert element_wise(independent.graph)
    assert element_wise(minimal_gru.graph)
    seen = {name for name, c in ALL.items() if element_wise(c.graph)}
    assert {"hard elstm", "hard qrnn"} <= seen
    assert {name for name in seen if name.startswith("shipped")} == {
        f"shipped {name}" for name in ("indrnn", "sru", "min_gru", "min_lstm", "lru")
    }


def test_delay_lines_are_seen() -> None:
    @cell(states="h | p:I*3", source="a test")
    def late(x, h, p):
        h = tanh(linear("h", h, p2=p[2]))
        return h, [x, *p[:-1]]

    assert delay_lines(late.graph) == {"p0", "p1", "p2"}
    assert delay_lines(ALL["hard qrnn"].graph) == {"u0"}
    assert delay_lines(ALL["shipped lstm"].graph) == frozenset()


def test_several_stages_compose() -> None:
    """Three products one after another: the chain rule through all of them."""

    @cell(states="h", source="a test")
    def three(x, h):
        a = tanh(linear("a", x, h))
        b = tanh(linear("b", a=a))
        h = tanh(linear("c", b=b)) * a
        return h

    graph = three.graph
    found = jacobians(graph)
    assert isinstance(found.states["h", "h"], Dense)
    env = leaves(graph, *first_step(graph))
    known = dict(env)
    evaluate([j.value for g in (found.states, found.linears) for j in g.values()], known, torch_ops, SIZES)
    check(graph, graph.old["h"], _column(found.states, "h"), known)


def test_vectors_that_are_made_of_each_other_count_apart() -> None:
    """A gate of weights only is read as f and as 1 - f: each has its Jacobian, and neither is counted in the other."""

    @cell(states="h", source="Heck & Salem 2017, arXiv:1701.03441, the gate a learned constant")
    def constant_gate(x, h):
        f = sigmoid(weight("b_f"))
        h = (1 - f) * h + f * tanh(linear("n", x, h=f * h))
        return h

    graph = constant_gate.graph
    found = jacobians(graph)
    env = leaves(graph, *first_step(graph))
    evaluate([j.value for g in (found.states, found.vectors) for j in g.values()], env, torch_ops, SIZES)
    read = [v for _, v in found.vectors]
    assert [v.name or v.op for v in read] == ["sub", "f"]
    for vector in read:
        check(graph, vector, _column(found.vectors, vector), env)
    b = env[graph.weights["b_f"]]
    gradient = torch.sigmoid(b) * (1 - torch.sigmoid(b))
    rest, gate = (dense(found.vectors["h", v], env, (SIZES["H"], SIZES["H"]))[0] for v in read)
    wanted = jacrev(lambda a: moved(graph, graph.weights["b_f"], a, _leaves_of(row_of(env, 0)))["h"])(b)
    assert torch.allclose((gate - rest) * gradient, wanted, rtol=0, atol=TOLERANCE)


def _leaves_of(env: dict[Value, Any]) -> dict[Value, Any]:
    return {v: a for v, a in env.items() if v.is_leaf}
