"""Every cell that ships: its oracle, its printed form, its initial values, and how it is found."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from oracles import ORACLES
from oracles.agreement import assert_agreement, positive_normaliser
from tidegate.cells import CELLS, get
from tidegate.equations import Cell, Graph
from tidegate.errors import ArgumentError
from tidegate.nn.initialise import draw

SIZES = {"I": 30, "H": 80, "P": 50, "N": 60}
PREPARE = {"slstm": {"prepare": positive_normaliser}}
OPTIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [  # a cell, its options, and what the oracle is told
    ("lstm_projection", {"peepholes": True}, {"peepholes": True}),
    ("slstm", {"heads": 3, "forget": "exp"}, {"forget": "exp"}),
    ("janet", {"beta": 0.3}, {"beta": 0.3}),
    ("sru", {"scale": 1.25}, {"scale": 1.25}),
]
every_cell = pytest.mark.parametrize("name", CELLS)


@every_cell
def test_agrees_with_its_oracle(name: str) -> None:
    assert_agreement(CELLS[name], ORACLES[name], **PREPARE.get(name, {}))


@pytest.mark.parametrize(("name", "options", "told"), OPTIONS, ids=[name for name, _, _ in OPTIONS])
def test_agrees_with_its_oracle_under_options(name: str, options: dict[str, Any], told: dict[str, Any]) -> None:
    made = CELLS[name](**options)
    read = Cell.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False)))
    assert read.print() == made.print()
    for found in (made, read):
        assert_agreement(found, ORACLES[name], **PREPARE.get(name, {}), **told)


@every_cell
def test_printed_form(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"cells/{name}.txt", CELLS[name].print())


@every_cell
def test_says_where_it_is_from_and_explains_its_gates(name: str) -> None:
    made = CELLS[name]
    assert made.name == name
    assert any(mark in made.source for mark in ("doi:", "arXiv:", "jmlr.org"))
    for label, value in made.graph.named.items():
        if not label.endswith(".net"):
            assert value.legend, f"{label} has no comment"


def test_the_issue_names_these() -> None:
    wanted = [
        "elman",
        "elman_relu",
        "irnn",
        "lstm_1997",
        "lstm",
        "lstm_peephole",
        "lstm_coupled",
        "lstm_projection",
        "lstm_full_gate_recurrence",
        "lstm_layer_norm",
        "lstm_multiplicative",
        "slstm",
        "lstm_no_input_gate",
        "lstm_no_forget_gate",
        "lstm_no_output_gate",
        "lstm_no_input_activation",
        "lstm_coupled_peephole",
        "lstm_no_output_activation",
        "gru",
        "gru_reset_after",
        "gru_layer_norm",
        "mgu",
        "janet",
        "indrnn",
        "sru",
        "min_gru",
        "min_lstm",
        "lru",
    ]
    assert [name for name in CELLS if name in wanted] == wanted


Check = Callable[[Tensor], bool]


def constant(value: float) -> Check:
    return lambda found: bool((found == value).all())


def uniform(low: float, high: float) -> Check:
    """Within the limits, and nearly up to them."""
    near = 0.1 * (high - low)
    return lambda found: bool(
        low <= found.min() < low + near and high - near < found.max() <= high and len(found.unique()) == found.numel()
    )


def normal(std: float) -> Check:
    return lambda found: bool(abs(found.mean()) < 0.2 * std and 0.8 * std < found.std() < 1.2 * std)


def glorot(shape: tuple[int, ...], gain: float = 1.0) -> Check:
    limit = gain * (6 / sum(shape[-2:])) ** 0.5
    return uniform(-limit, limit)


def orthogonal(found: Tensor) -> bool:
    """A matrix, or each block of one; and not the identity."""
    eye = torch.eye(found.shape[-1], dtype=found.dtype)
    return torch.allclose(found @ found.mT, eye.expand(found.shape), atol=1e-12) and not torch.allclose(found, eye)


def log_of_uniform(low: float, high: float) -> Check:
    return lambda found: uniform(low, high)(found.exp())


IN_THE_PAPER: dict[str, dict[str, Check]] = {
    "irnn": {"h.x": normal(0.001), "h.h": lambda found: bool((found == torch.eye(80)).all())},
    "mgu": {"f.bias": constant(0.0)},
    "slstm": {"f.bias": constant(0.0)},
    "min_lstm": {"f.bias": constant(0.0)},
    "janet": {"f.bias": log_of_uniform(1, 99)},
    "indrnn": {"u": uniform(0, 2**0.01)},
    "sru": {
        "f.bias": constant(0.0),
        **{f"v_{k}": uniform(-(1.5**0.5), 1.5**0.5) for k in "fr"},
        **{f"{k}.x": glorot((80, 80), 0.5**0.5) for k in "fr"},
    },
    "lru": {
        "nu_log": lambda found: uniform(0, 1)(torch.exp(-2 * torch.exp(found))),  # even over the unit disc
        "theta_log": lambda found: uniform(0, 6.283)(torch.exp(found)),
        "gamma_log": lambda found: uniform(0, 1)(torch.exp(2 * found)),
        "d": normal(1.0),
        **{f"b_{k}.x": glorot((60, 80), 0.5**0.5) for k in ("re", "im")},
    },
}


def forget_biases(graph: Graph) -> list[str]:
    """The weights that start at the option of that name."""
    return [n for n, init in graph.inits.items() if init.attrs.get("name") == "forget_bias"]


def expected(graph: Graph, weight: str, shape: tuple[int, ...]) -> Check:
    """What a weight starts as where its paper says nothing."""
    label = weight.rpartition(".")[2]
    if weight in forget_biases(graph) or label.startswith("gain"):
        return constant(1.0)
    if label == "bias" or label.startswith(("shift", "b_", "p_")):
        return constant(0.0)
    square = shape[-2:] == (80, 80) or len(shape) == 3
    return orthogonal if square and label != "x" else glorot(shape)


@every_cell
def test_initial_values(name: str) -> None:
    """Forget gates start open, other biases and peepholes at 0, square matrices on a state orthogonal."""
    torch.manual_seed(1)
    drawn = draw(CELLS[name].graph, SIZES)
    papers = IN_THE_PAPER.get(name, {})
    assert set(papers) <= set(drawn)
    for weight, value in drawn.items():
        check = papers.get(weight) or expected(CELLS[name].graph, weight, tuple(value.shape))
        assert check(value), f"{weight} starts at {value.flatten()[:5].tolist()} and so on"
    firsts = [round(float(v.flatten()[0]), 12) for k, v in drawn.items() if "." in k and float(v.std()) > 0]
    assert len(set(firsts)) == len(firsts), "two weights are the same draw"


def test_lru_is_normalised_within_the_ring_that_is_asked_for() -> None:
    drawn = draw(CELLS["lru"](r_min=0.4, r_max=0.9).graph, SIZES)
    radius = torch.exp(-torch.exp(drawn["nu_log"]))
    assert ((radius >= 0.4) & (radius <= 0.9)).all()
    assert torch.allclose(torch.exp(drawn["gamma_log"]) ** 2 + radius**2, torch.ones(60).double())


def test_longer_memories_start_at_longer_times() -> None:
    assert log_of_uniform(1, 999)(draw(CELLS["janet"](longest=1000).graph, {"I": 2, "H": 200})["f.bias"])
    assert uniform(0, 2**0.5)(draw(CELLS["indrnn"](longest=2).graph, {"I": 2, "H": 200})["u"])


def test_a_small_gain_for_what_comes_back() -> None:
    drawn = draw(CELLS["lstm_layer_norm"](recurrent_gain=0.1).graph, SIZES)
    assert [float(drawn[f"{n}.gain{k}"].mean()) for n in ("nx", "nh") for k in range(4)] == [1.0] * 4 + [0.1] * 4


@pytest.mark.parametrize("name", [name for name, made in CELLS.items() if "forget_bias" in made.options])
def test_forget_bias(name: str) -> None:
    (weight,) = forget_biases(get(name).graph)
    other = get(name)(forget_bias=2.5)
    assert (draw(other.graph, SIZES)[weight] == 2.5).all()
    read = Cell.from_json(get(name).to_json())(forget_bias=-1)
    assert (draw(read.graph, SIZES)[weight] == -1.0).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lstmm", "there is no cell 'lstmm': did you mean lstm or slstm or min_lstm? `tidegate cells` lists them all"),
        ("zzz", "there is no cell 'zzz': `tidegate cells` lists them all"),
        ("", "there is no cell '': `tidegate cells` lists them all"),
        ("GRU", "there is no cell 'GRU': did you mean gru? `tidegate cells` lists them all"),
        (3, "a cell's name must be a string such as 'lstm', got 3"),
    ],
)
def test_unknown_names(name: Any, text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        get(name)
    assert str(caught.value) == text


def test_known_names() -> None:
    assert all(get(name) is made for name, made in CELLS.items())
    with pytest.raises(TypeError):
        CELLS["mine"] = get("lstm")  # type: ignore[index]
