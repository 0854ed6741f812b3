"""The reference under torch: twice differentiable, under jvp, vmap and jacrev, for every operation and every cell."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jacrev, jvp, vmap

from graphs import SIZES, cells
from layer_cases import positive
from tidegate.cells import CELLS
from tidegate.equations import Cell
from tidegate.equations.ops import OPS
from tidegate.reference import bound, numpy_ops, step, torch_ops, weight_shape

# torch.func.jvp loads its decompositions through a part of torch that torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

POINTWISE = [name for name, row in OPS.items() if row.kind == "pointwise"]
SMALL = {"I": 3, "H": 4, "P": 2, "N": 5}
every_op = pytest.mark.parametrize("name", POINTWISE)
every_cell = pytest.mark.parametrize("made", CELLS.values(), ids=list(CELLS))


def away_from_corners(name: str) -> list[torch.Tensor]:
    """Positive numbers, none of them equal or whole, where every operation is smooth."""
    chance = torch.Generator().manual_seed(3)
    arity = OPS[name].arity
    whole = 0.3 + 0.55 * torch.rand(arity, 3, 4, dtype=torch.float64, generator=chance)
    whole += 0.01 * torch.arange(arity, dtype=torch.float64)[:, None, None]
    if name == "clip_gradient":
        whole[1] = 50.0
    return list(whole)


def applied(name: str):
    return lambda *operands: OPS[name].value(torch_ops, *operands)


def differentiable(name: str) -> bool:
    return name not in ("floor", "sign", "stop", "lt", "le", "gt", "ge", "eq", "ne")


@pytest.mark.parametrize("name", [n for n in POINTWISE if differentiable(n)])
def test_ops_twice(name):
    operands = away_from_corners(name)
    moved = [
        v.clone().requires_grad_(not (name in ("where", "clip_gradient") and k == (0 if name == "where" else 1)))
        for k, v in enumerate(operands)
    ]
    assert gradcheck(applied(name), moved)
    assert gradgradcheck(applied(name), moved)


@every_op
def test_ops_under_transforms(name):
    """jvp against finite differences, vmap against the batch, jacrev against jvp."""
    operands = away_from_corners(name)
    function = applied(name)
    tangents = [
        torch.ones_like(v) if k == len(operands) - 1 or name != "where" else torch.zeros_like(v)
        for k, v in enumerate(operands)
    ]
    if name == "clip_gradient":
        tangents[1] = torch.zeros_like(tangents[1])
    y, gradient = jvp(function, tuple(operands), tuple(tangents))
    assert torch.equal(y, function(*operands))
    ahead, behind = (function(*(v + e * t for v, t in zip(operands, tangents, strict=True))) for e in (1e-6, -1e-6))
    expected = torch.zeros_like(gradient) if name == "stop" else (ahead - behind) / 2e-6
    assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(vmap(function)(*operands), y)
    rows = tuple(v[0] for v in operands)
    jacobian = jacrev(function, argnums=len(rows) - 1)(*rows)
    if name not in ("where", "clip_gradient"):
        alone = jvp(lambda v: function(*rows[:-1], v), (rows[-1],), (torch.ones(4, dtype=torch.float64),))[1]
        assert torch.allclose(jacobian.diagonal(), alone)
    assert torch.equal(jacobian - torch.diag(jacobian.diagonal()), torch.zeros(4, 4, dtype=torch.float64))


def as_function(made: Cell, sizes: dict[str, int], seed: int = 2, rows: int = 2):
    """The step as a function of flat tensors, and the tensors."""
    chance = torch.Generator().manual_seed(seed)
    graph = made.graph
    shapes = [weight_shape(w, sizes) for w in graph.weights.values()]
    shapes += [(rows, *bound(given.size, sizes)) for given in (*graph.inputs, *graph.states)]
    flat = [0.5 * torch.randn(*s, dtype=torch.float64, generator=chance) for s in shapes]
    for k, state in enumerate(graph.states, len(flat) - len(graph.states)):
        flat[k] = positive(state.name, flat[k])

    def run(*tensors):
        n, m = len(graph.weights), len(graph.inputs)
        weights = dict(zip(graph.weights, tensors[:n], strict=True))
        inputs = dict(zip([i.name for i in graph.inputs], tensors[n : n + m], strict=True))
        states = dict(zip([s.name for s in graph.states], tensors[n + m :], strict=True))
        y, new = step(graph, weights, inputs, states, torch_ops, sizes)
        return (y, *new.values())

    return run, flat, len(graph.weights)


@every_cell
def test_cells_twice(made):
    run, flat, _ = as_function(made, SMALL)
    leaves = [v.requires_grad_() for v in flat]
    assert gradcheck(run, leaves, fast_mode=True)
    assert gradgradcheck(run, leaves, fast_mode=True)


@every_cell
def test_cells_under_transforms(made):
    run, flat, weights = as_function(made, SMALL)
    tangents = [torch.randn(v.shape, dtype=v.dtype) for v in flat]
    y, gradient = jvp(run, tuple(flat), tuple(tangents))
    ahead, behind = (run(*(v + e * t for v, t in zip(flat, tangents, strict=True))) for e in (1e-6, -1e-6))
    for k in range(len(y)):
        assert torch.allclose(gradient[k], (ahead[k] - behind[k]) / 2e-6, rtol=1e-6, atol=1e-7)
    over_rows = vmap(run, in_dims=(*[None] * weights, *[0] * (len(flat) - weights)))(*flat)
    assert all(torch.allclose(a, b, rtol=1e-13, atol=1e-15) for a, b in zip(over_rows, y, strict=True))
    jacobian = jacrev(lambda *v: run(*v)[0], argnums=tuple(range(len(flat))))(*flat)
    contracted = sum((j * t).flatten(2).sum(-1) for j, t in zip(jacobian, tangents, strict=True))
    assert torch.allclose(contracted, gradient[0], rtol=1e-10, atol=1e-12)


@settings(max_examples=25)
@given(cells(smooth=True), st.integers(0, 10**6))
def test_random_cells_twice(made, seed):
    run, flat, _ = as_function(made, SIZES, seed)
    leaves = [v.requires_grad_() for v in flat]
    assert gradcheck(run, leaves, fast_mode=True, atol=1e-4)


@every_cell
@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_other_types(made, kind, tolerance):
    run, flat, _ = as_function(made, SMALL)
    exact = run(*flat)
    rough = run(*(v.to(getattr(torch, kind)) for v in flat))
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == getattr(torch, kind)
        assert torch.allclose(a.double(), b, rtol=tolerance, atol=tolerance)


@every_cell
def test_numpy_keeps_float32(made):
    run, flat, weights = as_function(made, SMALL)
    arrays = [v.float().numpy() for v in flat]
    graph = made.graph
    named = dict(zip(graph.weights, arrays[:weights], strict=True))
    states = dict(zip([s.name for s in graph.states], arrays[weights + 1 :], strict=True))
    y, new = step(graph, named, {"x": arrays[weights]}, states, numpy_ops, SMALL)
    assert {v.dtype for v in (y, *new.values())} == {np.dtype("float32")}
    assert np.allclose(y, run(*flat)[0].numpy(), atol=1e-5)
