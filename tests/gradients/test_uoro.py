"""UORO against loops that write the algorithm out, with the same signs; its variance; and its signs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from gradients.forward_cases import BATCH, difference, found, layer_of, problem
from gradients.forward_cases import STEPS as STEPS_OF_CASES
from layer_cases import CASES, Case, make_layer
from tidegate.cells import CELLS
from tidegate.equations import cell, linear, matrix, tanh, total, weight
from tidegate.gradients import UORO, online
from tidegate.gradients.cost import Cost
from tidegate.gradients.influence import rank_one
from tidegate.gradients.influence.parameter_groups import Structure, add
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.gradients.influence.rank_one import random_signs
from tidegate.gradients.influence.step_values import StepValues, split
from tidegate.nn import Recurrent, Stack
from tidegate.reference import evaluate, torch_ops
from tidegate.runtime import support

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
STEPS, I, H = 11, 3, 5  # noqa: E741 - the project's word for the input size


def by_hand(step: Step, theta: Tensor, x: Tensor, target: Tensor, signs: Tensor) -> Tensor:
    """Tallec & Ollivier 2017, algorithm 1, for the loss of `forward_cases` of the last units of the state.

    `step(theta, state, x_t)` is one row's new state, `theta` all parameters, each once; `signs` are `[T, B, D]`.
    """
    tiny, total = 1e-7, torch.zeros_like(theta)
    for b in range(signs.shape[1]):
        state = s = torch.zeros(signs.shape[2], dtype=x.dtype)
        over_parameters = torch.zeros_like(theta)
        for t in range(len(x)):
            of_theta, of_state = jacrev(step, (0, 1))(theta, state, x[t, b])
            state, sign = step(theta, state, x[t, b]), signs[t, b]
            moved, new = of_state @ s, sign @ of_theta
            keep = torch.sqrt(over_parameters.norm() / (moved.norm() + tiny)) + tiny
            drive = torch.sqrt(new.norm() / (sign.norm() + tiny)) + tiny
            s, over_parameters = keep * moved + drive * sign, over_parameters / keep + new / drive
            n = target.shape[2]
            total += ((target[t, b] + 0.6 * state[-n:]) @ s[-n:]) * over_parameters
    return total


def elman(theta: Tensor, state: Tensor, x: Tensor) -> Tensor:
    W, R, bias = theta.split([H * I, H * H, H])
    return torch.tanh(W.view(H, I) @ x + R.view(H, H) @ state + bias)


@cell(states="h", source="a test: one matrix is read at two places")
def twice(x: Any, h: Any) -> Any:
    shared = matrix("m")
    h = tanh(shared @ tanh(linear("u", x) + shared @ h))
    return h


def of_twice(theta: Tensor, state: Tensor, x: Tensor) -> Tensor:
    M, W, bias = theta.split([H * H, H * I, H])
    return torch.tanh(M.view(H, H) @ torch.tanh(W.view(H, I) @ x + bias + M.view(H, H) @ state))


@cell(states="h", source="Tallec & Ollivier 2017, arXiv:1702.05043, section 4.2: influence balancing, and an input")
def balancing(x: Any, h: Any) -> Any:
    h = matrix("a", learn=False) @ h + weight("theta", 0.1, size=1) * weight("sign", learn=False) + total(x)
    return h


def of_tied(theta: Tensor, state: Tensor, x: Tensor) -> Tensor:
    W, R, bias, higher, b = theta.split([H * H, H * H, H, H * H, H])
    low = torch.tanh(W.view(H, H) @ x + R.view(H, H) @ state[:H] + bias)
    return torch.cat([low, torch.tanh(higher.view(H, H) @ low + R.view(H, H) @ state[H:] + b)])


def tied() -> Stack:
    stack = Stack(make_layer(CELLS["elman"], H, H), make_layer(CELLS["elman"], H, H))
    stack.layers[1].l0.h.h = stack.layers[0].l0.h.h
    return stack


UNITS = 23


def influence_balancing() -> Recurrent:
    """The paper's system: a unit takes half of itself and half of the next; the parameter drives ten units one way and
    the others the other way."""
    layer = Recurrent(balancing, I, UNITS, dtype=torch.float64)
    with torch.no_grad():
        layer.l0.a.copy_(0.5 * torch.eye(UNITS) + torch.diag(torch.full((UNITS - 1,), 0.5), 1))
        layer.l0.sign.copy_(torch.tensor([1.0] * 10 + [-1.0] * 13))
    return layer


def of_balancing(theta: Tensor, state: Tensor, x: Tensor) -> Tensor:
    layer = influence_balancing().l0
    return layer.a @ state + theta * layer.sign + x.sum()


NETS: dict[str, tuple[Callable[[], Any], Step]] = {
    "elman": (lambda: make_layer(CELLS["elman"], I, H), elman),
    "a matrix at two places": (lambda: make_layer(twice, I, H), of_twice),
    "a scalar for many units": (influence_balancing, of_balancing),
    "layers with a matrix in common": (tied, of_tied),
}


@pytest.mark.parametrize("every", [None, 4])
@pytest.mark.parametrize("name", NETS)
def test_as_the_algorithm_is_written(name: str, every: int | None) -> None:
    make, step = NETS[name]
    layer = make()
    theta = torch.cat([p.detach().flatten() for p in layer.parameters()])
    D = sum(s.numel() for (named,) in layer.initial_state(1).layers for s in named.values())
    x = torch.randn(STEPS, BATCH, layer.input_size, dtype=torch.float64)
    target = torch.randn(STEPS, BATCH, layer.output_size, dtype=torch.float64)
    right = by_hand(step, theta, x, target, random_signs(5, 0, STEPS, (BATCH, D), x))
    ours = found(layer, x, target, UORO(every=every, seed=5))
    ours = torch.cat([g.flatten() for g in ours.values()])
    torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)


def test_the_variance_of_a_shared_scalar_is_the_papers() -> None:
    """The paper's draws by the same signs are ours; with norms over the places that read the scalar they vary more."""
    layer, T, count = influence_balancing(), 12, 20_000
    x, target = torch.randn(T, 1, I, dtype=torch.float64), torch.randn(T, 1, UNITS, dtype=torch.float64)
    ours = torch.cat([found(layer, x, target, UORO(seed=n))["l0.theta"] for n in range(20)])
    signs = torch.cat([random_signs(n, 0, T, (1, UNITS), x) for n in range(count)], 1)
    draws, by_place = (draws_of_balancing(layer, x, target, signs, places) for places in (False, True))
    torch.testing.assert_close(ours, draws[:20], rtol=1e-9, atol=1e-9)
    exact = found(layer, x, target)["l0.theta"]
    assert abs(draws.mean() - exact) < 4 * draws.std() / count**0.5
    assert 1.2 * draws.var() < by_place.var()


