"""The op table: no holes, numpy and torch agree everywhere, and each derivative is torch's own."""

import itertools
import math

import numpy as np
import pytest
import torch

from tidegate.equations.ops import OPS
from tidegate.equations.values import LEAVES, Rate, Value, constant
from tidegate.reference import Program, evaluate, numpy_ops, torch_ops

POINTWISE = [name for name, row in OPS.items() if row.kind == "pointwise"]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.3, -3.3, 20.0, -20.0, 100.0, -100.0, 709.0, 800.0, -800.0]
NUMBERS += [1e-8, -1e-8, 1e-300, 1e8, -1e8, math.inf, -math.inf, math.nan]
EVERYWHERE = np.array(NUMBERS)
every_op = pytest.mark.parametrize("name", POINTWISE)


def grid(name: str) -> np.ndarray:
    """Every combination of the numbers, a row an operand; a limit is positive, as the language sees to."""
    rows = np.array(list(itertools.product(EVERYWHERE, repeat=OPS[name].arity))).T
    return np.stack([rows[0], np.abs(rows[1])]) if name == "clip_gradient" else rows


# ------------------------------------------------------------------------------------------------------------ holes


@pytest.mark.parametrize("name", OPS)
def test_no_holes(name):
    row = OPS[name]
    assert row.name == name
    assert row.cost >= 0
    computed = row.kind != "initial" and name not in ("eye", "count")  # these two are made by whoever runs the graph
    assert (row.value is not None) == computed
    assert (row.derivative is not None) == (row.kind not in ("vjp", "initial"))
    assert row.kind in ("pointwise", "units", "product", "weights", "vjp", "initial")
    assert bool(row.latex) == (row.kind != "vjp" and name != "linear")
    assert row.arity is None or 0 <= row.arity <= 3


@pytest.mark.parametrize("name", [n for n, row in OPS.items() if row.latex and row.arity is not None])
def test_latex_shows_every_operand(name):
    row = OPS[name]
    marks = [f"<{k}>" for k in range(row.arity)]
    shown = row.latex.format(*marks)
    assert all(mark in shown for mark in marks)
    assert shown.count("{") == shown.count("}")
    assert shown.count(r"\left") == shown.count(r"\right")
    assert len(row.binds) in (0, row.arity)


def test_the_words_are_the_table():
    """Each operation that a step may have can be written."""
    from tidegate import equations

    operators = {"add", "sub", "mul", "div", "neg", "pow", "mod", "lt", "le", "gt", "ge", "eq", "ne"}
    made = {"product", "matmul", "transpose", "sign", "count"}  # by @ and .T, and by derivatives
    words = {"abs": "absolute"}
    for name, row in OPS.items():
        if row.kind != "vjp" and name not in operators | made:
            assert words.get(name, name) in equations.__all__
    assert LEAVES.isdisjoint(OPS) or LEAVES & set(OPS) == {"eye", "count"}


# ------------------------------------------------------------------------------------------------------------ values


def same(a: np.ndarray, b: np.ndarray, tolerance: float, absolute: float = 1e-300) -> np.ndarray:
    """Where both are NaN, equal, or within the tolerances."""
    with np.errstate(all="ignore"):
        close = np.abs(a - b) <= tolerance * np.abs(b) + absolute
    return (np.isnan(a) & np.isnan(b)) | (a == b) | close


@every_op
def test_numpy_is_torch_everywhere(name):
    operands = grid(name)
    if name == "mod":
        operands = operands[:, ~(np.abs(operands[0]) > 1e15 * np.abs(operands[1]))]  # torch gives up on 1e300 % 1e-300
    with np.errstate(all="ignore"):
        ours = np.asarray(OPS[name].value(numpy_ops, *operands))
    theirs = OPS[name].value(torch_ops, *map(torch.from_numpy, operands)).numpy()
    wrong = ~same(ours, theirs, 4e-16)
    assert not wrong.any(), operands[:, wrong][:, :5].T.tolist()


INDEPENDENT = {
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "softplus": lambda v: math.log1p(math.exp(v)),
    "log_sigmoid": lambda v: -math.log1p(math.exp(-v)),
    "relu": lambda v: max(v, 0.0),
    "mod": lambda a, b: a - b * math.floor(a / b),
    "floor": lambda v: float(math.floor(v)),
    "where": lambda c, a, b: a if c else b,
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
    "maximum": max,
    "minimum": min,
    "pow": math.pow,
    "stop": lambda v: v,
    "clip_gradient": lambda v, limit: v,
    "neg": lambda v: -v,
    "sign": lambda v: math.copysign(1.0, v) if v else 0.0,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "abs": abs,
}


@every_op
def test_values_are_those_of_the_formula(name):
    formula = INDEPENDENT.get(name) or getattr(math, name)
    for operands in itertools.product([0.3, 1.0, 1.7, 2.0], repeat=OPS[name].arity):
        expected = pytest.approx(formula(*operands), rel=1e-15)
        for xp, make in ((numpy_ops, np.array), (torch_ops, torch.tensor)):
            arrays = [make([v]) if xp is numpy_ops else make([v], dtype=torch.float64) for v in operands]
            assert float(OPS[name].value(xp, *arrays)[0]) == expected


@every_op
def test_numbers_alone_follow_the_rules_of_arrays(name):
    """Options that are computed with among themselves never raise: 1 / 0 is infinity, (-8) ** (1/3) is NaN."""
    for operands in itertools.product([0.0, -8.0, 1 / 3, 1e300, -1.0], repeat=OPS[name].arity):
        value = Value(name, tuple(constant(v) for v in operands))
        (ours,) = evaluate([value], {}, torch_ops, {})
        with np.errstate(all="ignore"):
            theirs = OPS[name].value(numpy_ops, *(np.array([v]) for v in operands))
        assert isinstance(ours, float)
        assert same(np.array([ours]), np.asarray(theirs, dtype=float), 0.0).all()


