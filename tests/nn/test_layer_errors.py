"""Every error of layers, in its whole text."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import tidegate as tg
from catalogue import HARD
from layer_cases import told_once
from tidegate.cells import CELLS
from tidegate.equations import cell, linear, mean, tanh, total, weight
from tidegate.errors import ArgumentError
from tidegate.nn import Recurrent, State, clip_norm_, clip_value_


def refused(message: str, call: Any, *args: Any, **options: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        call(*args, **options)
    assert str(caught.value) == message


# Making a layer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers must be a whole number of 1 or more, got 0"),
        ({"num_layers": True}, "num_layers must be a whole number of 1 or more, got True"),
        ({"num_layers": 2.0}, "num_layers must be a whole number of 1 or more, got 2.0"),
        ({"dropout": 1.0, "num_layers": 2}, "dropout must be a probability in [0, 1), got 1.0"),
        ({"dropout": -0.1, "num_layers": 2}, "dropout must be a probability in [0, 1), got -0.1"),
        ({"dropout": "much", "num_layers": 2}, "dropout must be a probability in [0, 1), got 'much'"),
        ({"dropout": 0.5}, "dropout=0.5 acts between layers, but num_layers=1: omit it or add layers"),
        ({"merge": "max", "bidirectional": True}, "merge must be 'concat', 'sum' or 'mean', got 'max'"),
        ({"merge": "sum"}, "merge='sum' joins two directions, but the layer has one: set bidirectional=True"),
        ({"S": 4}, "cell 'lstm' has no size 'S'; besides I and H it has none"),
        ({"I": 4}, "cell 'lstm' has no size 'I'; besides I and H it has none"),
        ({"num_layer": 2}, "Recurrent has no option 'num_layer': did you mean num_layers?"),
        ({"batchfirst": True}, "Recurrent has no option 'batchfirst': did you mean batch_first?"),
        (
            {"nonlinearity": "relu"},
            "Recurrent has no option 'nonlinearity': it has num_layers, bidirectional, merge, dropout, batch_first, "
            "learn_initial_state, init, device, dtype; torch's are those of tg.LSTM",
        ),
        ({"bidirectional": "False"}, "bidirectional must be True or False, got 'False'"),
        ({"batch_first": 0.5}, "batch_first must be True or False, got 0.5"),
        ({"learn_initial_state": None}, "learn_initial_state must be True or False, got None"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    refused(message, Recurrent, "lstm", 3, 5, **options)


def test_sizes() -> None:
    refused("input_size must be a whole number of 1 or more, got 0", Recurrent, "lstm", 0, 5)
    refused("hidden_size must be a whole number of 1 or more, got 5.0", Recurrent, "lstm", 3, 5.0)
    refused("hidden_size must be a whole number of 1 or more, got True", Recurrent, "lstm", 3, True)
    refused("S must be a whole number of 1 or more, got -1", Recurrent, HARD["scrn"], 3, 5, S=-1)
    refused("cell 'scrn' needs the size S: pass it as in S=8", Recurrent, HARD["scrn"], 3, 5)
    refused("cell 'scrn' has no size 'G'; besides I and H it has S", Recurrent, HARD["scrn"], 3, 5, S=2, G=3)
    refused(
        "cell 'lru' reads its input unit by unit (x:H), so input_size must be 5, got 3: put a linear layer before it",
        Recurrent,
        CELLS["lru"],
        3,
        5,
        N=2,
    )
    refused(
        "weight 'z.h' of 6 x 6 cannot be cut into 4 blocks: choose sizes divisible by 4",
        Recurrent,
        CELLS["slstm"],
        3,
        6,
    )


def test_groups_that_do_not_divide() -> None:
    refused(
        "cell 'lstm_blocks_1997' shares 4 values among 6 units, but 6 is not a multiple of 4: choose other sizes",
        Recurrent,
        HARD["lstm_blocks_1997"],
        3,
        6,
        G=4,
    )

    @cell(states="h", source="a test")
    def grouped(x, h):
        h = tanh(linear("h", x, h) + mean(total(h, to="G")))
        return h

    refused(
        "cell 'grouped' shares 4 values among 6 units, but 6 is not a multiple of 4: choose other sizes",
        Recurrent,
        grouped,
        3,
        6,
        G=4,
    )


def test_what_is_no_cell() -> None:
    said = "decorate a function with @cell to make one"
    refused(f"a layer takes a Cell or the name of one, got 3: {said}", Recurrent, 3, 3, 5)
    refused(f"a layer takes a Cell or the name of one, got the class LSTM: {said}", Recurrent, tg.LSTM, 3, 5)
    refused(
        "there is no cell 'lstmm': did you mean lstm or slstm or min_lstm? `tidegate cells` lists them all",
        Recurrent,
        "lstmm",
        3,
        5,
    )


def test_learned_starts_of_bookkeeping_states() -> None:
    @cell(states="| h", source="a test")
    def counting(x, h):
        h = tanh(linear("h", x, h))
        return h

    refused(
        "cell 'counting' has only bookkeeping states, whose initial values cannot be learned",
        Recurrent,
        counting,
        3,
        5,
        learn_initial_state=True,
    )


def test_a_cell_without_weights() -> None:
    @cell(states="h", inputs="x:H", source="a test")
    def smooth(x, h, *, keep=0.9):
        h = keep * h + (1 - keep) * x
        return h

    refused(
        "cell 'smooth' has no weights, which give a layer its dtype and device: add one, as in "
        "weight('scale', init=1.0, learn=False)",
        Recurrent,
        smooth,
        5,
        5,
    )


@pytest.mark.parametrize(
    ("name", "weights"), [("tensors", "tensors"), ("reset_parameters.x", "reset_parameters"), ("_graph", "_graph")]
)
def test_a_weight_that_has_no_room_in_the_module(name: str, weights: str) -> None:
    @cell(states="h", source="a test")
    def unlucky(x, h):
        h = tanh(linear("n", x, h) if "." not in name else linear(weights, x, h))
        return h if "." in name else h * weight(weights)

    refused(
        f"weight {name!r} of cell 'unlucky' needs another name: modules have an attribute {weights!r} of their own",
        Recurrent,
        unlucky,
        3,
        5,
    )


def test_weights_may_be_called_as_a_layer_calls_its_parts() -> None:
    @cell(states="h", source="a test")
    def lucky(x, h):
        h = tanh(linear("sizes", x, h) + weight("graph") + weight("names") + weight("l0") + weight("cell"))
        return h

    assert {"l0.sizes.x", "l0.graph", "l0.names", "l0.l0", "l0.cell"} <= set(Recurrent(lucky, 3, 5).state_dict())


def test_an_extra_input_of_size_i_above_the_first_layer() -> None:
    refused(
        "input 'm' of cell 'gru_d' has the size I, which is 3 in the first layer and 5 above: build single layers "
        "and stack them with Stack",
        Recurrent,
        HARD["gru_d"],
        3,
        5,
        num_layers=2,
    )
    Recurrent(HARD["gru_d"], 5, 5, num_layers=2)


# Calling it


def lstm(**options: Any) -> Recurrent:
    return Recurrent("lstm", 3, 5, **options)


X = torch.zeros(6, 4, 3)


def test_shapes_of_the_input() -> None:
    refused("input 'x' must be [T, B, size] = [6, 4, 3], got [6, 4, 2]", lstm(), X[..., :2])
    refused("input 'x' must be [B, T, size] = [6, 4, 3], got [6, 4, 2]", lstm(batch_first=True), X[..., :2])
    refused("input 'x' must be [T, B, size] = [6, 4, 3], got [6, 4, 3, 1]", lstm(), X[..., None])
    refused("input 'x' must be [T, B, size], got [3]", lstm(), X[0, 0])
    refused("input 'x' must be [B, T, size], got []", lstm(batch_first=True), torch.tensor(1.0))
    refused("input 'x' must be a tensor, got list: use torch.as_tensor(x)", lstm(), [[0.0]])
    refused("input 'x' must be a tensor, got ndarray: use torch.as_tensor(x)", lstm(), X.numpy())
    refused(
        "input 'x' must be a tensor, got list: use torch.nn.utils.rnn.pad_sequence(x) with lengths=[...]",
        lstm(),
        [X[:3, 0], X[:, 1]],
    )


@pytest.mark.usefixtures("reference_path_notice")
def test_types_of_the_input() -> None:
    said = "pass x.to(torch.float32), or convert the layer with .to(dtype)"
    refused(f"input 'x' is torch.float64, but the weights are torch.float32: {said}", lstm(), X.double())
    refused(f"input 'x' is torch.complex64, but the weights are torch.float32: {said}", lstm(), X.to(torch.complex64))
    refused(f"input 'x' is torch.float64, but the weights are torch.float32: {said}", lstm().step, X[0].double())
    refused(f"input 'x' is torch.float64, but the weights are torch.float32: {said}", lstm().trace, X.double())
    layer = Recurrent(HARD["gru_d"], 3, 5)
    refused(f"input 'm' is torch.bool, but the weights are torch.float32: {said}", layer, {"x": X, "m": X > 0, "d": X})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer({"x": X.bfloat16(), "m": X, "d": X.half()})
        refused(f"input 'x' is torch.float64, but the weights are torch.float32: {said}", lstm(), X.double())
        refused(
            f"input 'm' is torch.int64, but the weights are torch.float32: {said}",
            layer,
            {"x": X, "m": X.long(), "d": X},
        )


def test_names_of_the_inputs() -> None:
    layer = Recurrent(told_once, 3, 5, S=2)
    wanted = "{'x': tensor, 'who': tensor, 'rate': tensor}"
    refused(f"cell 'told_once' takes the inputs x, who, rate, got x: give them as {wanted}", layer, X)
    refused(
        f"cell 'told_once' takes the inputs x, who, rate, got x, whom, 1: give them as {wanted}",
        layer,
        {"x": X, "whom": X, 1: X},
    )
    refused(f"cell 'told_once' takes the inputs x, who, rate, got none: give them as {wanted}", layer, {})
    refused(
        "input 'who' must be [B, size] = [4, 2], got [6, 2]",
        layer,
        {"x": X, "who": torch.zeros(6, 2), "rate": torch.zeros(4, 1)},
    )


def test_indices() -> None:
    layer, index = lstm(), torch.tensor([[0, 2], [1, 3]])
    refused("indices of a one-hot of size 3 must be between 0 and 2, got 0 to 3", layer, index)
    refused("indices of a one-hot of size 3 must be between 0 and 2, got -1 to 2", layer, index - 1)
    refused("indices of a one-hot of size 3 must be between 0 and 2, got 2 to 3", layer, index, lengths=[0, 2])
    refused(
        "input 'x' must be [T, B] of whole numbers (indices of one-hots; numbers need .float()) = [6, 4], got "
        "[6, 4, 3]",
        layer,
        X.long(),
    )
    refused(
        "input 'x' must be [B, T] of whole numbers (indices of one-hots; numbers need .float()) = [6, 4], got "
        "[6, 4, 3]",
        lstm(batch_first=True),
        X.long(),
    )
    said = "it cannot be an index of a one-hot: pass one-hots, as in torch.nn.functional.one_hot(x, size).float()"
    delayed = Recurrent(HARD["qrnn"], 3, 5)
    refused(f"cell 'qrnn' does more with 'x' than multiply it, so {said}", delayed, index)
    lru = Recurrent(CELLS["lru"], 3, 3, N=2)
    refused(f"cell 'lru' does more with 'x' than multiply it, so {said}", lru, index)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([6, 4, 2], "lengths must be 4 whole numbers, one per row, got [3] of torch.int64"),
        ([6.0, 4.0, 2.0, 1.0], "lengths must be 4 whole numbers, one per row, got [4] of torch.float32"),
        ([True] * 4, "lengths must be 4 whole numbers, one per row, got [4] of torch.bool"),
        (6, "lengths must be 4 whole numbers, one per row, got [] of torch.int64"),
        ([], "lengths must be 4 whole numbers, one per row, got [0] of torch.int64"),
        ("long", "lengths must be 4 whole numbers, one per row, got 'long'"),
        ([[1], [2, 3]], "lengths must be 4 whole numbers, one per row, got [[1], [2, 3]]"),
        ([7, 0, 1, 2], "lengths must be between 0 and the 6 steps of the input, got 0 to 7"),
        ([6, -1, 1, 2], "lengths must be between 0 and the 6 steps of the input, got -1 to 6"),
    ],
)
def test_lengths(lengths: Any, message: str) -> None:
    refused(message, lstm(), X, lengths=lengths)


def test_reset() -> None:
    refused("reset must be [T, B] = [6, 4], one flag per step and row, got [4, 6]", lstm(), X, reset=torch.zeros(4, 6))
    refused(
        "reset must be [B, T] = [6, 4], one flag per step and row, got [4, 6]",
        lstm(batch_first=True),
        X,
        reset=torch.zeros(4, 6),
    )
    refused("reset must hold booleans, or 0 and 1, got 0.5", lstm(), X, reset=torch.full((6, 4), 0.5))
    refused("reset must hold booleans, or 0 and 1, got 2", lstm(), X, reset=torch.full((6, 4), 2))
    refused("reset must hold booleans, or 0 and 1, got nan", lstm(), X, reset=[[float("nan")] * 4] * 6)
    refused("reset must be one flag per step and row, got 'often'", lstm(), X, reset="often")
    refused("reset must be [T, B] = [6, 4], one flag per step and row, got []", lstm(), X, reset=True)


def test_packed_sequences() -> None:
    packed = pack_padded_sequence(X, torch.tensor([6, 4, 2, 1]))
    refused("a PackedSequence has its own lengths: omit lengths=", lstm(), packed, lengths=[6, 4, 2, 1])
    refused(
        "trace takes sequences of equal length, got a PackedSequence: trace its sequences one by one",
        lstm().trace,
        packed,
    )


def test_states() -> None:
    h = torch.zeros(1, 4, 5)
    refused(
        "state must be a tidegate.State as returned by a layer, got tuple. Make one of tensors [B, size] as "
        "State([[{'h': h, 'c': c}]]), with a mapping for each layer and direction",
        lstm(),
        X,
        (h, h),
    )
    said = "the state does not fit this layer and batch:"
    three = "layer 0 has h [3, 5], c [3, 5], expected h [4, 5], c [4, 5]"
    refused(f"{said} {three}", lstm(), X, lstm().initial_state(3))
    refused(f"{said} layer 0 has h [4, 5], expected h [4, 5], c [4, 5]", lstm(), X, State([[{"h": h[0]}]]))
    refused(f"{said} its number of layers is 2, expected 1", lstm(), X, lstm(num_layers=2).initial_state(4))
    both = lstm(bidirectional=True)(X)[1]
    form = "h [4, 5], c [4, 5]"
    refused(f"{said} layer 0 has {form} and backwards {form}, expected {form}", lstm(), X, both)


def test_states_that_do_not_fit_an_input_of_other_axes() -> None:
    said = "the state does not fit this layer and batch: layer 0 has h [4, 5], c [4, 5], expected"
    state = lstm()(X)[1]
    refused(
        f"{said} h [6, 5], c [6, 5]; x is read as [T, B, I]: if it is [B, T, I], make the layer with batch_first=True",
        lstm(),
        X.transpose(0, 1),
        state,
    )
    refused(
        f"{said} h [6, 5], c [6, 5]; x is read as [B, T, I]: if it is [T, B, I], make the layer with batch_first=False",
        lstm(batch_first=True),
        X,
        lstm().initial_state(4),
    )
    refused(
        f"{said} h [1, 5], c [1, 5]; x of two axes is one sequence [T, I]: for one step of a batch call "
        "layer.step(x, state)",
        lstm(),
        X[0],
        state,
    )
    refused(
        "h_0 must be [1, 6, 5], got [1, 4, 5]; x is read as [T, B, I]: if it is [B, T, I], make the layer with "
        "batch_first=True",
        tg.GRU(3, 5),
        X.transpose(0, 1),
        torch.zeros(1, 4, 5),
    )


@pytest.mark.parametrize("batch", [-1, 2.0, None])
def test_numbers_of_rows(batch: Any) -> None:
    said = f"batch must be a whole number of 0 or more, got {batch!r}"
    refused(said, lstm().initial_state, batch)
    refused(said, lstm().stepper, batch)


def test_numbers_of_numpy_are_numbers() -> None:
    two, yes = np.int32(2), np.bool_(True)
    layer = Recurrent(HARD["scrn"], np.int64(3), two, num_layers=two, S=two, dropout=np.float32(0.5), batch_first=yes)
    assert [type(v) for v in (layer.input_size, layer.hidden_size, layer.num_layers, layer.sizes["S"])] == [int] * 4
    assert repr(layer) == repr(Recurrent(HARD["scrn"], 3, 2, num_layers=2, S=2, dropout=0.5, batch_first=True))
    assert layer.initial_state(two).batch_size == layer.stepper(two).batch == 2
    assert repr(tg.LSTM(two, np.int64(5), num_layers=two)) == "LSTM(2, 5, num_layers=2)"


def test_flags_that_are_not_booleans() -> None:
    layer, flags = lstm(), torch.rand(6, 4) < 0.3
    y = layer(X, reset=flags)[0]
    for same in (flags.float(), flags.int(), flags.numpy(), flags.tolist()):
        assert torch.equal(layer(X, reset=same)[0], y)


def test_both_directions_refuse_what_has_not_come() -> None:
    layer = lstm(bidirectional=True)
    _, state = layer(X)
    refused(
        "a bidirectional layer cannot continue from a state: its backward direction starts at the end of the "
        "sequence. Pass the whole sequence, or use one direction",
        layer,
        X,
        state,
    )
    calls: dict[str, Any] = {
        "step": lambda: layer.step(X[0]),
        "stepper": layer.stepper,
        "trace": lambda: layer.trace(X),
    }
    for what, call in calls.items():
        refused(
            f"a bidirectional layer has no {what}: its backward direction needs the end of the sequence first. Use "
            "one direction",
            call,
        )


def test_step() -> None:
    refused("step takes x_t of shape [B, 3], or integers [B], got [3]", lstm().step, X[0, 0])
    refused("step takes x_t of shape [B, 3], or integers [B], got []", lstm().step, torch.tensor(1))


# Clipping


def parameters() -> list[Tensor]:
    found = [torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True), torch.zeros(1, requires_grad=True)]
    found[0].grad, found[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, -4.0, 0.0])
    return found


def test_clip_norm_scales_all_together() -> None:
    found = parameters()
    assert clip_norm_(iter(found), 2.5).item() == 5.0
    assert torch.allclose(found[0].grad, torch.tensor([1.5, 0.0]))
    assert torch.allclose(found[1].grad, torch.tensor([0.0, -2.0, 0.0]))
    assert clip_norm_(found, 10).item() == pytest.approx(2.5)
    assert torch.allclose(found[1].grad, torch.tensor([0.0, -2.0, 0.0]))
    assert found[2].grad is None


def test_clip_norm_of_what_is_not_finite() -> None:
    found = parameters()
    found[0].grad[0] = torch.inf
    assert clip_norm_(found, 1.0).item() == torch.inf
    assert found[0].grad.isnan().any()


def test_clip_value_clips_each() -> None:
    found = parameters()
    clip_value_(iter(found), 3.5)
    assert (found[0].grad.tolist(), found[1].grad.tolist()) == ([3.0, 0.0], [0.0, -3.5, 0.0])


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), "1", None])
def test_limits_are_positive(limit: Any) -> None:
    refused(f"max_norm must be a positive number, got {limit!r}", clip_norm_, parameters(), limit)
    refused(f"limit must be a positive number, got {limit!r}", clip_value_, parameters(), limit)


def test_repr() -> None:
    shown = repr(
        tg.Recurrent("gru", 3, 5, num_layers=2, bidirectional=True, merge="sum", dropout=0.1, batch_first=True)
    )
    assert "Cell(gru), 3, 5, num_layers=2, bidirectional=True, merge='sum', dropout=0.1, batch_first=True" in shown
    assert "(l1_reverse): CellWeights(\n    gru, H=5, I=5" in shown
