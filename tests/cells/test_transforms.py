"""Transforms of cells: their oracles, what they refuse, and how they compose."""

from collections.abc import Callable

import pytest
import torch

from oracles import ORACLES
from oracles.agreement import assert_agreement, assert_close, random_setting, run_numpy
from tidegate.cells import CELLS, get
from tidegate.cells.transforms import (
    clip_gradients,
    clip_values,
    couple,
    hard,
    layer_norm_gates,
    peepholes,
    projection,
    recurrent_dropout,
    residual,
    variant,
    weight_drop,
    zoneout,
)
from tidegate.equations import Cell, Rate, cell, linear, sigmoid, tanh
from tidegate.errors import ArgumentError, EquationError
from tidegate.reference import step, torch_ops

LSTM, GRU, ELMAN = get("lstm"), get("gru"), get("elman")
MADE: dict[str, tuple[Cell, str]] = {
    "zoneout of each state": (zoneout(LSTM, c=0.5, h=0.05), "lstm_zoneout"),
    "zoneout of all states": (zoneout(LSTM, 0.1), "lstm_zoneout_together"),
    "dropout of a state": (recurrent_dropout(get("gru_reset_after"), 0.25), "gru_state_dropout"),
    "dropout of a candidate": (recurrent_dropout(LSTM, 0.4, on="g"), "lstm_candidate_dropout"),
    "weight drop": (weight_drop(ELMAN, 0.5), "elman_weight_drop"),
    "normalised gates": (layer_norm_gates(LSTM), "lstm_gates_normalised"),
    "peepholes": (peepholes(LSTM), "lstm_peephole"),
    "coupled gates": (couple(LSTM), "lstm_coupled"),
    "projection": (projection(LSTM), "lstm_projection"),
    "residual state": (residual(ELMAN), "elman_residual"),
    "hard activations": (hard(GRU), "gru_hard"),
    "clipped values": (clip_values(get("elman_relu"), 0.3), "elman_relu_clipped"),
    "no input gate": (variant(get("lstm_peephole"), "nig", "Greff et al. 2015: NIG", i=1.0), "lstm_no_input_gate"),
    "no input activation": (variant(get("lstm_peephole"), "niaf", "Greff", g="identity"), "lstm_no_input_activation"),
}
OPTIONS: dict[str, dict[str, object]] = {"projection": {"peepholes": False}}
every_one = pytest.mark.parametrize("what", MADE)


@every_one
def test_agrees_with_its_oracle(what: str) -> None:
    made, oracle = MADE[what]
    assert_agreement(made, ORACLES[oracle], **OPTIONS.get(what, {}))


@every_one
def test_printed_form(what: str, golden: Callable[[str, str], None]) -> None:
    golden(f"transforms/{what.replace(' ', '_')}.txt", MADE[what][0].print() + "\n" + MADE[what][0].latex())


@every_one
def test_goes_through_json(what: str) -> None:
    made = MADE[what][0]
    read = Cell.from_json(made.to_json())
    assert read.print() == made.print()
    assert {n: v.op for n, v in read.graph.masks.items()} == {n: v.op for n, v in made.graph.masks.items()}
    assert made.diagram().startswith("<svg")


def test_gradients_are_clipped_on_the_way_back_only() -> None:
    made = clip_gradients(ELMAN, 0.5)
    assert_same_values(made, ELMAN)
    sizes = {"I": 2, "H": 3}
    weights = {"h.x": torch.zeros(3, 2), "h.h": torch.diag(torch.tensor([4.0, 0.25, -3.0])), "h.bias": torch.zeros(3)}
    h = torch.zeros(1, 3, requires_grad=True)
    _, new = step(made.graph, weights, {"x": torch.zeros(1, 2)}, {"h": h}, torch_ops, sizes)
    (gradient,) = torch.autograd.grad(new["h"].sum(), [h])
    assert gradient.tolist() == [[0.5, 0.25, -0.5]]


def assert_same_values(one: Cell, other: Cell) -> None:
    setting = random_setting(other.graph)
    assert_close(run_numpy(one.graph, setting), run_numpy(other.graph, setting))


def test_their_strength_is_an_option() -> None:
    made = zoneout(LSTM, c=0.5, h=0.05)
    assert made.options == {"forget_bias": 1.0, "zoneout_c": 0.5, "zoneout_h": 0.05}
    other = made(zoneout_c=0.2, forget_bias=2.0)
    assert other.options == {"forget_bias": 2.0, "zoneout_c": 0.2, "zoneout_h": 0.05}
    assert Cell.from_json(made.to_json())(zoneout_c=0.2).print() == made(zoneout_c=0.2).print()


def test_they_compose() -> None:
    made = zoneout(peepholes(layer_norm_gates(couple(LSTM))), 0.1)
    assert list(made.graph.weights) == [
        "f.x", "f.h", "f.bias", "g.x", "g.h", "g.bias", "o.x", "o.h", "o.bias",
        "f.gain", "g.gain", "o.gain", "p_f", "p_o",
    ]  # fmt: skip
    assert [s.name for s in made.graph.states] == ["h", "c"]
    assert [(i.name, i.rate) for i in made.graph.inputs] == [("x", Rate.INPUT), ("zoneout_mask", Rate.INPUT)]


