"""Captured gradients of whole sequences, against back-propagation and the general way."""

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gradients import forward_cases
from gradients.forward_cases import HIDDEN, INPUT, difference, loss
from gradients.test_captured_run import CASES, layer_of, problem
from layer_cases import CASES as CASES_OF_LAYERS
from layer_cases import Case
from tidegate.gradients import BPTT, RFLO, RTRL, UORO, EProp, Forward, SnAp, gradient
from tidegate.gradients.influence.captured_gradient import CapturedGradient
from tidegate.nn import Recurrent, Stack
from tidegate.runtime import support
from tidegate.runtime.feedforward import rows_at_once

pytestmark = pytest.mark.kernels
Tensors = dict[str, Tensor]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call found all as it was."""
    found: list[bool] = []
    usual = CapturedGradient.__call__

    def call(self: CapturedGradient, *given: Any) -> Any:
        answer = usual(self, *given)
        found.append(answer is not None)
        return answer

    monkeypatch.setattr(CapturedGradient, "__call__", call)
    return found


@pytest.fixture
def generally(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensors]:
    """Gradients by the general way."""

    def by_it(*given: Any, **more: Any) -> Tensors:
        with monkeypatch.context() as patch:
            patch.setattr(CapturedGradient, "__call__", lambda *_: None)
            return gradient(*given, **more)

    return by_it


def warm(layer: nn.Module, x: Tensor, target: Tensor, rule: Forward) -> None:
    """The first call of a kind is like no other, and the second makes what the later ones find."""
    for _ in range(2):
        gradient(layer, x, target, loss, rule=rule)


@pytest.mark.parametrize(("name", "rule"), CASES, ids=str)
@pytest.mark.parametrize(("steps", "rows"), [(12, 3), (41, 1), (1, 2)])
def test_is_the_general_way(
    name: str, rule: Forward, steps: int, rows: int, answers: list[bool], generally: Any
) -> None:
    layer = layer_of(name)
    for _ in range(4):
        x, target = problem(layer, steps, rows)
        right = generally(layer, x, target, loss, rule=rule)
        assert difference(gradient(layer, x, target, loss, rule=rule), right) < 1e-12
    assert set(answers) == {True}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if str(c) == "broadcast" else pytest.mark.slow) for c in CASES_OF_LAYERS],
    ids=str,
)
def test_every_cell(case: Case, generally: Any) -> None:
    layer = forward_cases.layer_of(case)
    rules = [rule for rule in (RTRL(), SnAp(), RFLO(), EProp(), UORO(seed=1)) if rule.supports(layer)]
    named, target = forward_cases.problem(case, layer)
    x = next(iter(named.values())) if len(named) == 1 else named
    for rule in rules:
        right = generally(layer, x, target, loss, rule=rule)
        for _ in range(3):
            assert difference(gradient(layer, x, target, loss, rule=rule), right) < 1e-9


@pytest.mark.parametrize("name", ["min_gru", "min_lstm", "lru", "indrnn", "sru"])
@pytest.mark.parametrize("steps", [97, 240])
def test_exact_rtrl_is_bptt(name: str, steps: int, answers: list[bool]) -> None:
    layer = layer_of(name)
    x, target = problem(layer, steps, 2)
    right = gradient(layer, x, target, loss, rule=BPTT())
    for _ in range(3):
        assert difference(gradient(layer, x, target, loss, rule=RTRL()), right) < 1e-9
    assert set(answers) == {True}


def test_layers_above_each_other(generally: Any) -> None:
    stack = Stack(layer_of("indrnn"), Recurrent("min_gru", HIDDEN, 4, dtype=torch.float64))
    x, target = torch.randn(9, 2, INPUT, dtype=torch.float64), torch.randn(9, 2, 4, dtype=torch.float64)
    for layer in (layer_of("min_gru", layers=2), stack):
        right = generally(layer, x, target[..., :1], loss, rule=SnAp())
        for _ in range(3):
            assert difference(gradient(layer, x, target[..., :1], loss, rule=SnAp()), right) < 1e-12


@pytest.mark.parametrize("name", ["min_gru", "sru"])
def test_what_is_learned_besides(name: str, answers: list[bool], generally: Any) -> None:
    """A readout, and a loss that reads the layer's own weights."""
    layer, readout = layer_of(name), nn.Linear(HIDDEN, 2, dtype=torch.float64)
    x, target = problem(layer)

    def decaying(outputs: Tensor, wanted: Tensor) -> Tensor:
        weights = sum((p**3).sum() for p in layer.parameters())
        return loss(outputs, wanted[..., :2]) + weights

    right = generally(layer, x, target, decaying, rule=RTRL(), readout=readout)
    for _ in range(3):
        found = gradient(layer, x, target, decaying, rule=RTRL(), readout=readout)
        assert list(found) == list(right)
        assert difference(found, right) < 1e-12
    assert set(answers) == {True}