@every_op
@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16"])
def test_types_are_kept(name, kind):
    row, number = OPS[name], 0.5
    for mask in itertools.product([False, True], repeat=row.arity):  # numbers in any place beside arrays
        if all(mask) or (name == "clip_gradient" and mask[0]):
            continue
        tensors = [number if m else torch.tensor([0.25, 0.75], dtype=getattr(torch, kind)) for m in mask]
        result = row.value(torch_ops, *tensors)
        if not isinstance(result, float):
            assert result.dtype == getattr(torch, kind), mask
        if kind != "bfloat16":
            arrays = [number if m else np.array([0.25, 0.75], dtype=kind) for m in mask]
            ours = np.asarray(row.value(numpy_ops, *arrays))
            assert ours.dtype == kind, mask
            assert np.allclose(ours, np.asarray(result), rtol=1e-6)


# ------------------------------------------------------------------------------------------------------ derivatives


def by_graph(name: str, operands: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
    leaves = [Value("input", (), ("H",), Rate.INPUT, name=f"a{k}") for k in range(len(operands))]
    d = Value("input", (), ("H",), Rate.INPUT, name="d")
    y = Value(name, tuple(leaves), ("H",))
    env = {d: seed, **dict(zip(leaves, operands, strict=True))}
    found = OPS[name].derivative(d, y, *leaves)
    assert len(found) == len(leaves)
    return [
        np.zeros_like(seed) if v is None else np.broadcast_to(Program([v])(numpy_ops, {}, dict(env))[0], seed.shape)
        for v in found
    ]


def by_torch(name: str, operands: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
    tensors = [torch.from_numpy(v.copy()).requires_grad_() for v in operands]
    y = OPS[name].value(torch_ops, *tensors)
    if not y.requires_grad:
        return [np.zeros_like(seed) for _ in tensors]
    gradients = torch.autograd.grad(y, tensors, torch.from_numpy(seed), allow_unused=True)
    return [np.zeros_like(seed) if v is None else v.numpy() for v in gradients]


def assert_gradients(name: str, operands: np.ndarray) -> None:
    seed = np.random.default_rng(1).standard_normal(operands.shape[1])
    for ours, theirs in zip(by_graph(name, operands, seed), by_torch(name, operands, seed), strict=True):
        wrong = ~same(ours, theirs, 1e-12, 1e-15)
        assert not wrong.any(), operands[:, wrong][:, :5].T.tolist()


@every_op
def test_derivatives_at_random_points(name):
    operands = 2 * np.random.default_rng(0).standard_normal((OPS[name].arity, 500))
    assert_gradients(name, np.abs(operands) if name == "clip_gradient" else operands)


@every_op
def test_derivatives_at_corners_infinities_and_nan(name):
    operands = grid(name)
    if name == "mod":  # the gradient in the divisor is a whole number that a rounded quotient may miss
        operands = operands[:, np.isfinite(operands).all(0) & (np.abs(operands[1]) >= 0.5)]
    assert_gradients(name, operands)


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("maximum", (1.0, 1.0), (0.5, 0.5)),
        ("minimum", (1.0, 1.0), (0.5, 0.5)),
        ("maximum", (2.0, 1.0), (1.0, 0.0)),
        ("minimum", (2.0, 1.0), (0.0, 1.0)),
        ("relu", (0.0,), (0.0,)),
        ("abs", (0.0,), (0.0,)),
        ("sqrt", (0.0,), (math.inf,)),
        ("floor", (1.5,), (0.0,)),
        ("stop", (1.5,), (0.0,)),
        ("pow", (0.0, 2.0), (0.0, 0.0)),
        ("pow", (2.0, 0.0), (0.0, math.log(2))),
        ("where", (1.0, 3.0, 4.0), (0.0, 1.0, 0.0)),
    ],
)
def test_corners(name, at, expected):
    operands = np.array(at)[:, None]
    for gradients in (by_graph(name, operands, np.ones(1)), by_torch(name, operands, np.ones(1))):
        assert [float(s[0]) for s in gradients] == pytest.approx(list(expected))


def test_gradients_are_clipped_on_the_way_back_only():
    operands, seed = np.array([[5.0, 5.0, 5.0], [0.5, 0.5, 0.5]]), np.array([-2.0, 0.1, 2.0])
    for gradients in (by_graph("clip_gradient", operands, seed), by_torch("clip_gradient", operands, seed)):
        assert gradients[0].tolist() == [-0.5, 0.1, 0.5]
    assert OPS["clip_gradient"].value(numpy_ops, *operands).tolist() == [5.0, 5.0, 5.0]


def test_unbounded_is_said_of_what_is_unbounded():
    """The derivative of the others stays below 1e3 wherever the operands do."""
    for name in POINTWISE:
        rows = np.array(list(itertools.product([1e-9, -1e-9, 0.5, 1.0, 30.0, -30.0, -1.0], repeat=OPS[name].arity))).T
        if name == "clip_gradient":
            rows[1] = np.abs(rows[1])
        gradients = by_graph(name, rows, np.ones(rows.shape[1]))
        biggest = max(
            np.max(np.abs(s[np.isfinite(s)]), initial=0.0) if np.isfinite(s).all() else math.inf for s in gradients
        )
        if name != "mod":  # its gradient in the divisor only
            assert (biggest > 1e3) == OPS[name].unbounded, (name, biggest)
