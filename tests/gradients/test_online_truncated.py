"""Truncation at each step of a stream, against the same rule over the whole sequence."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tidegate.equations import cell, linear, tanh
from tidegate.errors import ArgumentError
from tidegate.gradients import BPTT, TruncatedBPTT, gradient, online
from tidegate.nn import Recurrent, Stack

STEPS, BATCH, INPUT, HIDDEN = 9, 3, 2, 4


@cell(states="h", inputs="x t:1", source="a test: a second input")
def timed(x, t, h):
    h = tanh(linear("n", x, h) + linear("t", t=t, bias=None))  # state
    return h


def layers() -> dict[str, Any]:
    return {
        "lstm": Recurrent("lstm", INPUT, HIDDEN),
        "two layers": Recurrent("gru", INPUT, HIDDEN, num_layers=2),
        "learned start": Recurrent("elman", INPUT, HIDDEN, learn_initial_state=True),
        "batch first": Recurrent("gru", INPUT, HIDDEN, batch_first=True),
        "stack": Stack(Recurrent("elman", INPUT, 5), Recurrent("lstm", 5, HIDDEN)),
    }


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), torch.randn(STEPS, BATCH, HIDDEN, dtype=torch.float64)


def summed(rule: Any, x: Any, target: Tensor) -> dict[str, Tensor]:
    """The gradients of all steps, added up."""
    memory, totals = rule.begin(BATCH), dict[str, Tensor]()
    for x_t, target_t in zip(x, target, strict=True):
        y, memory = rule.step(memory, x_t)
        found = rule.gradient(memory, 2 * (y - target_t))
        totals = {name: totals.get(name, 0.0) + part for name, part in found.items()}
    return totals


@pytest.mark.parametrize("kind", layers())
@pytest.mark.parametrize("k2", [1, 4, STEPS])
def test_the_sum_over_a_stream_is_that_of_the_sequence(kind: str, k2: int) -> None:
    layer = layers()[kind].double()
    x, target = data()

    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs - targets) ** 2).sum()

    plain = layer
    if layer.batch_first:
        plain = Recurrent("gru", INPUT, HIDDEN).double()
        plain.load_state_dict(layer.state_dict())
    expected = gradient(plain, x, target, squared, rule=TruncatedBPTT(1, k2))
    found = summed(online(layer, TruncatedBPTT(1, k2)), x, target)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-12)


def test_a_cell_with_two_inputs_takes_a_mapping() -> None:
    layer = Recurrent(timed, INPUT, HIDDEN).double()
    x, target = data()
    t = torch.rand(STEPS, BATCH, 1, dtype=torch.float64)
    named = [{"x": x_t, "t": t_t} for x_t, t_t in zip(x, t, strict=True)]
    found = summed(online(layer, TruncatedBPTT(1, STEPS)), named, target)
    y, _ = layer({"x": x, "t": t})
    expected = torch.autograd.grad(((y - target) ** 2).sum(), list(layer.parameters()))
    for value, like in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(value, like, rtol=1e-11, atol=1e-12)


def test_an_old_memory_stays_as_it_was_and_weights_are_read_anew() -> None:
    layer = Recurrent("lstm", INPUT, HIDDEN)
    rule = online(layer, TruncatedBPTT(1, 3))
    buffer, dy = torch.randn(BATCH, INPUT), torch.randn(BATCH, HIDDEN)
    _, old = rule.step(rule.begin(BATCH), buffer)
    kept, before = copy.deepcopy(old.tensors()), rule.gradient(old, dy)
    _, new = rule.step(old, buffer)
    buffer.zero_()
    with torch.no_grad():
        layer.l0.get_parameter("i.x").add_(1.0)
    assert all(torch.equal(t, kept[name]) for name, t in old.tensors().items())
    assert not torch.equal(rule.step(old, torch.ones(BATCH, INPUT))[0], new.state["h"][0])
    assert not torch.equal(rule.gradient(old, dy)["l0.i.x"], before["l0.i.x"])


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_a_restored_memory_goes_on_with_the_same_bits(steps: int) -> None:
    layer = Recurrent("lstm", INPUT, HIDDEN, num_layers=2)
    rule = online(layer, TruncatedBPTT(1, 3))
    memory = rule.begin(BATCH)
    for _ in range(steps):
        _, memory = rule.step(memory, torch.randn(BATCH, INPUT))
    twin = rule.restored({name: t.clone() for name, t in memory.tensors().items()})
    for _ in range(4):
        x, dy = torch.randn(BATCH, INPUT), torch.randn(BATCH, HIDDEN)
        (y, memory), (again, twin) = rule.step(memory, x), rule.step(twin, x)
        assert torch.equal(y, again)
        for name, value in rule.gradient(memory, dy).items():
            assert torch.equal(rule.gradient(twin, dy)[name], value)
    assert memory.tensors().keys() == twin.tensors().keys()
    assert all(torch.equal(t, twin.tensors()[name]) for name, t in memory.tensors().items())
    assert sum(t.nbytes for t in memory.tensors().values()) == rule.bytes(BATCH)


def test_what_is_no_memory_is_refused() -> None:
    rule = online(Recurrent("lstm", INPUT, HIDDEN), TruncatedBPTT(1, 3))
    memory = rule.begin(BATCH)
    for _ in range(3):
        _, memory = rule.step(memory, torch.randn(BATCH, INPUT))
    tensors = memory.tensors()
    for wrong, reason in (
        ({}, "'state.0'"),
        (tensors | {"state.1": torch.zeros(BATCH, 7)}, "'state.1' must be [3, 4] of torch.float32, got [3, 7] of "
         "torch.float32"),
        (tensors | {"inputs.x": torch.zeros(4, BATCH, INPUT)}, "got 4 inputs, 2 states and 0 other tensors"),
        (tensors | {"other": torch.zeros(1)}, "got 3 inputs, 2 states and 1 other tensors"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError) as caught:
            rule.restored(wrong)
        assert str(caught.value) == (
            f"expected the tensors of a memory of this layer under TruncatedBPTT(1, 3): {reason}; pass those of a "
            "memory of the same layer and rule"
        )


@pytest.mark.parametrize("rule", [BPTT(), TruncatedBPTT(2, 4)])
def test_a_rule_that_sees_the_whole_is_refused(rule: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        online(Recurrent("lstm", INPUT, HIDDEN), rule)
    assert str(caught.value) == (
        f"rule must give a gradient at each step, got {rule}: use for example RTRL(), SnAp() or TruncatedBPTT(1, 16)"
    )
