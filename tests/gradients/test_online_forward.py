"""Forward rules at each step of a stream: the same numbers as over a whole sequence, and the quick way as the slow."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gradients.forward_cases import BATCH, STEPS, difference, found, layer_of, problem
from layer_cases import CASES, Case, make_inputs, make_layer
from tidegate.cells import CELLS
from tidegate.errors import ArgumentError
from tidegate.gradients import KFRTRL, RFLO, RTRL, UORO, EProp, Forward, SnAp, online
from tidegate.gradients.influence import captured_run
from tidegate.gradients.online_forward import OnlineForward
from tidegate.nn import Recurrent
from tidegate.runtime import support

BY_NAME = {str(case): case for case in CASES}
FEW = [BY_NAME[name] for name in ("elman", "lstm_peephole", "min_gru", "indrnn", "gru", "lru")]


def at(x: dict[str, Tensor], t: int) -> dict[str, Tensor]:
    return {n: v[t] if v.shape[:2] == (STEPS, BATCH) else v for n, v in x.items()}


def over_time(layer: Recurrent, rule: Forward, x: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    stream = online(layer, rule)
    memory, total = stream.begin(BATCH), {n: torch.zeros_like(p) for n, p in layer.named_parameters()}
    for t in range(STEPS):
        y, memory = stream.step(memory, at(x, t))
        for name, gradient in stream.gradient(memory, target[t] + 0.6 * y).items():
            total[name] += gradient
    return total


@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_sum_to_the_exact_gradient(case: Case) -> None:
    layer = layer_of(case)
    x, target = problem(case, layer)
    with support.disabled():
        assert difference(over_time(layer, RTRL(), x, target), found(layer, x, target)) < 1e-11


@pytest.mark.parametrize("rule", [RTRL(), SnAp(), UORO(), KFRTRL(), EProp()], ids=str)
@pytest.mark.parametrize("layers", [1, 2])
def test_steps_are_those_of_a_sequence(rule: Forward, layers: int) -> None:
    layer = layer_of(BY_NAME["lstm"], layers, learn_initial_state=True)
    if not rule.supports(layer):
        pytest.skip("the rule refuses learned starts or layers above each other")
    x, target = problem(BY_NAME["lstm"], layer)
    assert difference(over_time(layer, rule, x, target), found(layer, x, target, rule)) < 1e-11


@pytest.mark.kernels
@pytest.mark.filterwarnings("ignore:cell 'scrn' computes on the reference path")
@pytest.mark.parametrize("rule", [RTRL(), SnAp(), RFLO(), EProp()], ids=str)
@pytest.mark.parametrize("cases", [FEW, pytest.param(CASES, marks=pytest.mark.slow)], ids=["few", "every"])
def test_captured_steps_give_the_same_bits(cases: list[Case], rule: Forward, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = 0
    for case in cases:
        layer = layer_of(case)
        x = make_inputs(case, layer, STEPS, BATCH)
        if not rule.supports(layer) or any(v.shape[:2] != (STEPS, BATCH) for v in x.values()):
            continue
        ours, slow = OnlineForward(layer, rule), OnlineForward(layer, rule)
        mine, theirs = ours.begin(BATCH), slow.begin(BATCH)
        dy = torch.randn(BATCH, layer.output_size, dtype=torch.float64)
        for t in range(4):
            a, mine = ours.step(mine, at(x, t))
            with monkeypatch.context() as patch:
                patch.setattr(captured_run, "_captured_run", lambda *_: None)
                b, theirs = slow.step(theirs, at(x, t))
            assert torch.equal(a, b), case
            for name, gradient in ours.gradient(mine, dy).items():
                assert torch.equal(gradient, slow.gradient(theirs, dy)[name]), (case, name)
            with torch.no_grad():
                for p in layer.parameters():
                    p.mul_(0.99)
        run = captured_run.captured_run(ours.engine.plan, 1, BATCH, dy)
        quick += run is not None and run.captures(())
    few = {"rtrl": 2, "snap:1": 3, "rflo": 1, "eprop": 4}
    every = {"rtrl": 3, "snap:1": 15, "rflo": 3, "eprop": 15}
    assert quick >= (few if cases is FEW else every)[str(rule)]


def test_a_memory_stays_as_it_is_and_comes_back_from_its_tensors() -> None:
    for name in ("min_gru", "gru", "looks_back"):
        layer = layer_of(BY_NAME[name])
        x, _ = problem(BY_NAME[name], layer)
        stream = online(layer, RTRL())
        _, first = stream.step(stream.begin(BATCH), at(x, 0))
        kept = {n: t.clone() for n, t in first.tensors().items()}
        again = stream.restored(kept)
        (a, one), (b, two) = stream.step(first, at(x, 1)), stream.step(again, at(x, 1))
        assert torch.equal(a, b)
        assert all(torch.equal(t, kept[n]) for n, t in first.tensors().items())
        assert all(torch.equal(t, two.tensors()[n]) for n, t in one.tensors().items())
        assert stream.bytes(BATCH) == sum(t.nbytes for t in kept.values())


def test_weights_that_move_elsewhere_are_found() -> None:
    """An optimiser changes weights in place; someone else gives a parameter other memory."""
    layer = make_layer(CELLS["min_gru"], 3, 6)
    x = torch.randn(BATCH, 3, dtype=torch.float64)
    stream = online(layer, RTRL())
    memory = stream.begin(BATCH)
    stream.step(memory, x)
    with torch.no_grad():
        for p in layer.parameters():
            p.data = p.data.clone() * 0.5
    y, _ = stream.step(memory, x)
    torch.testing.assert_close(y, layer.step(x)[0], rtol=1e-12, atol=1e-12)


def test_tensors_of_something_else() -> None:
    stream = online(Recurrent("gru", 3, 4), RTRL())
    other = online(Recurrent("gru", 3, 5), RTRL()).begin(2).tensors()
    for tensors in (other, {}, {"state.l0.h": torch.zeros(1, 4)}):
        with pytest.raises(ArgumentError) as caught:
            stream.restored(tensors)
        assert str(caught.value) == (
            f"expected the tensors of a memory of this layer under rtrl, got {len(tensors)} tensors that do not "
            "fit: pass those of a memory of the same layer and rule"
        )


def test_wrong_inputs_are_told_as_the_layer_tells_them() -> None:
    stream = online(Recurrent("min_gru", 3, 4), RTRL())
    memory: Any = stream.begin(2)
    for wrong in (torch.zeros(2, 5), torch.zeros(2, 3, dtype=torch.float64)):
        with pytest.raises(ArgumentError):
            stream.step(memory, wrong)
    with pytest.raises(ArgumentError) as caught:
        stream.step(memory, torch.zeros(3, 3))
    assert str(caught.value) == "x_t must have 2 rows as the memory has, got 3: or call begin(3)"