def draws_of_balancing(layer: Recurrent, x: Tensor, target: Tensor, signs: Tensor, by_place: bool) -> Tensor:
    """As `by_hand`, for many draws of signs at once; `by_place` a unit has a parameter of its own, which are summed."""
    A, of_theta, theta, tiny = layer.l0.a.detach(), layer.l0.sign.detach(), layer.l0.theta.detach(), 1e-7
    state, s = torch.zeros(UNITS, dtype=x.dtype), torch.zeros_like(signs[0])
    w, totals = torch.zeros_like(s if by_place else s[:, :1]), torch.zeros_like(s[:, 0])
    for t, sign in enumerate(signs):
        state = A @ state + theta * of_theta + x[t].sum()
        moved, new = s @ A.T, sign * of_theta if by_place else (sign @ of_theta).unsqueeze(1)
        keep, drive = (
            torch.sqrt(a.norm(dim=1, keepdim=True) / (b.norm(dim=1, keepdim=True) + tiny)) + tiny
            for a, b in ((w, moved), (new, sign))
        )
        s, w = keep * moved + drive * sign, w / keep + new / drive
        totals += (s @ (target[t, 0] + 0.6 * state)) * w.sum(1)
    return totals


def test_signs_of_a_step_do_not_depend_on_where_a_call_begins() -> None:
    like = torch.zeros((), dtype=torch.float64)
    signs = random_signs(3, 0, 40, (3, 101), like)
    assert torch.equal(random_signs(3, 17, 23, (3, 101), like), signs[17:])
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / signs.numel() ** 0.5
    assert not torch.equal(random_signs(4, 0, 40, (3, 101), like), signs)
    assert abs(float((signs[1:] * signs[:-1]).mean())) < 4 / signs.numel() ** 0.5


