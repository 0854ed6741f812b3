"""Every cell printed and drawn; those that are hard to say read back from JSON, and held against their papers."""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from catalogue import EVERY, HARD
from oracles import ORACLES, unroll
from oracles.agreement import BATCH, SIZES, STEPS, Setting, assert_agreement, random_setting, reference_of, run
from tidegate.equations import Cell, Graph, walk
from tidegate.nn.initialise import draw
from tidegate.reference import evaluate, numpy_ops, weight_shape

ROOT = Path(__file__).parents[1]


def initial(graph: Graph, name: str) -> Tensor:
    """The initial value of a weight that is computed from the units' positions."""
    shape = weight_shape(graph.weights[name], SIZES)
    env: dict[Any, Any] = {}
    for value in walk([graph.inits[name]]):
        if value.op == "position":
            axis = value.attrs["axis"]
            place = np.arange(shape[axis]) / shape[axis]
            env[value] = place[:, None] if len(shape) == 2 and axis == 0 else place
    (array,) = evaluate([graph.inits[name]], env, numpy_ops, SIZES)
    return torch.from_numpy(np.broadcast_to(array, shape).astype(np.float64))


def prepare_phased(graph: Graph, setting: Setting) -> None:
    setting.weights["tau"] = setting.weights["tau"].abs() + 0.5
    setting.inputs["t"] = 20 * setting.inputs["t"]


def prepare_gru_d(graph: Graph, setting: Setting) -> None:
    setting.inputs["m"] = (setting.inputs["m"] > 0).double()
    setting.inputs["d"] = setting.inputs["d"].abs()
    setting.inputs["x"] = torch.where(setting.inputs["m"] > 0, setting.inputs["x"], torch.nan)
    setting.fixed |= {"inputs/m"}  # a mask has no gradient: the paper multiplies by it, the cell chooses


def prepare_clockwork(graph: Graph, setting: Setting) -> None:
    setting.weights |= {name: initial(graph, name) for name in ("period", "slower")}
    setting.states["n"] = torch.arange(BATCH, dtype=torch.float64)[:, None] % 4
    setting.fixed |= {"states/n"}


@dataclass
class Case:
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Graph, Setting], None] = lambda graph, setting: None

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])


