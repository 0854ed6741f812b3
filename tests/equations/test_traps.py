"""The traps of docs/language.md, shown and avoided: what goes wrong, and that the advice helps."""

import math
import warnings

import numpy as np
import pytest
import torch

from tidegate.equations import (
    Cell,
    cell,
    exp,
    expm1,
    linear,
    log,
    log_sigmoid,
    maximum,
    minimum,
    relu,
    sigmoid,
    softplus,
    sqrt,
    stop,
    straight_through,
    tanh,
    weight,
    where,
)
from tidegate.errors import TidegateNotice
from tidegate.reference import bound, numpy_ops, step, torch_ops, weight_shape

SIZES = {"I": 3, "H": 3}


def gradients_at(made: Cell, h: list[float], kind: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """The new state and its gradient in the old one, with every weight 0."""
    weights = {k: torch.zeros(weight_shape(w, SIZES), dtype=kind) for k, w in made.graph.weights.items()}
    old = torch.tensor([h], dtype=kind, requires_grad=True)
    inputs = {i.name: torch.zeros(1, *bound(i.size, SIZES), dtype=kind) for i in made.graph.inputs}
    _, new = step(made.graph, weights, inputs, {"h": old}, torch_ops, SIZES)
    (gradient,) = torch.autograd.grad(new["h"].sum(), old)
    return new["h"].detach(), gradient


def state_cell(expression) -> Cell:
    """h' = expression(h), beside an input that has no effect."""

    def tried(x, h):
        return expression(h) + linear("a", x)

    return cell(states="h", source="a trap")(tried)


# ------------------------------------------------------------------------------------------- where and derivatives


def test_where_does_not_protect_derivatives():
    """0 times infinity: the branch that is not taken makes the gradient NaN, and the reader of cells has warned."""

    def unguarded(x, h):
        h = where(h > 0, log(h), 0.0) + linear("a", x)  # here
        return h

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = cell(states="h", source="a trap")(unguarded)
    (warning,) = caught
    assert warning.category is TidegateNotice
    assert str(warning.message) == (
        "cell 'unguarded': where(...) selects values but does not protect derivatives: 'log' in a branch may have an "
        "infinite derivative where the branch is not taken, which makes the gradient NaN; guard its argument, as in "
        "log(maximum(v, 1e-6))"
    )
    assert (warning.filename, warning.lineno) == (__file__, unguarded.__code__.co_firstlineno + 1)
    values, gradient = gradients_at(made, [1.0, 0.0, -1.0])
    assert values.tolist() == [[0.0, 0.0, 0.0]]
    assert gradient[0, 0] == 1.0
    assert torch.isnan(gradient[0, 1])


def test_a_guarded_argument_does_not_warn_and_has_a_gradient():
    made = state_cell(lambda h: where(h > 0, log(maximum(h, 1e-6)), 0.0))  # a warning would be an error here
    _, gradient = gradients_at(made, [1.0, 0.0, -1.0])
    assert gradient.tolist() == [[1.0, 0.0, 0.0]]


WARNED = {
    "log": lambda h: where(h > 0, log(h), 0.0),
    "sqrt": lambda h: where(h > 0, 0.0, sqrt(h)),
    "exp": lambda h: where(h < 9, exp(h), 0.0),
    "div": lambda h: where(h > 0, 1.0 / h, 0.0),
    "pow": lambda h: where(h > 0, h**0.5, 0.0),
    "expm1": lambda h: where(h < 9, tanh(expm1(h)) * h, 0.0),
}


@pytest.mark.parametrize("name", WARNED)
def test_warned_of(name):
    with pytest.warns(TidegateNotice, match=rf"does not protect derivatives: '{name}' in a branch"):
        state_cell(WARNED[name])


@pytest.mark.parametrize(
    "expression",
    [
        lambda h: where(h < 9, exp(minimum(h, 9.0)), 0.0),
        lambda h: where(h > 0, h / 2.0, h**2),
        lambda h: where(h > 0, h**3.0, tanh(h)),
        lambda h: where(h > 0, sqrt(maximum(h, 1e-6)), 0.0),
        lambda h: where(h > 0, stop(log(h)) * h, 0.0),
        lambda h: where(h > 0, h / exp(weight("w")), 0.0),
        lambda h: where(log(maximum(h, 1e-6)) > 0, h, 0.0),
        lambda h: log(h),
    ],
)
def test_not_warned_of(expression):
    state_cell(expression)


# ----------------------------------------------------------------------------------------------- float32 at its ends


def test_log_sigmoid_is_its_own_function():
    """log(sigmoid(-120)) is -inf in float32, with a gradient that is NaN; log_sigmoid is -120, with gradient 1."""
    at = [-120.0, 0.0, 120.0]
    values, gradient = gradients_at(state_cell(log_sigmoid), at, torch.float32)
    assert values[0].tolist() == pytest.approx([-120.0, -math.log(2), 0.0], rel=1e-7)
    assert gradient.tolist() == [[1.0, 0.5, 0.0]]
    naive, naive_gradient = gradients_at(state_cell(lambda h: log(sigmoid(h))), at, torch.float32)
    assert naive[0, 0] == -math.inf
    assert torch.isnan(naive_gradient[0, 0])


def test_shares_of_two_gates():
    """f / (f + i) is 0/0 at -120 in float32; the sigmoid of the difference of their logarithms is 1/2."""
    share = state_cell(lambda h: sigmoid(log_sigmoid(h) - log_sigmoid(h + linear("zero", h))))
    values, gradient = gradients_at(share, [-120.0, 0.0, 50.0], torch.float32)
    assert values.tolist() == [[0.5, 0.5, 0.5]]
    assert torch.isfinite(gradient).all()
    naive, _ = gradients_at(
        state_cell(lambda h: sigmoid(h) / (sigmoid(h) + sigmoid(h))), [-120.0, 0.0, 50.0], torch.float32
    )
    assert torch.isnan(naive[0, 0])


def test_complement_of_a_modulus_near_one():
    """sqrt(1 - a^2) loses every digit near a = 1 in float32; -expm1(2 log a) keeps them."""
    log_a = [-1e-9, -1e-5, -1.0]
    exact = [math.sqrt(max(-math.expm1(2 * v), 1e-6)) for v in log_a]
    careful, gradient = gradients_at(state_cell(lambda h: sqrt(maximum(-expm1(2.0 * h), 1e-6))), log_a, torch.float32)
    assert careful[0].tolist() == pytest.approx(exact, rel=1e-6)
    assert torch.isfinite(gradient).all()
    naive, naive_gradient = gradients_at(state_cell(lambda h: sqrt(1.0 - exp(h) ** 2)), log_a, torch.float32)
    assert naive[0, 0] == 0.0
    assert not torch.isfinite(naive_gradient[0, 0])
    assert abs(naive[0, 1] / exact[1] - 1) > 1e-4


def test_softplus_neither_overflows_nor_turns_linear_early():
    values, gradient = gradients_at(state_cell(softplus), [800.0, 21.0, -800.0])
    assert values.tolist() == [[800.0, 21.0 + math.log1p(math.exp(-21.0)), 0.0]]
    assert gradient.tolist() == [[1.0, pytest.approx(1 / (1 + math.exp(-21.0)), rel=1e-15), 0.0]]


# ----------------------------------------------------------------------------------------------- corners, gradients


def test_corners_in_a_cell_are_torchs():
    assert gradients_at(state_cell(relu), [0.0, 1.0, -1.0])[1].tolist() == [[0.0, 1.0, 0.0]]
    assert gradients_at(state_cell(abs), [0.0, 1.0, -1.0])[1].tolist() == [[0.0, 1.0, -1.0]]
    assert gradients_at(state_cell(lambda h: maximum(h, 1.0)), [0.0, 1.0, 2.0])[1].tolist() == [[0.0, 0.5, 1.0]]
    assert gradients_at(state_cell(lambda h: minimum(h, 1.0)), [0.0, 1.0, 2.0])[1].tolist() == [[1.0, 0.5, 0.0]]
    assert gradients_at(state_cell(sqrt), [0.0, 1.0, 4.0])[1].tolist() == [[math.inf, 0.5, 0.25]]


def test_straight_through():
    made = state_cell(lambda h: straight_through(h > 0.5, sigmoid(h)))
    values, gradient = gradients_at(made, [0.0, 1.0, -2.0])
    assert values.tolist() == [[0.0, 1.0, 0.0]]
    expected = [v * (1 - v) for v in (1 / (1 + math.exp(-h)) for h in (0.0, 1.0, -2.0))]
    assert gradient[0].tolist() == pytest.approx(expected, rel=1e-15)


# ------------------------------------------------------------------------------------------------- missing, counters


def test_missing_values_are_replaced_before_a_product():
    """NaN times a mask of 0 is NaN; `where` takes the other value, in the gradient too."""

    @cell(states="h", inputs="x:H m:H", source="a trap")
    def careful(x, m, h):
        filled = where(m > 0.5, x, h)
        h = tanh(linear("a", x=filled, h=h))
        return h

    @cell(states="h", inputs="x:H m:H", source="a trap")
    def careless(x, m, h):
        h = tanh(linear("a", x=m * x + (1.0 - m) * h, h=h))
        return h

    x = torch.tensor([[math.nan, 1.0, 2.0]])
    for made, sound in ((careful, True), (careless, False)):
        chance = torch.Generator().manual_seed(0)
        weights = {
            k: torch.randn(weight_shape(w, SIZES), generator=chance).requires_grad_()
            for k, w in made.graph.weights.items()
        }
        y, _ = step(made.graph, weights, {"x": x, "m": (~x.isnan()).float()}, {"h": torch.ones(1, 3)}, torch_ops, SIZES)
        gradients = torch.autograd.grad(y.sum(), list(weights.values()))
        assert all(torch.isfinite(v).all() for v in (y, *gradients)) == sound


def test_counters_wrap():
    """In float32 a counter stops counting at 2^24; with % it goes on for ever."""

    @cell(states="h | n:1", source="a trap")
    def counted(x, h, n):
        h = where(n < 1.0, tanh(linear("a", x, h)), h)
        n = (n + 1.0) % 4.0
        return h, n

    weights = {k: np.zeros(weight_shape(w, SIZES), np.float32) for k, w in counted.graph.weights.items()}
    n, seen = np.zeros((1, 1), np.float32), []
    for _ in range(9):
        _, new = step(
            counted.graph,
            weights,
            {"x": np.zeros((1, 3), np.float32)},
            {"h": n * np.ones((1, 3), np.float32), "n": n},
            numpy_ops,
            SIZES,
        )
        n = new["n"]
        seen.append(float(n[0, 0]))
    assert seen == [1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0]
    assert np.float32(2**24) + np.float32(1) == np.float32(2**24)


def test_old_and_new_value_of_a_state():
    """The parameter is the old value; bound again, the name is the new one. A linear says which by its label."""

    @cell(states="h c", source="a trap")
    def both(x, h, c):
        before = linear("before", h, c)
        c = tanh(linear("c", x, h, c))
        h = before + linear("after", c=c)
        return h, c

    first, second = (v for v in both.graph.values if v.op == "linear" and v.attrs["linear"] in ("before", "after"))
    assert first.args[3].op == "old"
    assert second.args[1] is both.graph.new["c"]


def test_starts_are_kept_as_declared():
    @cell(states="h c:1=0.5 | m=-1e9", source="a trap")
    def started(x, h, c, m):
        h = tanh(linear("a", x, h)) * c
        m = maximum(m, h)
        return h, c * 0.5, m

    assert [(s.name, s.start, s.bookkeeping) for s in started.graph.states] == [
        ("h", 0.0, False),
        ("c", 0.5, False),
        ("m", -1e9, True),
    ]
    assert "  states h:H c:1=0.5 |m:H=-1e+09\n" in started.print()
    again = Cell.from_json(started.to_json())
    assert again.graph.states == started.graph.states
