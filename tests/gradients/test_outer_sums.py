"""UORO against a loop that carries the whole vector over weights by torch's own operations, and its signs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gradients.forward_cases import BATCH, difference, found, layer_of, problem
from gradients.forward_cases import STEPS as STEPS_OF_CASES
from layer_cases import CASES, Case, make_layer
from tidegate.cells import CELLS
from tidegate.gradients import UORO, online
from tidegate.gradients.cost import Cost
from tidegate.gradients.influence import rank_one
from tidegate.gradients.influence.parameter_groups import Structure, add
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.gradients.influence.rank_one import random_signs
from tidegate.gradients.influence.step_values import StepValues, split
from tidegate.gradients.outer_sums import Additions
from tidegate.runtime import support

STEPS, I, H = 11, 3, 5  # noqa: E741 - the project's word for the input size


def by_hand(weights: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Tallec & Ollivier 2017, algorithm 1, of h' = tanh(W x + R h + b), for the loss of `forward_cases`."""
    signs, tiny = random_signs(5, 0, STEPS, (BATCH, H), x), 1e-7
    total = torch.zeros(H, I + H + 1, dtype=x.dtype)
    for b in range(BATCH):
        h = s = torch.zeros(H, dtype=x.dtype)
        over_weights = torch.zeros_like(total)
        for t in range(STEPS):
            read = torch.cat([x[t, b], h, torch.ones(1, dtype=x.dtype)])
            h = torch.tanh(weights["x"] @ x[t, b] + weights["h"] @ h + weights["bias"])
            slope, sign = 1 - h * h, signs[t, b]
            moved, new = slope * (weights["h"] @ s), torch.outer(sign * slope, read)
            keep = torch.sqrt(over_weights.norm() / (moved.norm() + tiny)) + tiny
            drive = torch.sqrt(new.norm() / (sign.norm() + tiny)) + tiny
            s, over_weights = keep * moved + drive * sign, over_weights / keep + new / drive
            total += ((target[t, b] + 0.6 * h) @ s) * over_weights
    return {"x": total[:, :I], "h": total[:, I : I + H], "bias": total[:, -1]}


@pytest.mark.parametrize("every", [None, 4])
def test_as_the_algorithm_is_written(every: int | None) -> None:
    layer = make_layer(CELLS["elman"], I, H)
    x = torch.randn(STEPS, BATCH, I, dtype=torch.float64)
    target = torch.randn(STEPS, BATCH, H, dtype=torch.float64)
    weights = {n.rpartition(".")[2]: p.detach() for n, p in layer.named_parameters()}
    right = by_hand(weights, x, target)
    named = {n: right[n.rpartition(".")[2]] for n, _ in layer.named_parameters()}
    assert difference(found(layer, x, target, UORO(every=every, seed=5)), named) < 1e-11


def test_signs_of_a_step_do_not_depend_on_where_a_call_begins() -> None:
    like = torch.zeros((), dtype=torch.float64)
    signs = random_signs(3, 0, 40, (3, 101), like)
    assert torch.equal(random_signs(3, 17, 23, (3, 101), like), signs[17:])
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / signs.numel() ** 0.5
    assert not torch.equal(random_signs(4, 0, 40, (3, 101), like), signs)
    assert abs(float((signs[1:] * signs[:-1]).mean())) < 4 / signs.numel() ** 0.5


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("parts", [1, 3])
def test_additions(parts: int, B: int) -> None:
    T, rows, V = 6, 4, 3
    given = torch.randn(B * parts, T, rows, dtype=torch.float64)
    read = torch.randn(B * parts, T, V, dtype=torch.float64)
    factors = torch.randn(B, T, dtype=torch.float64)
    new = Additions(given, read, parts)
    full = (given.unsqueeze(-1) * read.unsqueeze(-2)).unflatten(0, (B, parts)).transpose(1, 2).flatten(2)  # [B, T, w]
    torch.testing.assert_close(new.squares(), full.square().sum(2))
    torch.testing.assert_close(new.summed(factors).flatten(), torch.einsum("bt,btw->w", factors, full))


class Plain:
    """The recursion as it is written: whole Jacobians, a whole vector over weights, and a step after the other."""

    def __init__(self, found: Structure, layout: ParameterLayout, seed: int) -> None:
        self.groups, self.layout, self.seed = found.groups, layout, seed
        self.states = found.states
        self.places, self.D = layout.places(self.states)
        self.values = [*layout.read(self.groups), *layout.between(self.states)]

    def cost(self, rows: int) -> Cost:
        return Cost((), "", "", 0, 0)

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
            moved = (A[t] @ s.unsqueeze(2)).squeeze(2)
            new = [a[t] for a in added]
            keep = torch.sqrt(size(outer) / (moved.norm(dim=1) + tiny)) + tiny
            drive = torch.sqrt(size(new) / (signs[t].norm(dim=1) + tiny)) + tiny
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


def size(parts: list[Tensor]) -> Tensor:
    return torch.cat([p.flatten(1) for p in parts], 1).norm(dim=1)


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
    monkeypatch.setattr(rank_one, "AT_ONCE", 1)
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
