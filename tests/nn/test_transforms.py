"""Layers on native kernels under torch's transforms: derivatives of every kind, against the reference path."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils import _pytree as pytree

from layer_cases import make_layer
from tidegate.cells import CELLS
from tidegate.equations import cell, linear, mean, sigmoid, softplus, tanh, weight
from tidegate.nn import Recurrent, State
from tidegate.runtime import support

T, B, I, H = 3, 2, 3, 4  # noqa: E741 - the project's word for the input size
LENGTHS = [3, 2]
# torch's own, in forward mode
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


@cell(states="h c", inputs="x who:I@sequence", output="y", source="a test: every kind of value that has a gradient")
def mixed(x, who, h, c):
    k = sigmoid(linear("k", x, h, who) + weight("p", init=0.3) * c)
    c = k * c + (1 - k) * tanh(linear("n", x, g=k * h))
    h = softplus(c) * weight("s", size=1, init=0.5) + mean(c)
    return tanh(linear("y", g=h)), h, c


class Problem:
    """A layer as a function of plain tensors: weights by name, input, state."""

    def __init__(self, name: str) -> None:
        self.layer: Recurrent = make_layer(mixed if name == "mixed" else CELLS[name], I, H)
        self.weights = {n: p.detach() for n, p in self.layer.named_parameters()}
        self.x = torch.randn(T, B, I, dtype=torch.float64)
        self.state = self.layer.initial_state(B).map(torch.randn_like)
        self.who = torch.randn(B, I, dtype=torch.float64)

    def call(self, weights: Any, x: Tensor, state: State, **options: Any) -> dict[str, Tensor]:
        several = len(self.layer.graph.inputs) > 1
        given = {"x": x, "who": self.who} if several else x
        y, end = functional_call(self.layer, weights, (given, state), options)
        return {"y": y, **end.layers[0][0]}

    def loss(self, weights: Any, x: Tensor, state: State) -> Tensor:
        found = self.call(weights, x, state, lengths=LENGTHS)
        return sum((v.sin().sum() for v in found.values()), torch.zeros(())).reshape(())

    @property
    def point(self) -> tuple[Any, Tensor, State]:
        return self.weights, self.x, self.state


@pytest.fixture(params=["mixed", "lstm", "gru"])
def problem(request: pytest.FixtureRequest) -> Problem:
    return Problem(request.param)


def assert_as_reference(compute: Callable[[], Any], tolerance: float = 1e-11) -> None:
    """The same values on kernels and on the reference path, and not all of them zero."""
    ours = pytree.tree_leaves(compute())
    with support.disabled():
        theirs = pytree.tree_leaves(compute())
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max()
    assert any(b.any() for b in theirs)


def like(point: Any, seed: int = 5) -> Any:
    chance = torch.Generator().manual_seed(seed)
    return pytree.tree_map(lambda t: torch.randn(t.shape, dtype=t.dtype, generator=chance), point)


def test_forward_mode(problem: Problem) -> None:
    assert_as_reference(lambda: jvp(problem.call, problem.point, like(problem.point)))

    def of_x(x: Tensor) -> Any:
        return problem.call(problem.weights, x, problem.state)

    assert_as_reference(lambda: jvp(of_x, (problem.x,), like((problem.x,))))


def test_forward_mode_by_dual_numbers(problem: Problem) -> None:
    def along() -> Any:
        with forward_ad.dual_level():
            tangents = like(problem.weights)
            weights = {n: forward_ad.make_dual(w, tangents[n]) for n, w in problem.weights.items()}
            found = problem.call(weights, problem.x, problem.state, lengths=LENGTHS)
            return [forward_ad.unpack_dual(v).tangent for v in found.values()]

    assert_as_reference(along)


def test_reverse_mode(problem: Problem) -> None:
    assert_as_reference(lambda: grad(problem.loss, (0, 1, 2))(*problem.point))
    y, _ = vjp(problem.call, *problem.point)
    assert_as_reference(lambda: vjp(problem.call, *problem.point)[1](like(y)))


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians(problem: Problem, jacobian: Any) -> None:
    assert_as_reference(lambda: jacobian(problem.call, (0, 1, 2))(*problem.point))


@pytest.mark.parametrize("order", [hessian, lambda f: jacrev(jacrev(f)), lambda f: jacrev(jacfwd(f))])
def test_hessians(problem: Problem, order: Any) -> None:
    assert_as_reference(lambda: order(lambda x: problem.loss(problem.weights, x, problem.state))(problem.x))
    assert_as_reference(lambda: order(lambda w: problem.loss(w, problem.x, problem.state))(problem.weights))


def test_forward_over_reverse(problem: Problem) -> None:
    gradient = grad(problem.loss, (0, 1, 2))
    assert_as_reference(lambda: jvp(gradient, problem.point, like(problem.point)))


def test_batches_of_calls(problem: Problem) -> None:
    xs = torch.randn(5, T, B, I, dtype=torch.float64)
    assert_as_reference(lambda: vmap(lambda x: problem.call(problem.weights, x, problem.state))(xs))
    moved = xs.permute(1, 2, 0, 3)
    assert_as_reference(lambda: vmap(lambda x: problem.call(problem.weights, x, problem.state), 2)(moved))
    several = pytree.tree_map(lambda t: torch.stack([t, 2 * t, -t]), problem.weights)
    assert_as_reference(lambda: vmap(lambda w: problem.call(w, problem.x, problem.state))(several))
    states = problem.state.map(lambda t: torch.stack([t, 2 * t, -t]))
    assert_as_reference(lambda: vmap(lambda s: problem.call(problem.weights, problem.x, s, lengths=LENGTHS))(states))


def test_batches_of_resets(problem: Problem) -> None:
    resets = torch.rand(4, T, B) < 0.5
    assert_as_reference(
        lambda: vmap(lambda r: problem.call(problem.weights, problem.x, problem.state, reset=r))(resets)
    )


def test_gradients_for_each_sample(problem: Problem) -> None:
    xs = torch.randn(5, T, B, I, dtype=torch.float64)
    each = vmap(grad(problem.loss, (0, 1, 2)), (None, 0, None))
    assert_as_reference(lambda: each(problem.weights, xs, problem.state))


def test_the_gradient_of_a_batch_of_calls(problem: Problem) -> None:
    xs = torch.randn(5, T, B, I, dtype=torch.float64)

    def loss(weights: Any) -> Tensor:
        return vmap(problem.loss, (None, 0, None))(weights, xs, problem.state).sum()

    assert_as_reference(lambda: grad(loss)(problem.weights))


def test_a_gradient_of_gradients(problem: Problem) -> None:
    leaves = [t.clone().requires_grad_() for t in pytree.tree_leaves(problem.point)]
    shape = pytree.tree_structure(problem.point)

    def twice() -> Any:
        first = torch.autograd.grad(problem.loss(*pytree.tree_unflatten(leaves, shape)), leaves, create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in first), leaves, create_graph=True)
        third = torch.autograd.grad(sum(g.sin().sum() for g in second), leaves)
        return first, second, third

    assert_as_reference(twice)


def test_second_derivatives_are_those_of_differences(problem: Problem) -> None:
    leaves = [t.clone().requires_grad_() for t in (problem.x, *problem.state.layers[0][0].values())]
    names = list(problem.state.layers[0][0])

    def run(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return tuple(problem.call(problem.weights, x, State([[dict(zip(names, states, strict=True))]])).values())

    assert torch.autograd.gradcheck(run, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, leaves, check_fwd_over_rev=True)
