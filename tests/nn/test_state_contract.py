"""One state contract: step by step, chunk by chunk, whole; padded, with lengths, alone; any order of rows."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from layer_cases import (
    CASES,
    PRODUCTS,
    B,
    Case,
    T,
    assert_same,
    by_name,
    gradients,
    make_inputs,
    make_layer,
    make_state,
)
from tidegate.equations import Rate
from tidegate.nn import Recurrent, State

every_case = pytest.mark.parametrize("case", CASES, ids=str)
LSTM = next(c for c in PRODUCTS if c.name == "lstm")


def stacked(case: Case, **options: Any) -> Recurrent:
    single = not case.stackable or case.cell.graph.inputs[0].size == ("H",)
    return make_layer(case.cell, num_layers=1 if single else 2, **options)


def moving(layer: Recurrent) -> set[str]:
    return {i.name for i in layer.graph.inputs if i.rate == Rate.INPUT}


def piece(layer: Recurrent, inputs: dict[str, Tensor], begin: int, end: int) -> dict[str, Tensor]:
    return {k: v[begin:end] if k in moving(layer) else v for k, v in inputs.items()}


def in_chunks(layer: Recurrent, inputs: dict[str, Tensor], cuts: list[int], state: State) -> tuple[Tensor, State]:
    outputs = []
    for begin, end in zip([0, *cuts], [*cuts, T], strict=True):
        y, state = layer(piece(layer, inputs, begin, end), state)
        outputs.append(y)
    return torch.cat(outputs), state


def in_steps(layer: Recurrent, inputs: dict[str, Tensor], state: State) -> tuple[Tensor, State]:
    outputs = []
    for t in range(T):
        y, state = layer.step({k: v[t] if k in moving(layer) else v for k, v in inputs.items()}, state)
        outputs.append(y)
    return torch.stack(outputs), state


@every_case
def test_whole_is_chunks_is_steps(case: Case) -> None:
    """Values and gradients, with a learned start and from a state."""
    layer = stacked(case, learn_initial_state=True)
    inputs, leaves = make_inputs(case, layer), dict(layer.named_parameters())
    for begin in (make_state(layer), layer.initial_state(B)):
        whole = layer(inputs, begin)
        found = []
        for y, end in (whole, in_chunks(layer, inputs, [2, 2, 5], begin), in_steps(layer, inputs, begin)):
            results = by_name(y, end.layers)
            found.append((results, gradients(results, leaves)))
        for other in found[1:]:
            assert_same(other[0], found[0][0], 1e-12)
            assert_same(other[1], found[0][1], 1e-12)


@every_case
def test_without_a_state_it_starts_at_its_own(case: Case) -> None:
    layer = stacked(case, learn_initial_state=True)
    inputs = make_inputs(case, layer)
    (y, end), (expected, last) = layer(inputs), layer(inputs, layer.initial_state(B))
    assert_same(by_name(y, end.layers), by_name(expected, last.layers), 0)


@every_case
def test_a_reset_goes_to_the_layers_start_and_not_to_the_state_passed(case: Case) -> None:
    layer = stacked(case, learn_initial_state=True)
    inputs, state = make_inputs(case, layer), make_state(layer)
    reset = torch.zeros(T, B)
    reset[3] = 1
    y, end = layer(inputs, state, reset=reset)
    assert_same({"y": y[:3]}, {"y": layer(piece(layer, inputs, 0, 3), state)[0]}, 0)
    fresh, last = layer(piece(layer, inputs, 3, T))
    assert_same(by_name(y[3:], end.layers), by_name(fresh, last.layers), 0)


@pytest.mark.parametrize("bidirectional", [False, True])
@every_case
def test_padded_is_lengths_is_alone_in_any_order(case: Case, bidirectional: bool) -> None:
    layer = stacked(case, bidirectional=bidirectional, merge="sum" if bidirectional else "concat")
    inputs, lengths, order = make_inputs(case, layer), [4, 0, 6, 1], [2, 0, 3, 1]
    y, end = layer(inputs, lengths=lengths)
    turned = {k: v[:, order] if k in moving(layer) else v[order] for k, v in inputs.items()}
    other, last = layer(turned, lengths=[lengths[b] for b in order])
    assert_same(by_name(other, last.layers), by_name(y[:, order], end.rows(order).layers), 1e-12)
    for b, n in enumerate(lengths):
        cut = {k: v[:n, b : b + 1] if k in moving(layer) else v[b : b + 1] for k, v in inputs.items()}
        alone, finish = layer(cut)
        assert_same(by_name(alone, finish.layers), by_name(y[:n, b : b + 1], end.rows([b]).layers), 1e-12)
        assert not y[n:, b].any()


@settings(max_examples=30)
@given(st.sampled_from(CASES), st.lists(st.integers(0, T), max_size=4).map(sorted), st.integers(0, 999))
def test_any_chunks(case: Case, cuts: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    layer = stacked(case)
    inputs, state = make_inputs(case, layer), make_state(layer)
    (y, end), (expected, last) = in_chunks(layer, inputs, cuts, state), layer(inputs, state)
    assert_same(by_name(y, end.layers), by_name(expected, last.layers), 1e-12)


def test_a_row_without_a_step_gives_back_its_state() -> None:
    layer = make_layer(LSTM.cell, num_layers=2)
    state = make_state(layer)
    _, end = layer(make_inputs(LSTM, layer), state, lengths=[0, 3, 0, 6])
    for name in "hc":
        assert torch.equal(end[name][:, [0, 2]], state[name][:, [0, 2]])
        assert not torch.equal(end[name][:, [1, 3]], state[name][:, [1, 3]])


def test_the_gradients_of_a_layer_are_right() -> None:
    layer = make_layer(LSTM.cell, 2, 3, bidirectional=True, learn_initial_state=True)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    names = list(dict(layer.named_parameters()))
    reset = torch.tensor([[0, 1], [1, 0], [0, 0]])

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        options = {"lengths": [3, 2], "reset": reset}
        y: Tensor = torch.func.functional_call(layer, given, (x,), options)[0]
        return y

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))
    assert torch.autograd.gradgradcheck(run, (x, *layer.parameters()))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, on first use
def test_forward_mode_is_reverse_mode() -> None:
    layer = make_layer(LSTM.cell, 3, 5, num_layers=2)
    x = torch.randn(T, 2, 3, dtype=torch.float64)

    def loss(x: Tensor, state: State) -> Tensor:
        y, end = layer(x, state, lengths=[4, 6])
        return (y.sin().sum() + end["c"].cos().sum()).reshape(())

    begin = make_state(layer, 2)
    tangents = (torch.randn_like(x), begin.map(torch.randn_like))
    _, gradient = torch.func.jvp(loss, (x, begin), tangents)
    back = torch.func.grad(loss, (0, 1))(x, begin)
    along = (back[0] * tangents[0]).sum() + sum((back[1][n] * tangents[1][n]).sum() for n in "hc")
    assert gradient.item() == pytest.approx(along.item(), rel=1e-12)
    assert gradient.item() != 0


def test_vmap_over_several_sets_of_weights() -> None:
    layers = [make_layer(LSTM.cell, 3, 5) for _ in range(3)]
    x = torch.randn(T, B, 3, dtype=torch.float64)
    weights, buffers = torch.func.stack_module_state(layers)

    def run(weights: Any, buffers: Any) -> tuple[Tensor, State]:
        result: tuple[Tensor, State] = torch.func.functional_call(layers[0], (weights, buffers), (x,))
        return result

    y, state = torch.func.vmap(run)(weights, buffers)
    for k, layer in enumerate(layers):
        expected, end = layer(x)
        assert torch.allclose(y[k], expected, rtol=0, atol=1e-14)
        assert torch.allclose(state.layers[0][0]["c"][k], end["c"][0], rtol=0, atol=1e-14)


def test_copies_are_the_same_and_apart() -> None:
    layer = make_layer(LSTM.cell, 3, 5, num_layers=2, bidirectional=True, learn_initial_state=True)
    x = torch.randn(T, B, 3, dtype=torch.float64)
    y = layer(x)[0]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301 - our own bytes
        assert torch.equal(twin(x)[0], y)
        with torch.no_grad():
            next(twin.parameters()).add_(1.0)
        assert not torch.equal(twin(x)[0], y)
        assert torch.equal(layer(x)[0], y)


class Half(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w / 2


def test_parametrisations_of_a_weight_count() -> None:
    layer, x = make_layer(LSTM.cell, 3, 5), torch.randn(T, B, 3, dtype=torch.float64)
    halved = copy.deepcopy(layer)
    with torch.no_grad():
        halved.get_parameter("l0.i.h").div_(2)
    parametrize.register_parametrization(layer.get_submodule("l0.i"), "h", Half())
    assert torch.equal(layer(x)[0], halved(x)[0])


def test_pruned_weights_follow_what_they_are_made_of() -> None:
    layer, x = make_layer(LSTM.cell, 3, 5), torch.randn(T, B, 3, dtype=torch.float64)
    plain = copy.deepcopy(layer)
    prune.l1_unstructured(layer.get_submodule("l0.i"), "h", amount=10)
    mask, original = layer.get_buffer("l0.i.h_mask"), layer.get_parameter("l0.i.h_orig")
    assert int(mask.sum()) == 15
    for _ in range(2):  # the second time with weights that have moved
        with torch.no_grad():
            original.mul_(1.5)
            plain.get_parameter("l0.i.h").copy_(original * mask)
        y, _ = layer(x)
        assert torch.equal(y, plain(x)[0])
        y.square().sum().backward()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_the_older_weight_norm_counts() -> None:
    layer, x = make_layer(LSTM.cell, 3, 5), torch.randn(T, B, 3, dtype=torch.float64)
    doubled = copy.deepcopy(layer)
    torch.nn.utils.weight_norm(layer.get_submodule("l0.i"), "h")
    with torch.no_grad():
        doubled.get_parameter("l0.i.h").mul_(2)
        layer.get_parameter("l0.i.h_g").mul_(2)
    assert torch.allclose(layer(x)[0], doubled(x)[0], rtol=0, atol=1e-12)


def test_reset_parameters_draws_anew() -> None:
    layer = Recurrent("lstm", 3, 5, learn_initial_state=True)
    torch.manual_seed(4)
    layer.reset_parameters()
    other = Recurrent("lstm", 3, 5, learn_initial_state=True)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    torch.manual_seed(4)
    other.reset_parameters()
    for name, p in layer.named_parameters():
        assert torch.equal(p, other.get_parameter(name)), name
    assert not layer.get_parameter("start_l0.h").any()
    assert layer.get_parameter("l0.f.bias").tolist() == [1.0] * 5


def test_from_the_meta_device_to_this_one() -> None:
    layer = Recurrent("lstm", 3, 5, learn_initial_state=True, device="meta")
    assert all(p.is_meta for p in layer.parameters())
    y, state = layer(torch.empty(T, B, 3, device="meta"))
    assert (y.shape, y.is_meta, state["h"].is_meta) == ((T, B, 5), True, True)
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert torch.isfinite(layer(torch.randn(T, B, 3))[0]).all()


def test_names_of_the_state_dict() -> None:
    layer = Recurrent("lstm_peephole", 3, 5, num_layers=2, bidirectional=True, learn_initial_state=True)
    own = [f"{gate}.{part}" for gate in "ifgo" for part in ("x", "h", "bias")] + ["p_i", "p_f", "p_o"]
    places = ["l0", "l0_reverse", "l1", "l1_reverse"]
    expected = {f"{place}.{name}" for place in places for name in own} | {
        f"start_{p}.{s}" for p in places for s in "hc"
    }
    assert set(layer.state_dict()) == expected
    assert layer.get_parameter("l1.i.x").shape == (5, 10)


def test_two_thousand_steps_go_back() -> None:
    layer = make_layer(LSTM.cell, 2, 3)
    x = torch.randn(2000, 2, 2, dtype=torch.float64, requires_grad=True)
    y, _ = layer(x)
    y.square().mean().backward()
    assert x.grad is not None
    assert x.grad[0].any()
    assert torch.isfinite(x.grad).all()
