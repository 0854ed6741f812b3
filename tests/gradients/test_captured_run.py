"""Captured runs against the general engine."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradients.forward_cases import BATCH, HIDDEN, INPUT, STEPS, difference, found, loss, swept
from tidegate.cells import CELLS
from tidegate.gradients import RFLO, RTRL, EProp, Forward, SnAp, gradient
from tidegate.gradients.influence import captured_run
from tidegate.gradients.influence.captured_gradient import CapturedGradient
from tidegate.gradients.influence.captured_run import CapturedRun
from tidegate.gradients.online import online
from tidegate.nn import Recurrent
from tidegate.runtime import support

pytestmark = pytest.mark.kernels

CASES: list[tuple[str, Forward]] = [
    ("min_gru", RTRL()),
    ("lru", RTRL()),
    ("indrnn", RTRL()),
    ("sru", RTRL()),
    ("elman", SnAp()),
    ("lstm", SnAp()),
    ("lstm_peephole", SnAp()),
    ("gru_reset_after", SnAp()),
    ("elman", RFLO()),
    ("lstm", EProp()),
]


def layer_of(name: str, layers: int = 1) -> Recurrent:
    width = HIDDEN if name in ("sru", "lru") else INPUT
    more: dict[str, Any] = {"N": HIDDEN} if "N" in CELLS[name].graph.letters else {}
    layer = Recurrent(name, width, HIDDEN, num_layers=layers, dtype=torch.float64, **more)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    return layer


def problem(layer: Recurrent, steps: int = STEPS, rows: int = BATCH) -> tuple[Tensor, Tensor]:
    x = torch.randn(steps, rows, layer.input_size, dtype=torch.float64)
    return x, torch.randn(steps, rows, layer.output_size, dtype=torch.float64)


@pytest.fixture
def pulls(monkeypatch: pytest.MonkeyPatch) -> list[CapturedRun]:
    """The captured runs whose gradients are asked for, one after another."""
    asked: list[CapturedRun] = []
    usual = CapturedRun.advance

    def advance(self: CapturedRun, *given: Any, **more: Any) -> Any:
        asked.append(self)
        return usual(self, *given, **more)

    monkeypatch.setattr(CapturedRun, "advance", advance)
    monkeypatch.setattr(CapturedGradient, "__call__", lambda *_: None)  # which would take the call
    return asked


@pytest.fixture
def generally(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Tensor]]:
    """Gradients by the general engine."""

    def by_it(*given: Any, **more: Any) -> dict[str, Tensor]:
        with monkeypatch.context() as patch:
            patch.setattr(captured_run, "_captured_run", lambda *_: None)
            patch.setattr(CapturedGradient, "__call__", lambda *_: None)
            return found(*given, **more)

    return by_it


QUICK = [pytest.param(*case, 1) for case in CASES] + [pytest.param("lru", RTRL(), 2), pytest.param("lstm", SnAp(), 2)]
DEEP = [pytest.param(*case, 2, marks=pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize(("name", "rule", "layers"), [*QUICK, *DEEP], ids=str)
def test_is_the_general_way(name: str, rule: Forward, layers: int, pulls: list[CapturedRun], generally: Any) -> None:
    layer = layer_of(name, layers)
    if not rule.supports(layer):
        pytest.skip("the rule does not work two layers deep")
    x, target = problem(layer)
    right = generally(layer, x, target, rule)
    for _ in range(2):  # as it is made, and as it is found again
        assert difference(found(layer, x, target, rule), right) < 1e-13
    assert layers == 2 or len(pulls) == 2


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_rule_that_keeps_matrices_has_none(name: str, pulls: list[CapturedRun]) -> None:
    layer = layer_of(name)
    found(layer, *problem(layer), RTRL())
    assert not pulls


def test_two_runs_stand_side_by_side(pulls: list[CapturedRun], generally: Any) -> None:
    layer, other = layer_of("min_gru"), layer_of("min_gru")
    (x, target), (x2, target2) = problem(layer), problem(other)

    def both(outputs: Tensor, wanted: Tensor) -> Tensor:
        beside = gradient(other, x2, target2, loss, rule=RTRL())  # between forward and backward of the same shape
        assert difference(beside, generally(other, x2, target2, RTRL())) < 1e-13
        return loss(outputs, wanted)

    ours = gradient(layer, x, target, both, rule=RTRL())
    assert difference(ours, generally(layer, x, target, RTRL())) < 1e-13
    assert len(set(map(id, pulls))) == 1


def test_weights_that_were_changed_are_read_anew(pulls: list[CapturedRun], generally: Any) -> None:
    layer = layer_of("elman")
    x, target = problem(layer)
    before = found(layer, x, target, SnAp())
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(1.5)
    after = found(layer, x, target, SnAp())
    assert difference(after, generally(layer, x, target, SnAp())) < 1e-13
    assert difference(after, before) > 1e-3
    assert len(pulls) == 2


def test_a_segment_that_goes_on_has_the_influence_of_the_first(pulls: list[CapturedRun], generally: Any) -> None:
    layer = layer_of("lru")
    x, target = problem(layer)
    whole = generally(layer, x, target, RTRL())
    assert difference(swept(layer, x, target, RTRL(every=5)), whole) < 1e-12
    assert len(pulls) == 1


def test_outputs_may_be_changed_in_place(generally: Any) -> None:
    layer = layer_of("elman")
    x, target = problem(layer)
    found = gradient(layer, x, target, lambda y, wanted: (y.mul_(2.0) * wanted).sum(), rule=SnAp())
    right = gradient(layer, x, target, lambda y, wanted: (2.0 * y * wanted).sum(), rule=SnAp())
    assert difference(found, right) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_of_every_layout(dtype: torch.dtype, generally: Any) -> None:
    layer = layer_of("min_gru").to(dtype)
    x, target = (t.to(dtype) for t in problem(layer))
    for given in (x.transpose(0, 2).contiguous().transpose(0, 2), x.repeat(1, 1, 2)[..., :INPUT]):
        assert not given.is_contiguous()
        assert difference(found(layer, given, target, RTRL()), generally(layer, given, target, RTRL())) < 1e-6


def test_lengths_and_resets_go_the_general_way(pulls: list[CapturedRun]) -> None:
    layer = layer_of("min_gru")
    x, target = problem(layer)
    found(layer, x, target, RTRL(), lengths=[STEPS, 3, 0])
    found(layer, x, target, RTRL(), reset=torch.zeros(STEPS, BATCH, dtype=torch.bool))
    with support.disabled():
        found(layer, x, target, RTRL())
    assert not pulls


@pytest.mark.filterwarnings("ignore::tidegate.errors.TidegateNotice")
def test_a_first_step_under_autocast_does_not_decide_for_later_ones(pulls: list[CapturedRun]) -> None:
    layer = layer_of("min_gru")
    x, _ = problem(layer, rows=11)  # a shape of its own: runs are kept for the whole process
    stream = online(layer, RTRL())
    memory = stream.begin(11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stream.step(memory, x[0])
    assert not pulls
    stream.step(memory, x[0])
    assert len(pulls) == 1
