"""Every cell that ships: its oracle, its printed form, its initial values, and how it is found."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from oracles import ORACLES
from oracles.agreement import assert_agreement
from tidegate.cells import CELLS, get
from tidegate.equations import Cell
from tidegate.errors import ArgumentError
from tidegate.nn.initialise import draw

ORACLE_OPTIONS = {"lstm_projection": {"peepholes": False}}
SIZES = {"I": 3, "H": 8, "P": 5}
every_cell = pytest.mark.parametrize("name", CELLS)


@every_cell
def test_agrees_with_its_oracle(name: str) -> None:
    assert_agreement(CELLS[name], ORACLES[name], **ORACLE_OPTIONS.get(name, {}))


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
    assert list(CELLS) == [
        "elman",
        "elman_relu",
        "lstm_1997",
        "lstm",
        "lstm_peephole",
        "lstm_coupled",
        "lstm_projection",
        "lstm_no_input_gate",
        "lstm_no_forget_gate",
        "lstm_no_output_gate",
        "lstm_no_input_activation",
        "lstm_coupled_peephole",
        "lstm_no_output_activation",
        "gru",
        "gru_reset_after",
    ]


@every_cell
def test_initial_values(name: str) -> None:
    """Forget gates start open, other biases and peepholes at 0, square matrices on a state orthogonal."""
    graph = CELLS[name].graph
    torch.manual_seed(1)
    drawn = draw(graph, SIZES)
    for weight, value in drawn.items():
        shape = tuple(value.shape)
        if weight == "f.bias":
            assert (value == 1.0).all()
        elif weight.endswith(".bias") or weight.startswith("p_"):
            assert (value == 0.0).all()
        elif shape == (8, 8) and weight.endswith(".h"):
            assert torch.allclose(value @ value.T, torch.eye(8, dtype=value.dtype), atol=1e-12)
        else:
            limit = (6 / sum(shape)) ** 0.5
            assert 0.5 * limit < value.abs().max() <= limit
    assert len({round(float(v.flatten()[0]), 12) for k, v in drawn.items() if "." in k and not k.endswith("bias")}) > 1


@pytest.mark.parametrize("name", ["lstm", "lstm_peephole", "lstm_coupled", "lstm_projection"])
def test_forget_bias(name: str) -> None:
    other = get(name)(forget_bias=2.5)
    assert (draw(other.graph, SIZES)["f.bias"] == 2.5).all()
    read = Cell.from_json(get(name).to_json())(forget_bias=-1)
    assert (draw(read.graph, SIZES)["f.bias"] == -1.0).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lstmm", "there is no cell 'lstmm': did you mean lstm or lstm_1997? `tidegate cells` lists them all"),
        ("zzz", "there is no cell 'zzz': `tidegate cells` lists them all"),
        ("", "there is no cell '': `tidegate cells` lists them all"),
        ("GRU", "there is no cell 'GRU': did you mean gru? `tidegate cells` lists them all"),
        (3, "a cell is named by a text, such as 'lstm', and 3 came"),
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
