"""The stepper against layer.step, and trace against the formulas."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tidegate as tg
from catalogue import HARD
from layer_cases import CASES, PRODUCTS, B, Case, T, make_inputs, make_layer, make_state
from tidegate.cells import CELLS
from tidegate.equations import Rate
from tidegate.errors import ArgumentError
from tidegate.nn import Recurrent, State, Stepper


def stacked(case: Case, **options: Any) -> Recurrent:
    single = not case.stackable or case.cell.graph.inputs[0].size == ("H",)
    return make_layer(case.cell, num_layers=1 if single else 2, **options)


def at(layer: Recurrent, inputs: dict[str, Tensor], t: int) -> dict[str, Tensor]:
    moving = {i.name for i in layer.graph.inputs if i.rate == Rate.INPUT}
    return {k: v[t] if k in moving else v for k, v in inputs.items()}


def near(ours: Any, theirs: Tensor, tolerance: float = 1e-12) -> None:
    ours, theirs = torch.as_tensor(ours), theirs.detach()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert torch.isfinite(theirs).all()
    assert ((ours - theirs).abs() <= tolerance * (1 + theirs.abs())).all()


def near_states(ours: State, theirs: State) -> None:
    assert [[list(d) for d in ds] for ds in ours.layers] == [[list(d) for d in ds] for ds in theirs.layers]
    for k, layer in enumerate(theirs.layers):
        for name, value in layer[0].items():
            near(ours.layers[k][0][name], value)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_step(case: Case, kind: str) -> None:
    layer = stacked(case, learn_initial_state=True)
    inputs, state = make_inputs(case, layer), make_state(layer)
    stepper = layer.stepper(B, state)
    for t in range(T):
        x = at(layer, inputs, t)
        y, state = layer.step(x, state)
        found = stepper(x if kind == "torch" else {k: v.numpy() for k, v in x.items()})
        assert isinstance(found, Tensor if kind == "torch" else np.ndarray)
        near(found, y)
        near_states(stepper.state, state)


def lstm(**options: Any) -> Recurrent:
    return make_layer(CELLS["lstm"], 3, 5, num_layers=2, **options)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_single_precision() -> None:
    layer = lstm().float()
    stepper, x = layer.stepper(B), random(B, 3).float()
    near(stepper(x), layer.step(x)[0], 1e-6)
    near(layer.stepper(B)(x.double()), layer.step(x)[0], 1e-6)


def test_a_list_of_numbers_will_do() -> None:
    layer = lstm()
    near(layer.stepper(2)([[1, 2, 3], [4, 5, 6]]), layer.step(torch.arange(1.0, 7.0).double().reshape(2, 3))[0])


def test_only_active_rows_move() -> None:
    layer, state = lstm(), None
    stepper, active = layer.stepper(B), torch.tensor([True, False, False, True])
    for k in range(3):
        before, x = stepper.state, random(B, 3)
        if k < 2:
            x[~active] = torch.nan
        y = stepper(x, active=active if k else active.tolist()) if k < 2 else stepper(x)
        now = stepper.state
        if k < 2:
            assert not y[~active].any()
            for name in "hc":
                assert torch.equal(now[name][:, ~active], before[name][:, ~active])
            expected, state = layer.step(x[active], state)
            near(y[active], expected)
            near(now["c"][:, active], state["c"])


def test_reset_puts_rows_back_to_the_learned_start() -> None:
    layer = lstm(learn_initial_state=True)
    for rows in ([1, 3], torch.tensor([1, 3]), np.array([False, True, False, True]), slice(1, None, 2)):
        stepper = layer.stepper(B)
        stepper(random(B, 3))
        before = stepper.state
        stepper.reset(rows)
        for name in "hc":
            near(stepper.state[name][:, [1, 3]], layer.initial_state(2)[name])
            assert torch.equal(stepper.state[name][:, [0, 2]], before[name][:, [0, 2]])
    stepper.reset()
    near_states(stepper.state, layer.initial_state(B))


def test_the_start_is_the_layers_and_not_the_state_given() -> None:
    layer = lstm()
    stepper = layer.stepper(B, make_state(layer))
    stepper.reset()
    near_states(stepper.state, layer.initial_state(B))


def test_the_state_is_a_copy_and_may_be_set() -> None:
    layer = lstm()
    stepper, x = layer.stepper(B), random(B, 3)
    stepper(x)
    kept = stepper.state
    first = stepper(x).clone()
    stepper.state = kept
    kept["h"].zero_()
    assert torch.equal(stepper(x), first)
    stepper.state = make_state(layer)
    assert stepper.state["h"].dtype == torch.float64


def test_the_weights_are_a_snapshot() -> None:
    layer, x = lstm(), random(B, 3)
    stepper = layer.stepper(B)
    expected = layer.step(x)[0].detach()
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
    near(stepper(x), expected)
    assert not layer.stepper(B)(x).equal(expected)


def test_what_it_returns_is_a_view_that_the_next_call_overwrites() -> None:
    stepper = lstm().stepper(B)
    first = stepper(random(B, 3).numpy())
    kept = first.copy()
    second = stepper(random(B, 3))
    assert np.shares_memory(first, second.numpy())
    assert not np.array_equal(first, kept)
    assert not second.requires_grad


def test_overflow_is_infinite_and_no_warning() -> None:
    layer = make_layer(HARD["lstm_phased"], 3, 4)
    y = layer.stepper(1)({"x": np.full((1, 3), 1e308), "t": np.zeros((1, 1))})
    assert y.shape == (1, 4)


def test_batch() -> None:
    assert lstm().stepper().batch == 1
    assert lstm().stepper(0)(np.zeros((0, 3))).shape == (0, 5)


# Trace


def test_trace_of_an_lstm_holds_its_gates_and_states() -> None:
    layer, x = lstm(), random(T, B, 3)
    trace = layer.trace(x)
    assert list(trace) == ["i.net", "i", "f.net", "f", "g.net", "g", "o.net", "o", "c", "h"]
    assert len(trace) == 10
    y, state = layer(x)
    near(trace["h"], y)
    near(trace["c"][-1], state["c"][-1])
    lower = trace.layers[0]
    near(lower["h"][-1], state["h"][0])
    w = dict(layer.named_parameters())
    net = x @ w["l0.i.x"].T + w["l0.i.bias"]
    net[1:] += lower["h"][:-1] @ w["l0.i.h"].T
    near(lower["i.net"], net)
    near(lower["i"], torch.sigmoid(net))
    previous = torch.cat([torch.zeros(1, B, 5).double(), lower["c"][:-1]])
    near(lower["c"], lower["f"] * previous + lower["i"] * lower["g"])
    assert not any(v.requires_grad for v in trace.values())


@pytest.mark.parametrize(
    "case", [c if c in PRODUCTS else pytest.param(c, marks=pytest.mark.slow) for c in CASES], ids=str
)
def test_trace_goes_on_from_a_state_and_ends_where_the_layer_does(case: Case) -> None:
    layer = stacked(case)
    inputs, state = make_inputs(case, layer), make_state(layer)
    trace, (_, end) = layer.trace(inputs, state), layer(inputs, state)
    for k, values in enumerate(trace.layers):
        assert all(v.shape[:2] == (T, B) for v in values.values())
        for name, value in end.layers[k][0].items():
            if name in values:
                near(values[name][-1].expand_as(value), value)


def test_trace_takes_the_forms_of_the_layer() -> None:
    layer, x = lstm(batch_first=True), random(B, T, 3)
    near(layer.trace(x)["h"], layer(x)[0].transpose(0, 1))
    assert layer.trace(x[0])["h"].shape == (T, 1, 5)
    assert layer.trace(x[:, :0])["i.net"].shape == (0, B, 5)


# Errors


def refused(message: str, call: Any, *args: Any, **options: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        call(*args, **options)
    assert str(caught.value) == message


def set_state(stepper: Stepper, state: Any) -> None:
    stepper.state = state


def test_errors_of_the_inputs() -> None:
    stepper = lstm().stepper(2)
    refused("input 'x' must be numbers of shape [2, 3], got [2, 4] of float64", stepper, np.zeros((2, 4)))
    refused("input 'x' must be numbers of shape [2], got [3] of int64", stepper, np.zeros(3, dtype=int))
    refused("input 'x' must be numbers of shape [2, 3], got [2, 3] of <U1", stepper, np.full((2, 3), "a"))
    refused("indices of a one-hot of size 3 must be between 0 and 2, got -1 to 2", stepper, np.array([2, -1]))
    refused("indices of a one-hot of size 3 must be between 0 and 2, got 0 to 3", stepper, torch.tensor([0, 3]))
    refused("the stepper takes the inputs x, got none", stepper, {})
    refused("the stepper takes the inputs x, got x, 3", stepper, {"x": np.zeros((2, 3)), 3: 0})
    x = np.zeros((2, 3))
    refused("active must be one flag per row, [2], got [3] of bool", stepper, x, active=[True] * 3)
    refused("active must be one flag per row, [2], got [2] of <U3", stepper, x, active=["yes", "no"])
    refused("active must hold booleans, or 0 and 1, got 0.5", stepper, x, active=[0.5, 1])
    refused("active must hold booleans, or 0 and 1, got 2", stepper, x, active=torch.tensor([1, 2]))
    for rows in ([5], [0.5], torch.tensor([-3]), np.array([1.0, 0.0]), [True] * 3):
        refused(f"rows must be numbers from 0 to 1, or one boolean per row, got {rows!r}", stepper.reset, rows)


@pytest.mark.parametrize("flags", [[1, 0], [1.0, 0.0], np.array([True, False]), torch.tensor([1, 0], dtype=torch.int8)])
def test_flags_are_booleans_or_0_and_1(flags: Any) -> None:
    stepper, x = lstm().stepper(2), np.ones((2, 3))
    stepper(x, active=flags)
    moved = stepper.state.layers[0][0]["h"].any(-1)
    assert moved.tolist() == [True, False]


def test_an_input_that_is_not_only_multiplied_is_no_index() -> None:
    stepper = Recurrent(HARD["qrnn"], 3, 4).stepper(2)
    refused(
        "cell 'qrnn' does more with 'x' than multiply it, so it cannot be an index of a one-hot: "
        "pass one-hots, as in torch.nn.functional.one_hot(x, size).float()",
        stepper,
        np.array([0, 1]),
    )


def test_errors_of_the_state() -> None:
    layer = lstm()
    stepper = layer.stepper(2)
    refused(
        "state must be a tidegate.State as returned by a layer, got tuple. Make one of tensors [B, size] as "
        "State([[{'h': h, 'c': c}]]), with a mapping for each layer and direction",
        set_state,
        stepper,
        (),
    )
    small = tg.Recurrent("elman", 3, 4)
    refused(
        "the state does not fit this layer and batch: its number of layers is 1, expected 2",
        set_state,
        stepper,
        small.initial_state(2),
    )


def test_a_type_that_numpy_does_not_know() -> None:
    message = (
        "steppers run on numpy, which has no torch.bfloat16: make one from a float32 copy, as in "
        "copy.deepcopy(layer).float().stepper()"
    )
    layer = lstm().bfloat16()
    refused(message, layer.stepper)
    other = (
        "state 'h' of layer 0 must be torch.float64 as the weights are, got torch.bfloat16: convert it with "
        ".to(torch.float64)"
    )
    refused(other, set_state, lstm().stepper(1), layer.initial_state(1))