class Plain:
    """The recursion as it is written: whole Jacobians, a whole vector over weights, and a step after the other."""

    def __init__(self, found: Structure, layout: ParameterLayout, seed: int) -> None:
        self.groups, self.layout, self.seed = found.groups, layout, seed
        self.states = found.states
        self.places, self.D = layout.places(self.states)
        self.values = [*layout.read(self.groups), *layout.between(self.states)]

    def cost(self, rows: int) -> Cost:
        return Cost((), "", "", 0, 0, 0)

    def begin(self, rows: int, like: Tensor) -> dict[str, Tensor]:
        outer = {f"outer.{k}": like.new_zeros(rows, *self.layout.shape(g)) for k, g in enumerate(self.groups)}
        return {"s": like.new_zeros(rows, self.D), "count": torch.tensor(0), **outer}

    def advance(self, memory: dict[str, Tensor], steps: StepValues, adjoints: Any) -> Any:
        tiny, count = 1e-7, int(memory["count"])
        A, signs = steps.matrix(self.states), random_signs(self.seed, count, steps.T, (steps.B, self.D), steps.like)
        by_state = {name: signs[..., place] for name, place in self.places.items()}
        added = [steps.pulled(g, by_state).unsqueeze(-1) * steps.read(g) for g in self.groups]
        s, outer = memory["s"], [memory[f"outer.{k}"] for k in range(len(self.groups))]
        gradient: dict[Any, Tensor] = {}
        for t in range(steps.T):
            if steps.fresh is not None:
                s, *outer = (v.clone() for v in (s, *outer))
                for v in (s, *outer):
                    v[steps.fresh[t]] = 0
            moved = (A[t] @ s.unsqueeze(2)).squeeze(2)
            new = [a[t] for a in added]
            keep = torch.sqrt(self.size(outer, steps) / (moved.norm(dim=1) + tiny)) + tiny
            drive = torch.sqrt(self.size(new, steps) / (signs[t].norm(dim=1) + tiny)) + tiny
            s = keep[:, None] * moved + drive[:, None] * signs[t]
            outer = [o / keep[:, None, None] + n / drive[:, None, None] for o, n in zip(outer, new, strict=True)]
            if adjoints is not None:
                share = sum((adjoints[n][t] * s[:, p]).sum(1) for n, p in self.places.items())
                for group, o in zip(self.groups, outer, strict=True):
                    add(gradient, split(group, torch.einsum("b,brv->rv", share, o), self.layout))
        outers = {f"outer.{k}": o for k, o in enumerate(outer)}
        return {"s": s, "count": torch.tensor(count + steps.T), **outers}, gradient

    def gradient(self, memory: dict[str, Tensor], adjoints: Any) -> Any:
        return {}

    def size(self, parts: list[Tensor], steps: StepValues) -> Tensor:
        """The norm over parameters, `[B]`."""
        found = self.layout.structure
        weights = {v: steps.env[v].detach().requires_grad_() for v in found.graph.weights.values()}
        with torch.enable_grad():
            values = evaluate(found.parameters, dict(weights), torch_ops, self.layout.sizes)
        learned = [w for v, w in weights.items() if v.attrs["learn"]]
        norms = []
        for b in range(steps.B):
            of_values: dict[Any, Tensor] = {}
            for group, part in zip(self.groups, parts, strict=True):
                add(of_values, split(group, part[b], self.layout))
            given = [of_values[v] for v in found.parameters]
            each = torch.autograd.grad(values, learned, given, retain_graph=True, materialize_grads=True)
            norms.append(torch.cat([g.flatten() for g in each]).norm())
        return torch.stack(norms)


class PlainUORO(UORO):
    """The rule by that tracker."""

    def _trackers(self, found: Structure, layout: ParameterLayout) -> Any:
        return [Plain(found, layout, self.seed)] if found.groups else []


def agree(case: Case, **more: Any) -> None:
    layer = layer_of(case)
    x, target = problem(case, layer)
    assert (
        difference(found(layer, x, target, UORO(seed=3), **more), found(layer, x, target, PlainUORO(seed=3), **more))
        < 1e-9
    )


FEW = [case for case in CASES if str(case) in ("lstm", "gru_reset_after", "slstm", "scrn", "told_once")]
cases = pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c in FEW else pytest.mark.slow) for c in CASES], ids=str
)


@cases
def test_cells_are_the_recursion_as_it_is_written(case: Case) -> None:
    agree(case)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_resets_and_lengths(case: Case) -> None:
    reset = torch.zeros(STEPS_OF_CASES, BATCH, dtype=torch.bool)
    reset[4, 0] = reset[7, 2] = True
    agree(case, reset=reset)
    agree(case, lengths=torch.tensor([STEPS_OF_CASES, 0, 6]))
    agree(case, lengths=torch.tensor([9, STEPS_OF_CASES, 6]), reset=reset)


DEEP = ("lstm",)  # the others take seconds each


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if str(c) in DEEP else pytest.mark.slow) for c in FEW], ids=str
)
def test_layers_above_each_other_and_the_reference_path(case: Case) -> None:
    layer = layer_of(case, 2)
    x, target = problem(case, layer)
    right = found(layer, x, target, PlainUORO(seed=3))
    assert difference(found(layer, x, target, UORO(seed=3)), right) < 1e-9
    with support.disabled():
        assert difference(found(layer, x, target, UORO(seed=3)), right) < 1e-9


def test_a_long_sequence_is_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_one, "CHUNK_ELEMENTS", 1)
    agree(next(case for case in CASES if str(case) == "lstm"))


@pytest.mark.parametrize("shape", [(5, 0), (0, 2)])
def test_nothing_to_do(shape: tuple[int, int]) -> None:
    layer = make_layer(CELLS["lstm"], I, H)
    x, target = (torch.randn(*shape, n, dtype=torch.float64) for n in (I, H))
    assert not any(g.any() for g in found(layer, x, target, UORO()).values())


@pytest.mark.parametrize("name", ["elman", "lstm"])
def test_what_is_carried_on_is_left_as_it_is(name: str) -> None:
    layer = make_layer(CELLS[name], I, H)
    x = torch.randn(3, BATCH, I, dtype=torch.float64)
    learner = online(layer, UORO())
    _, memory = learner.step(learner.begin(BATCH), x[0])
    before = {name: t.clone() for name, t in memory.tensors().items()}
    ends = [learner.step(memory, x[1])[1].tensors() for _ in range(2)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in before)
    assert all(torch.equal(before[name], t) for name, t in memory.tensors().items())
