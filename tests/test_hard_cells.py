"""The cells that are hard to say: traced, printed, read back from JSON, and held against the papers' own equations."""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from catalogue import HARD
from oracles import ORACLES, slstm_unstabilised, unroll
from oracles.agreement import BATCH, SIZES, STEPS, Setting, assert_agreement, random_setting, reference_of, run
from tidegate.equations import Cell, Graph, walk
from tidegate.nn.initialise import draw
from tidegate.reference import evaluate, numpy_ops, step, torch_ops, weight_shape

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


def prepare_slstm(graph: Graph, setting: Setting) -> None:
    setting.states["n"] = setting.states["n"].abs() + 0.5


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
    Case("gru"),
    Case("gru_reset_after"),
    Case("augru"),
    Case("lstm_projection"),
    Case("lstm_projection", {"peepholes": False}),
    Case("lstm_layer_norm"),
    Case("lstm_full_gate_recurrence"),
    Case("lstm_blocks_1997"),
    Case("lstm_blocks_2000"),
    Case("slstm", {"heads": 4}, prepare_slstm),
    Case("slstm", {"heads": 3, "forget": "exp"}, prepare_slstm),
    Case("lru"),
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
every_cell = pytest.mark.parametrize("name", HARD)

SHOWN_TO_THE_ORACLE = {"heads"}  # an option that the oracle reads from the shape of the weights


def test_every_cell_has_a_case() -> None:
    assert {case.name for case in CASES} == set(HARD)


@every_case
def test_agrees_with_its_oracle(case: Case) -> None:
    cell = HARD[case.name](**case.options)
    options = {k: v for k, v in case.options.items() if k not in SHOWN_TO_THE_ORACLE}
    assert_agreement(cell, ORACLES[case.name], case.prepare, **options)


@every_cell
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
    cell = HARD[name]
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
    assert max(map(len, HARD[name].print().splitlines())) < 240


@every_cell
def test_source_has_authors_year_and_identifier(name: str) -> None:
    assert re.search(r"^[A-Z].* (19|20)\d\d, (doi:10\.|arXiv:\d{4}\.\d{4,5})", HARD[name].source)


@every_cell
def test_formulas_have_a_row_for_each_named_value(name: str) -> None:
    rows = HARD[name].latex().replace(r"\begin{cases}", "{").replace(r"\end{cases}", "}")
    assert rows.count("{") == rows.count("}")
    assert "&=" in rows


@every_cell
def test_diagram_is_a_drawing(name: str) -> None:
    drawing = ET.fromstring(HARD[name].diagram())
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


def scalar(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64, requires_grad=True)


def test_lru_by_hand() -> None:
    """Eigenvalue 1/2, B = 2 + 2j, C = 2 + j, D = 0, gamma = 1; x = 1, 2, 3; loss half the squared distance to 1."""
    nu_log = scalar(math.log(math.log(2)))
    weights = {"nu_log": nu_log, "theta_log": scalar(-800.0), "gamma_log": scalar(0.0), "d": scalar(0.0)}
    weights |= {"b_re.x": scalar(2.0)[None], "b_im.x": scalar(2.0)[None]}
    weights |= {"c_re.re": scalar(2.0)[None], "c_im.im": scalar(1.0)[None]}
    x = torch.tensor([[[1.0]], [[2.0]], [[3.0]]], dtype=torch.float64)
    state = {"re": torch.zeros(1, 1, dtype=torch.float64), "im": torch.zeros(1, 1, dtype=torch.float64)}
    graph, outputs, hidden = HARD["lru"].graph, [], []
    for x_t in x:
        y, state = step(graph, weights, {"x": x_t}, state, torch_ops, {"H": 1, "N": 1})
        outputs.append(y.item())
        hidden.append(complex(state["re"].item(), state["im"].item()))
    assert outputs == pytest.approx([2, 5, 8.5], abs=1e-14)
    assert hidden == pytest.approx([2 + 2j, 5 + 5j, 8.5 + 8.5j], abs=1e-14)


