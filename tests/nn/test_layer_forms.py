"""The forms in which sequences come: one alone, batch first, packed, indices, other types, other memory, padding."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from catalogue import EVERY, HARD
from layer_cases import CASES, PRODUCTS, B, T, assert_same, by_name, gradients, make_inputs, make_layer, make_state
from tidegate.cells import CELLS
from tidegate.equations import cell, linear, log, tanh
from tidegate.nn import Recurrent

LENGTHS = [4, 0, 6, 1]


def lstm(**options: Any) -> Recurrent:
    return make_layer(CELLS["lstm"], 3, 5, **options)


def an_input() -> Tensor:
    return torch.randn(T, B, 3, dtype=torch.float64)


def test_one_sequence_alone_is_a_batch_of_one() -> None:
    layer, x = lstm(num_layers=2, bidirectional=True), an_input()[:, :1]
    reset = torch.tensor([0, 0, 1, 0, 1, 0])
    y, state = layer(x[:, 0], lengths=5, reset=reset)
    expected, end = layer(x, lengths=[5], reset=reset[:, None])
    assert y.shape == (T, 10)
    assert_same(by_name(y, state.layers), by_name(expected[:, 0], end.layers), 0)


def test_one_sequence_alone_with_inputs_that_come_once() -> None:
    case = next(c for c in CASES if c.name == "told_once")
    layer = make_layer(case.cell)
    inputs = make_inputs(case, layer, T, 1)
    alone = {"x": inputs["x"][:, 0], "who": inputs["who"][0], "rate": inputs["rate"][0]}
    assert torch.equal(layer(alone)[0], layer(inputs)[0][:, 0])


def test_batch_first_turns_inputs_outputs_and_resets() -> None:
    layer = lstm(num_layers=2, bidirectional=True)
    first = lstm(num_layers=2, bidirectional=True, batch_first=True)
    first.load_state_dict(layer.state_dict())
    x, reset = an_input(), torch.rand(T, B) < 0.3
    y, state = layer(x, lengths=LENGTHS, reset=reset)
    turned, end = first(x.transpose(0, 1), lengths=LENGTHS, reset=reset.t())
    assert_same(by_name(turned.transpose(0, 1), end.layers), by_name(y, state.layers), 0)


def test_batch_first_leaves_inputs_that_come_once() -> None:
    case = next(c for c in CASES if c.name == "told_once")
    layer, first = make_layer(case.cell), make_layer(case.cell, batch_first=True)
    first.load_state_dict(layer.state_dict())
    inputs = make_inputs(case, layer)
    turned = {**inputs, "x": inputs["x"].transpose(0, 1)}
    assert torch.equal(first(turned)[0].transpose(0, 1), layer(inputs)[0])


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_goes_in_and_comes_out(ordered: bool, batch_first: bool) -> None:
    lengths = [6, 4, 2, 1] if ordered else [2, 6, 1, 4]
    layer, x = lstm(num_layers=2, bidirectional=True, batch_first=batch_first), an_input().requires_grad_()
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=ordered)
    y, state = layer(packed)
    assert isinstance(y, PackedSequence)
    if ordered:
        assert y.sorted_indices is None
    else:
        assert torch.equal(y.sorted_indices, packed.sorted_indices)
        assert torch.equal(y.unsorted_indices, packed.unsorted_indices)
    padded, found = pad_packed_sequence(y)
    assert found.tolist() == lengths
    plain = x.transpose(0, 1) if batch_first else x
    expected, end = layer(plain, lengths=lengths)
    expected = expected.transpose(0, 1) if batch_first else expected
    ours, theirs = by_name(padded, state.layers), by_name(expected, end.layers)
    leaves = {"x": x, **dict(layer.named_parameters())}
    assert_same(ours, theirs, 0)
    assert_same(gradients(ours, leaves), gradients(theirs, leaves), 1e-14)


def test_packed_as_torch_packs_it() -> None:
    """Every field of the result is what nn.LSTM gives for the same."""
    module, layer = nn.LSTM(3, 5), Recurrent("lstm", 3, 5)
    packed = pack_padded_sequence(torch.randn(T, B, 3), torch.tensor([2, 6, 1, 4]), enforce_sorted=False)
    ours, theirs = layer(packed)[0], module(packed)[0]
    assert ours.data.shape == theirs.data.shape
    for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(ours, field), getattr(theirs, field))


@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor, lambda n: torch.tensor(n, dtype=torch.int32)])
def test_lengths_come_in_many_forms(form: Any) -> None:
    layer, x = lstm(), an_input()
    assert torch.equal(layer(x, lengths=form(LENGTHS))[0], layer(x, lengths=LENGTHS)[0])


@pytest.mark.parametrize(
    "form", [torch.Tensor.bool, torch.Tensor.int, torch.Tensor.float, torch.Tensor.numpy, torch.Tensor.tolist]
)
def test_resets_come_in_many_forms(form: Any) -> None:
    layer, x = lstm(), an_input()
    reset = torch.rand(T, B) < 0.4
    assert torch.equal(layer(x, reset=form(reset))[0], layer(x, reset=reset)[0])


def test_no_rows_may_have_an_empty_list_of_lengths() -> None:
    y, state = lstm()(torch.zeros(4, 0, 3, dtype=torch.float64), lengths=[], reset=torch.zeros(4, 0))
    assert y.shape == (4, 0, 5)
    assert state["c"].shape == (1, 0, 5)


INDEXED = ["lstm", "gru", "elman", "lstm_projection"]


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8])
def test_whole_numbers_are_indices_of_one_hots(name: str, kind: torch.dtype) -> None:
    case = next(c for c in PRODUCTS if c.name == name)
    layer = make_layer(case.cell, 7, 5, num_layers=2, bidirectional=True)
    index = torch.randint(0, 7, (T, B)).to(kind)
    wide = nn.functional.one_hot(index.long(), 7).double()
    leaves = dict(layer.named_parameters())
    reset = torch.rand(T, B) < 0.3
    (y, state), (expected, end) = (layer(x, lengths=LENGTHS, reset=reset) for x in (index, wide))
    ours, theirs = by_name(y, state.layers), by_name(expected, end.layers)
    assert_same(ours, theirs, 1e-13)
    assert_same(gradients(ours, leaves), gradients(theirs, leaves), 1e-13)


def test_indices_step_by_step_and_alone() -> None:
    layer, index = make_layer(CELLS["lstm"], 7, 5), torch.randint(0, 7, (T, B))
    y, _ = layer(index)
    state, stepper = None, layer.stepper(B)
    for t in range(T):
        y_t, state = layer.step(index[t], state)
        assert torch.allclose(y_t, y[t], rtol=0, atol=1e-14)
        assert torch.allclose(stepper(index[t]), y[t], rtol=0, atol=1e-14)
    assert torch.allclose(layer(index[:, 0])[0], y[:, 0], rtol=0, atol=1e-14)


def test_padding_of_indices_may_be_anything() -> None:
    layer, index = make_layer(CELLS["lstm"], 7, 5), torch.randint(0, 7, (T, B))
    y, _ = layer(index, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        index[n:, b] = -100
    assert torch.equal(layer(index, lengths=LENGTHS)[0], y)


def spoil(inputs: dict[str, Tensor], once: set[str], lengths: list[int]) -> dict[str, Tensor]:
    spoiled = {k: v.detach().clone() for k, v in inputs.items()}
    for k in spoiled.keys() - once:
        for b, n in enumerate(lengths):
            spoiled[k][n::2, b], spoiled[k][n + 1 :: 2, b] = torch.nan, torch.inf
    return spoiled


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, [0] * B], ids=["some", "none"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_padding_reaches_nothing(case: Any, lengths: list[int], bidirectional: bool) -> None:
    """NaN and infinity in the padding change no value and no gradient, and resets there start nothing afresh."""
    layer = make_layer(case.cell, bidirectional=bidirectional)
    inputs = make_inputs(case, layer)
    once = {i.name for i in layer.graph.inputs if i.rate.name == "SEQUENCE"}
    state, found = None if bidirectional else make_state(layer), []
    for padding in (inputs, spoil(inputs, once, lengths)):
        leaves = dict(layer.named_parameters()) | {k: v.detach().clone().requires_grad_() for k, v in padding.items()}
        reset = torch.zeros(T, B) if padding is inputs else torch.arange(T)[:, None] >= torch.tensor(lengths)
        y, end = layer({k: leaves[k] for k in inputs}, state, lengths=lengths, reset=reset)
        results = by_name(y, end.layers)
        found.append((results, gradients(results, leaves)))
    for clean, spoiled in zip(*found, strict=True):
        assert_same(spoiled, clean, 0)


@cell(states="h", inputs="x dt:1", source="a test: 0 is no legal input")
def picky(x, dt, h):
    h = tanh(linear("h", x, h) / dt + log(dt))
    return h


@pytest.mark.parametrize("lengths", [[4, 0, 6, 1], [0, 0, 3, 0], [0, 0, 0, 0]])
def test_padding_may_lie_where_a_zero_would_be_illegal(lengths: list[int]) -> None:
    layer = make_layer(picky, 3, 5, bidirectional=True)
    dt = torch.rand(T, B, 1, dtype=torch.float64) + 0.5
    for b, n in enumerate(lengths):
        dt[n:, b] = 0.0
    dt.requires_grad_()
    y, state = layer({"x": an_input(), "dt": dt}, lengths=lengths)
    found = gradients(by_name(y, state.layers), {"dt": dt, **dict(layer.named_parameters())})
    assert all(torch.isfinite(d).all() for d in found.values())


def test_memory_that_is_not_contiguous() -> None:
    layer = lstm(bidirectional=True)
    wide = torch.randn(B, 6, 2 * T, dtype=torch.float64)
    x = wide[:, ::2, ::2].permute(2, 0, 1)
    assert not x.is_contiguous()
    (y, state), (expected, end) = layer(x, lengths=LENGTHS), layer(x.contiguous(), lengths=LENGTHS)
    assert_same(by_name(y, state.layers), by_name(expected, end.layers), 0)


def test_an_input_may_be_expanded() -> None:
    layer, x = lstm(), torch.randn(1, 1, 3, dtype=torch.float64)
    assert torch.equal(layer(x.expand(T, B, 3))[0], layer(x.repeat(T, B, 1))[0])


def test_single_precision_follows_double() -> None:
    layer, x = lstm(num_layers=2), an_input()
    y, state = layer(x)
    single, end = layer.float()(x.float())
    assert single.dtype == end["c"].dtype == torch.float32
    assert_same({"y": single.double(), "c": end["c"].double()}, {"y": y, "c": state["c"]}, 1e-6)


@pytest.mark.usefixtures("reference_path_notice")
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precisions_run(kind: torch.dtype) -> None:
    layer, x = lstm(), an_input()
    y, _ = layer(x)
    half, end = layer.to(kind)(x.to(kind))
    assert half.dtype == end["c"].dtype == kind
    assert_same({"y": half.double()}, {"y": y}, 0.05)


@pytest.mark.usefixtures("reference_path_notice")
@pytest.mark.parametrize("name", ["slstm", "clockwork", "lstm_projection"])
def test_states_stay_single_under_autocast(name: str) -> None:
    layer = Recurrent(EVERY[name], 3, 12, **({"P": 5} if name == "lstm_projection" else {}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer(torch.randn(T, B, 3))
        (y.float().square().sum()).backward()
    assert all(state[n].dtype == torch.float32 for n in state.names)
    if name == "clockwork":
        assert state["n"].flatten().tolist() == [T % 4] * B
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.usefixtures("reference_path_notice")
def test_a_counter_is_exact_under_autocast() -> None:
    """bfloat16 cannot tell 256 from 257."""
    layer = Recurrent(HARD["clockwork"](groups=10), 2, 10)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = layer(torch.randn(301, 1, 2))
    assert state["n"].item() == 301


@pytest.mark.usefixtures("reference_path_notice")
def test_autocast_gives_nearly_the_same() -> None:
    layer, x = Recurrent("lstm", 3, 5, num_layers=2), torch.randn(T, B, 3)
    y, _ = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, state = layer(x.bfloat16(), lengths=LENGTHS)
    assert state["c"].dtype == torch.float32
    kept = torch.arange(T)[:, None] < torch.tensor(LENGTHS)
    assert_same({"y": rough.double()[kept]}, {"y": y.double()[kept]}, 0.02)


def test_dropout_acts_between_layers_in_training_only() -> None:
    layer = lstm(num_layers=3, dropout=0.6)
    x = an_input()
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])
    layer.train()
    torch.manual_seed(5)
    first, _ = layer(x)
    torch.manual_seed(5)
    again, _ = layer(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, layer(x)[0])


def test_dropout_is_torchs_on_each_lower_output() -> None:
    layer = lstm(num_layers=2, dropout=0.5)
    single = [lstm(), make_layer(CELLS["lstm"], 5, 5)]
    for k, part in enumerate(single):
        part.load_state_dict({n.replace(f"l{k}.", "l0."): v for n, v in layer.state_dict().items() if n[1] == str(k)})
    x = an_input()
    torch.manual_seed(5)
    y, _ = layer(x)
    torch.manual_seed(5)
    expected, _ = single[1](nn.functional.dropout(single[0](x)[0], 0.5))
    assert torch.equal(y, expected)