def test_a_loss_that_reads_no_output() -> None:
    layer = layer_of("min_gru")
    x, target = problem(layer)
    other = next(layer.parameters())
    for _ in range(3):
        found = gradient(layer, x, target, lambda *_: (2.0 * other).sum(), rule=RTRL())
        assert torch.equal(found.pop("l0.z.x"), torch.full_like(other, 2.0))
        assert all(not g.any() for g in found.values())


@pytest.mark.parametrize("name", ["min_gru", "sru"])
def test_outputs_are_the_callers_own(name: str, generally: Any) -> None:
    """They may be changed in place, and stay as they are while others are computed."""
    layer = layer_of(name)
    x, target = problem(layer)
    warm(layer, x, target, RTRL())
    kept: list[Tensor] = []

    def changing(outputs: Tensor, wanted: Tensor) -> Tensor:
        kept.append(outputs)
        return loss(outputs.mul_(2.0), wanted)

    right = generally(layer, x, target, lambda y, wanted: loss(2.0 * y, wanted), rule=RTRL())
    assert difference(gradient(layer, x, target, changing, rule=RTRL()), right) < 1e-12
    before = kept[0].detach().clone()
    gradient(layer, -x, target, changing, rule=RTRL())
    assert torch.equal(kept[0], before)
    assert not torch.equal(kept[1], before)


def test_gradients_are_the_callers_own() -> None:
    layer = layer_of("sru")
    x, target = problem(layer)
    warm(layer, x, target, RTRL())
    found = gradient(layer, x, target, loss, rule=RTRL())
    before = {name: g.clone() for name, g in found.items()}
    gradient(layer, -x, target, loss, rule=RTRL())
    assert all(torch.equal(found[name], g) for name, g in before.items())


def multiply(layer: Recurrent) -> None:
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(1.3)


def replace_a_parameter(layer: Recurrent) -> None:
    cell: Any = layer.l0
    cell.z.x = nn.Parameter(cell.z.x.detach() * 0.7)


def move_the_numbers(layer: Recurrent) -> None:
    cell: Any = layer.l0
    cell.z.x.data = cell.z.x.data * 0.7


def replace_the_cell(layer: Recurrent) -> None:
    layer.l0 = layer_of("min_gru").l0


def parametrise(layer: Recurrent) -> None:
    cell: Any = layer.l0
    parametrize.register_parametrization(cell.z, "x", nn.Tanh())


def hook(layer: Recurrent) -> None:
    layer.register_forward_hook(lambda _module, _given, found: (0.5 * found[0], found[1]))


def freeze(layer: Recurrent) -> None:
    next(layer.parameters()).requires_grad_(False)


CHANGES = [multiply, replace_a_parameter, move_the_numbers, replace_the_cell, parametrise, hook, freeze]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_was_changed_is_seen(change: Callable[[Recurrent], None]) -> None:
    layer = layer_of("min_gru")
    x, target = problem(layer)
    warm(layer, x, target, RTRL())
    before = gradient(layer, x, target, loss, rule=RTRL())
    change(layer)
    right = gradient(layer, x, target, loss, rule=BPTT())
    for _ in range(3):
        found = gradient(layer, x, target, loss, rule=RTRL())
        assert difference(found, right) < 1e-12
        assert found.keys() != before.keys() or difference(found, before) > 1e-3


