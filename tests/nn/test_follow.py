"""Layers followed step by step give what they give otherwise, and their states are where autograd can be asked."""

from typing import Any

import pytest
import torch
from torch import nn

from catalogue import EVERY
from layer_cases import broadcast, narrow
from tidegate import GRU, LSTM, RNN, Recurrent, Stack
from tidegate.nn.torch_modules.convert import as_recurrent
from tidegate.nn.unroll_autograd import follow
from tidegate.runtime import support

ONE_INPUT = {n: c for n, c in EVERY.items() if len(c.graph.inputs) == 1} | {"narrow": narrow, "broadcast": broadcast}
T, B, H = 5, 3, 8


@pytest.mark.parametrize("name", ONE_INPUT)
def test_output_and_states_are_those_of_the_layer(name: str) -> None:
    cell = ONE_INPUT[name]
    sizes = {letter: 4 for letter in cell.graph.letters if letter not in "HI"}
    layer = Recurrent(cell, H, H, num_layers=1, **sizes).double().eval()
    x = torch.randn(T, B, H, dtype=torch.float64)
    with support.disabled():  # they would be compiled for each cell
        (y, end), traces = layer(x), layer.trace(x)
    ours, (run,) = follow(layer, x)
    torch.testing.assert_close(ours, y, rtol=1e-11, atol=1e-11)
    assert (len(run.states), len(run.values)) == (T + 1, T)
    for state in layer.graph.states:
        torch.testing.assert_close(run.states[-1][state.name], end[state.name][0], rtol=1e-11, atol=1e-11)
        assert all(s[state.name].requires_grad for s in run.states[1:])
    tensors = [s[state.name] for state in layer.graph.states for s in run.states[1:]]
    assert len({id(t) for t in tensors}) == len(tensors)
    for name_, traced in traces.items():
        torch.testing.assert_close(torch.stack([v[name_] for v in run.values]), traced, rtol=1e-11, atol=1e-11)


def test_a_stack_within_a_stack_from_a_state() -> None:
    inner = Stack(Recurrent("gru", 4, 4), Recurrent("lstm", 4, 4, num_layers=2), highway=True)
    layer = Stack(Recurrent("elman", 3, 4), inner).double()
    x = torch.randn(T, B, 3, dtype=torch.float64)
    _, state = layer(x)
    y, end = layer(x, state)
    ours, runs = follow(layer, x, state)
    torch.testing.assert_close(ours, y, rtol=1e-12, atol=1e-12)
    assert [run.graph.name for run in runs] == ["elman", "gru", "lstm", "lstm"]
    for run, (expected,) in zip(runs, end.layers, strict=True):
        for name, tensor in expected.items():
            torch.testing.assert_close(run.states[-1][name], tensor, rtol=1e-12, atol=1e-12)


OPTIONS: list[dict[str, Any]] = [
    {"num_layers": 2},
    {"bidirectional": True, "num_layers": 2},
    {"bias": False, "batch_first": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, LSTM, GRU, RNN], ids=lambda kind: f"{kind.__module__}")
def test_a_module_of_torch_as_a_recurrent_layer(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    module = kind(3, 4, dtype=torch.float64, **options)
    layer, x = as_recurrent(module), torch.randn(T, B, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], module(x)[0], rtol=1e-12, atol=1e-12)
    mine = {p.data_ptr() for p in module.parameters()}
    assert not mine & {p.data_ptr() for p in layer.parameters()}


def test_relu_and_projection_of_torch() -> None:
    x = torch.randn(T, B, 3, dtype=torch.float64)
    for module in (nn.RNN(3, 4, nonlinearity="relu"), nn.LSTM(3, 4, proj_size=2, num_layers=2)):
        torch.testing.assert_close(as_recurrent(module.double())(x)[0], module(x)[0], rtol=1e-12, atol=1e-12)