CASES = [
    Case("augru"),
    Case("lstm_blocks_1997"),
    Case("lstm_blocks_2000"),
    Case("qrnn"),
    Case("qrnn", {"delay": 3}),
    Case("elstm"),
    Case("lstm_phased", {"on": 0.3, "leak": 0.1}, prepare_phased),
    Case("gru_d", {}, prepare_gru_d),
    Case("clockwork", {"groups": 3}, prepare_clockwork),
    Case("clockwork", {"groups": 2}, prepare_clockwork),
    Case("antisymmetric"),
    Case("antisymmetric", {"gated": True, "epsilon": 0.3, "gamma": 0.2}),
    Case("fast_grnn"),
    Case("scrn", {"alpha": 0.7}),
    Case("lem", {"dt": 0.6}),
    Case("recurrent_highway"),
    Case("recurrent_highway", {"depth": 2, "coupled": False}),
    Case("gated_feedback"),
    Case("gated_feedback", {"depth": 2}),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_hard_cell = pytest.mark.parametrize("name", HARD)
every_cell = pytest.mark.parametrize("name", EVERY)


def test_every_cell_has_a_case() -> None:
    assert {case.name for case in CASES} == set(HARD)


@every_case
def test_agrees_with_its_oracle(case: Case) -> None:
    cell = HARD[case.name](**case.options)
    assert_agreement(cell, ORACLES[case.name], case.prepare, **case.options)


@every_hard_cell
def test_defaults_are_the_oracles(name: str) -> None:
    """An option left alone means the same to both."""
    case = next(c for c in CASES if c.name == name)
    assert_agreement(HARD[name], ORACLES[name], case.prepare)


@every_case
def test_json_gives_the_same_cell(case: Case) -> None:
    cell = HARD[case.name](**case.options)
    data = json.loads(json.dumps(cell.to_json(), allow_nan=False))
    again = Cell.from_json(data)
    assert again.print() == cell.print()
    assert again.to_json() == cell.to_json()
    setting = random_setting(cell.graph)
    case.prepare(cell.graph, setting)
    first, second = (run(reference_of(c.graph), setting, {}) for c in (cell, again))
    for ours, theirs in zip(first, second, strict=True):
        assert all(torch.equal(ours[k], v) for k, v in theirs.items())


@every_cell
def test_prints_what_it_has(name: str) -> None:
    cell = EVERY[name]
    lines = cell.print().splitlines()
    assert lines[0] == f"cell {name}"
    assert lines[1] == f"  source {cell.source}"
    for weight in cell.graph.weights:
        assert sum(line.startswith(f"  {weight}: ") and ", from " in line for line in lines) == 1
    for state in cell.graph.states:
        assert sum(line.startswith(f"  {state.name}' = ") for line in lines) == 1


@every_cell
def test_prints_short_lines(name: str) -> None:
    """What is used twice, and what a function of the language does inside, is not written out again and again."""
    assert max(map(len, EVERY[name].print().splitlines())) < 240


@every_cell
def test_source_has_authors_year_and_identifier(name: str) -> None:
    assert re.search(r"^[A-Z].* (19|20)\d\d, (doi:10\.|arXiv:\d{4}\.\d{4,5}|jmlr\.org)", EVERY[name].source)


@every_cell
def test_formulas_have_a_row_for_each_named_value(name: str) -> None:
    rows = EVERY[name].latex().replace(r"\begin{cases}", "{").replace(r"\end{cases}", "}")
    assert rows.count("{") == rows.count("}")
    assert "&=" in rows


@every_cell
def test_diagram_is_a_drawing(name: str) -> None:
    drawing = ET.fromstring(EVERY[name].diagram())
    assert drawing.tag.endswith("svg")


def count_weights(cell: Cell, **sizes: int) -> int:
    return sum(math.prod(weight_shape(w, sizes)) for w in cell.graph.weights.values())


@pytest.mark.parametrize(("blocks", "size", "published"), [(3, 2, 276), (4, 1, 264)])
def test_weights_of_the_net_of_1997(blocks: int, size: int, published: int) -> None:
    """Hochreiter & Schmidhuber 1997, table 1: 7 inputs; 7 outputs see the cells only, and have no bias."""
    cells = blocks * size
    assert count_weights(HARD["lstm_blocks_1997"], I=7, H=cells, G=blocks) + 7 * cells == published


def test_weights_of_the_net_of_2000() -> None:
    """Gers, Schmidhuber & Cummins 2000: four blocks of two cells; the 7 outputs see cells, inputs and a bias."""
    assert count_weights(HARD["lstm_blocks_2000"], I=7, H=8, G=4) + 7 * (8 + 7 + 1) == 424


def test_clockwork_masks_are_the_papers() -> None:
    graph = HARD["clockwork"](groups=3).graph
    assert initial(graph, "period").tolist() == [1.0] * 4 + [2.0] * 4 + [4.0] * 4
    slower = initial(graph, "slower").reshape(3, 4, 3, 4)[:, 0, :, 0]
    assert slower.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_initial_values_may_use_other_weights() -> None:
    phased = draw(HARD["lstm_phased"].graph, SIZES)
    assert ((phased["s"] >= 0) & (phased["s"] < phased["tau"])).all()


def test_gate_biases_of_the_blocks_are_the_papers() -> None:
    """Hochreiter & Schmidhuber 1997: -1, -2, -3; Gers et al. 2000: -0.5, -1, -1.5, -2 and +0.5, +1, +1.5, +2."""
    assert draw(HARD["lstm_blocks_1997"].graph, {"I": 7, "H": 6, "G": 3})["o.bias"].tolist() == [-1, -2, -3]
    later = draw(HARD["lstm_blocks_2000"].graph, {"I": 7, "H": 8, "G": 4})
    assert later["i.bias"].tolist() == later["o.bias"].tolist() == [-0.5, -1, -1.5, -2]
    assert later["f.bias"].tolist() == [0.5, 1, 1.5, 2]


def test_missing_values_reach_nothing() -> None:
    """What stands in x where it was not seen, NaN or a number, changes neither values nor gradients."""
    graph = HARD["gru_d"].graph
    setting = random_setting(graph)
    prepare_gru_d(graph, setting)
    first = run(reference_of(graph), setting, {})
    setting.inputs["x"] = torch.nan_to_num(setting.inputs["x"], nan=1e6)
    second = run(reference_of(graph), setting, {})
    for ours, theirs in zip(first, second, strict=True):
        assert all(torch.equal(ours[k], v) for k, v in theirs.items())


def test_qrnn_remembers_its_inputs_only() -> None:
    graph = HARD["qrnn"](delay=2).graph
    setting = random_setting(graph)
    _, last = unroll(reference_of(graph), setting.weights, setting.inputs, setting.states)
    assert torch.equal(last["u0"], setting.inputs["x"][STEPS - 1])
    assert torch.equal(last["u1"], setting.inputs["x"][STEPS - 2])


def test_bookkeeping_states_are_marked() -> None:
    marked = {name: [s.name for s in cell.graph.states if s.bookkeeping] for name, cell in EVERY.items()}
    assert {name: states for name, states in marked.items() if states} == {
        "slstm": ["m"],
        "qrnn": ["u0"],
        "gru_d": ["last"],
        "clockwork": ["n"],
    }


def test_the_guide_names_every_cell() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "language.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(HARD)