def test_lru_gradients_by_hand() -> None:
    """The same case: 53 for the real part of the eigenvalue, 85.75 for gamma, (85.75, -42.875) for B."""
    weights = {name: scalar(v) for name, v in [("nu_log", math.log(math.log(2))), ("theta_log", -800.0)]}
    weights |= {"gamma_log": scalar(0.0), "d": scalar(0.0), "b_re.x": scalar(2.0), "b_im.x": scalar(2.0)}
    weights |= {"c_re.re": scalar(2.0), "c_im.im": scalar(1.0)}
    shaped = {k: v[None] if "." in k else v for k, v in weights.items()}
    x = torch.tensor([[[1.0]], [[2.0]], [[3.0]]], dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    graph, state, loss = HARD["lru"].graph, {"re": zero, "im": zero}, torch.zeros(())
    for x_t in x:
        y, state = step(graph, shaped, {"x": x_t}, state, torch_ops, {"H": 1, "N": 1})
        loss = loss + ((y - 1) ** 2).sum() / 2
    loss.backward()
    slope = {k: v.grad.item() for k, v in weights.items() if v.grad is not None}
    by_modulus = -math.log(2) / 2  # d(eigenvalue) / d(nu_log), at 1/2
    assert slope["nu_log"] == pytest.approx(53 * by_modulus, abs=1e-12)
    assert slope["gamma_log"] == pytest.approx(85.75, abs=1e-12)
    assert (slope["b_re.x"], slope["b_im.x"]) == pytest.approx((85.75, -42.875), abs=1e-12)


def test_slstm_starts_without_overflow_or_nan() -> None:
    """From its declared start the stabilised cell gives what the bare exponentials give."""
    graph = HARD["slstm"].graph
    setting = random_setting(graph)
    start = {s.name: torch.full((BATCH, SIZES["H"]), s.start, dtype=torch.float64) for s in graph.states}
    assert start["m"][0, 0] == -1e9
    ours, last = unroll(reference_of(graph), setting.weights, setting.inputs, start)
    bare, _ = unroll(slstm_unstabilised, setting.weights, setting.inputs, start)
    assert torch.allclose(ours, bare, rtol=0, atol=1e-13)
    assert all(torch.isfinite(v).all() for v in last.values())


def test_slstm_survives_large_gates() -> None:
    """Exponents that overflow exp() leave the output finite, and its gradient too."""
    graph = HARD["slstm"].graph
    setting = random_setting(graph)
    setting.weights["i.bias"] = torch.full((SIZES["H"],), 5000.0, dtype=torch.float64)
    prepare_slstm(graph, setting)
    values, gradients = run(reference_of(graph), setting, {})
    assert all(torch.isfinite(v).all() for v in (*values.values(), *gradients.values()))


def test_clockwork_masks_are_the_papers() -> None:
    graph = HARD["clockwork"](groups=3).graph
    assert initial(graph, "period").tolist() == [1.0] * 4 + [2.0] * 4 + [4.0] * 4
    slower = initial(graph, "slower").reshape(3, 4, 3, 4)[:, 0, :, 0]
    assert slower.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_initial_values_may_use_other_weights() -> None:
    lru = draw(HARD["lru"](r_min=0.4, r_max=0.9).graph, SIZES)
    radius = torch.exp(-torch.exp(lru["nu_log"]))
    assert ((radius >= 0.4) & (radius <= 0.9)).all()
    assert torch.allclose(torch.exp(lru["gamma_log"]) ** 2 + radius**2, torch.ones(SIZES["N"]).double())
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
    marked = {name: [s.name for s in cell.graph.states if s.bookkeeping] for name, cell in HARD.items()}
    assert {name: states for name, states in marked.items() if states} == {
        "slstm": ["m"],
        "qrnn": ["u0"],
        "gru_d": ["last"],
        "clockwork": ["n"],
    }


def blocks_of_the_guide() -> Iterator[tuple[int, str]]:
    text = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text[: match.start(1)].count("\n"), match.group(1)


def test_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Every example of docs/language.md, one after another, each at its own line so that legends are found."""
    scope: dict[str, Any] = {}
    for line, code in blocks_of_the_guide():
        exec(compile("\n" * line + code, str(ROOT / "docs" / "language.md"), "exec"), scope)  # noqa: S102
    assert "c: H state = f * c[t-1] + i * g    # cell state" in capsys.readouterr().out
    assert scope["message"].startswith(f"{ROOT / 'docs' / 'language.md'}:")


def test_the_guide_names_every_cell() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "language.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(HARD)