def test_training_with_dropout_draws() -> None:
    layer = Recurrent("min_gru", INPUT, HIDDEN, num_layers=2, dropout=0.5, dtype=torch.float64)
    x, target = problem(layer)
    layer.eval()
    warm(layer, x, target, SnAp())
    still = gradient(layer, x, target, loss, rule=SnAp())
    layer.train()
    drawn = [gradient(layer, x, target, loss, rule=SnAp()) for _ in range(3)]
    assert all(difference(each, still) > 1e-3 for each in drawn)
    assert difference(drawn[1], drawn[2]) > 1e-3


def test_no_answer_for_what_is_out_of_the_ordinary(answers: list[bool]) -> None:
    layer = layer_of("min_gru")
    x, target = problem(layer)
    warm(layer, x, target, RTRL())
    answers.clear()
    right = gradient(layer, x, target, loss, rule=BPTT())
    uneven = x.transpose(0, 2).contiguous().transpose(0, 2)
    assert difference(gradient(layer, uneven, target, loss, rule=RTRL()), right) < 1e-12
    assert difference(gradient(layer, {"x": x}, target, loss, rule=RTRL()), right) < 1e-12
    assert difference(gradient(layer, x, target, loss, rule=RTRL(), lengths=[len(x)] * x.shape[1]), right) < 1e-12
    with support.disabled():
        assert difference(gradient(layer, x, target, loss, rule=RTRL()), right) < 1e-12
    assert answers == [False]


def test_a_loss_that_fails_leaves_nothing_behind() -> None:
    layer = layer_of("sru")
    x, target = problem(layer)
    warm(layer, x, target, RTRL())
    right = gradient(layer, x, target, loss, rule=RTRL())

    def failing(outputs: Tensor, _: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gradient(layer, x, target, failing, rule=RTRL())
    assert difference(gradient(layer, x, target, loss, rule=RTRL()), right) == 0.0


def test_a_gradient_within_a_loss() -> None:
    layer = layer_of("sru")
    x, target = problem(layer)
    warm(layer, x, target, RTRL())
    right, other = (gradient(layer, each, target, loss, rule=RTRL()) for each in (x, -x))
    inner: list[Tensors] = []

    def asking(outputs: Tensor, wanted: Tensor) -> Tensor:
        inner.append(gradient(layer, -x, target, loss, rule=RTRL()))
        return loss(outputs, wanted)

    assert difference(gradient(layer, x, target, asking, rule=RTRL()), right) == 0.0
    assert difference(inner[0], other) == 0.0


def test_several_threads_at_once() -> None:
    layer = layer_of("sru")
    problems = [problem(layer, 64, 2) for _ in range(4)]
    warm(layer, *problems[0], RTRL())
    right = [gradient(layer, *p, loss, rule=RTRL()) for p in problems]
    worst = [1.0] * len(problems)

    def ask(k: int) -> None:
        worst[k] = max(difference(gradient(layer, *problems[k], loss, rule=RTRL()), right[k]) for _ in range(50))

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(problems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(worst) < 1e-12


def test_nothing_outlives_its_layer() -> None:
    layer = layer_of("sru")
    x, target = problem(layer)
    for rule in (RTRL(), UORO()):
        warm(layer, x, target, rule)
    alive = [weakref.ref(layer), *map(weakref.ref, layer.parameters())]
    del layer
    gc.collect()
    assert [ref() for ref in alive] == [None] * len(alive)


def test_a_copy_has_its_own() -> None:
    layer = layer_of("min_gru")
    x, target = problem(layer)
    warm(layer, x, target, RTRL())
    other = copy.deepcopy(layer)
    multiply(other)
    for _ in range(3):
        right = gradient(other, x, target, loss, rule=BPTT())
        assert difference(gradient(other, x, target, loss, rule=RTRL()), right) < 1e-12


def test_rows_at_once_divide_what_there_is() -> None:
    assert all(not n % rows_at_once(n) for n in range(1, 3000))
    assert [rows_at_once(n) for n in (1, 100, 997, 1000, 10_000)] == [1, 20, 997, 50, 200]