def test_zoneout_leaves_bookkeeping_alone() -> None:
    @cell(states="h c | n:1", source="a test")
    def counting(x, h, c, n):
        c = 0.5 * c + tanh(linear("c", x, h))
        h = tanh(c) * sigmoid(linear("o", x, h)) + 0.0 * n
        return h, c, n + 1.0

    assert list(zoneout(counting, 0.3).graph.masks) == ["zoneout_mask"]
    made = zoneout(counting, 0.3).graph
    assert made.new["n"].op == "add"
    assert [made.new[s].op for s in ("h", "c")] == ["add", "add"]
    assert made.named["c~1"].op == "add"


REFUSED: dict[str, tuple[Callable[[], Cell], str]] = {
    "zoneout of nothing": (
        lambda: zoneout(LSTM),
        "zoneout takes one probability, or one for each named state, as in c=0.5, h=0.05",
    ),
    "zoneout twice": (
        lambda: zoneout(zoneout(LSTM, 0.1), 0.2),
        "cell 'lstm_zoneout' already has an option 'zoneout': zoneout was applied to it before",
    ),
    "a probability above 1": (
        lambda: zoneout(LSTM, 1.5),
        "zoneout takes a probability of at least 0 and at most 1, got 1.5",
    ),
    "everything dropped": (
        lambda: recurrent_dropout(LSTM, 1.0),
        "recurrent_dropout takes a probability of at least 0 and below 1, got 1.0",
    ),
    "an unknown state": (lambda: zoneout(GRU, c=0.5), "zoneout: cell 'gru' has the states h, got 'c'"),
    "an unknown value": (
        lambda: recurrent_dropout(GRU, 0.5, on="g"),
        "recurrent_dropout: cell 'gru' computes no 'g'; it has r, z, n, h",
    ),
    "an unknown rate": (
        lambda: recurrent_dropout(GRU, 0.5, per="epoch"),  # type: ignore[arg-type]
        "recurrent_dropout: per must be 'sequence' or 'step', got 'epoch'",
    ),
    "an unknown linear": (
        lambda: layer_norm_gates(GRU, ["i"]),
        "layer_norm_gates: cell 'gru' has the linears r, z, n, got 'i'",
    ),
    "no cell state": (lambda: peepholes(GRU), "peepholes: cell 'gru' has the states h, got 'c'"),
    "no gate": (
        lambda: peepholes(ELMAN, "h"),
        "peepholes: cell 'elman' has the gates (none), got none",
    ),
    "a gate of itself": (
        lambda: couple(LSTM, "i", "c"),
        "couple: 'i' of cell 'lstm' cannot be computed from 'c', which is the same gate, computed from it, or of "
        "another size",
    ),
    "a projection of what is read unit by unit": (
        lambda: projection(GRU),
        "projection: cell 'gru' reads state 'h' unit by unit, so it cannot have another size",
    ),
    "a projection twice": (
        lambda: projection(projection(LSTM)),
        "projection: size P is taken in cell 'lstm_projection': choose another letter",
    ),
    "nothing to make hard": (lambda: hard(get("elman_relu")), "hard: cell 'elman_relu' has neither sigmoid nor tanh"),
    "a limit of 0": (lambda: clip_values(ELMAN, 0.0), "clip_values takes a finite limit above 0, got 0.0"),
    "no variant": (
        lambda: variant(LSTM, "v", "s"),
        "variant: no value of cell 'lstm' is replaced: name one, as in i=1.0",
    ),
    "not the identity": (
        lambda: variant(LSTM, "v", "s", c="identity"),
        "variant: 'c' of cell 'lstm' is not a function of one value",
    ),
    "neither number nor identity": (
        lambda: variant(LSTM, "v", "s", i="tanh"),
        "variant: 'i' must be replaced by a number or by 'identity', got 'tanh'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_they_refuse(what: str) -> None:
    make, message = REFUSED[what]
    with pytest.raises(ArgumentError) as caught:
        make()
    assert str(caught.value) == message


def test_names_collide_loudly() -> None:
    with pytest.raises(EquationError) as caught:
        projection(projection(LSTM), size="Q")
    assert str(caught.value) == (
        "cell 'lstm_projection' already has 'p.m': this transform, or another that uses the name, was applied before"
    )
    with pytest.raises(ArgumentError) as refused:
        layer_norm_gates(layer_norm_gates(LSTM, ["i"]), ["f"])
    assert str(refused.value) == (
        "cell 'lstm_layer_norm' already has an option 'norm_epsilon': layer_norm was applied to it before"
    )


def test_without_recurrent_products_there_is_nothing_to_drop() -> None:
    @cell(states="h", source="a test")
    def unit_by_unit(x, h):
        h = 0.5 * h + tanh(linear("h", x))
        return h

    with pytest.raises(ArgumentError) as caught:
        weight_drop(unit_by_unit, 0.5)
    assert str(caught.value) == "weight_drop: cell 'unit_by_unit' multiplies no state by a matrix of weights"


def test_every_shipped_cell_takes_what_fits_all() -> None:
    for made in CELLS.values():
        for found in (zoneout(made, 0.2), clip_values(made, 5.0), clip_gradients(made, 1.0)):
            assert found.print()
