"""`tidegate cells`: the list and one cell, for people and as JSON."""

import json

import pytest
import typer
from typer.testing import CliRunner

from tidegate import cli
from tidegate.cells import CELLS
from tidegate.cli import cells
from tidegate.equations import cell, linear, normal, tanh, weight
from tidegate.errors import ArgumentError


@cell(states="h:R s=2", inputs="x dt:1", source="a test")
def little(x, dt, h, s, *, gain=3.0, residual=True):
    a = linear("a", x, h) - s  # what comes in
    s = tanh(a) * weight("p", init=normal(0.0, 0.5), learn=False) * gain  # memory
    h = linear("out", s=s, size="R") + (h if residual else 0.0) + dt
    return h, s


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tidegate.cells.CELLS", {"little": little, "elman": CELLS["elman"]})
    app = typer.Typer()
    cells.register(app)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    return run


def test_the_list(invoke) -> None:
    assert invoke().splitlines() == [
        "name    states   inputs    linears  source",
        "little  h:R s:H  x:I dt:1  2        a test",
        f"elman   h:H      x:I       1        {CELLS['elman'].source}",
    ]


def test_the_list_as_json(invoke) -> None:
    first, second = json.loads(invoke("--json"))
    assert first == {"name": "little", "states": "h:R s:H", "inputs": "x:I dt:1", "linears": 2, "source": "a test"}
    assert second["name"] == "elman"


def test_one_cell_for_people(invoke) -> None:
    shown = invoke("little")
    assert shown == f"{little.print().rstrip()}\n\nLaTeX\n{little.latex().rstrip()}\n"


def test_one_cell_as_json(invoke) -> None:
    told = json.loads(invoke("little", "--json"))
    assert told["options"] == {"gain": "3.0", "residual": "True"}
    assert {w["name"]: (w["size"], w["learn"]) for w in told["weights"]} == {
        "a.x": ("H x I", True),
        "a.h": ("H x R", True),
        "a.bias": ("H", True),
        "p": ("H", False),
        "out.s": ("R x H", True),
        "out.bias": ("R", True),
    }
    assert [w["start"] for w in told["weights"] if w["name"] in ("p", "a.bias")] == ["0", "normal(0, 0.5)"]
    assert told["formulas"]["s"] == "tanh(a) * p * gain"
    assert told["legends"] == {"a": "what comes in", "s": "memory"}
    assert told["latex"] == little.latex()
    assert told["text"] == little.print()


def test_every_shipped_cell_can_be_shown() -> None:
    for shipped in CELLS.values():
        assert cells.details(shipped)["weights"]
        assert shipped.source in cells.page(shipped)


def test_an_unknown_cell_is_refused(invoke) -> None:
    with pytest.raises(ArgumentError, match=r"^there is no cell 'elmann': did you mean elman"):
        invoke("elmann")


def test_a_search(invoke) -> None:
    source = CELLS["elman"].source
    assert invoke("--search", "隐状态").splitlines() == [
        f"name   source{' ' * (len(source) - 4)}found",
        f"elman  {source}  hidden state 隐状态",
    ]


def test_a_search_as_json(invoke) -> None:
    (row,) = json.loads(invoke("--search", "residual", "--json"))
    assert row == cells.summary(little) | {"found": ["option residual"]}
    (row,) = json.loads(invoke("--json", "--search", "MEM"))
    assert row == cells.summary(little) | {"found": ["s: memory"]}


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that is refused says on stderr; nothing else is written."""
    monkeypatch.setattr("sys.argv", ["tidegate", *arguments])
    assert cli.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_a_search_that_finds_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(monkeypatch, capsys, "cells", "--search", "forgot gate") == (
        "tidegate: no cell matches 'forgot gate': did you mean forget gate or forget gate bias? `tidegate cells` "
        "lists them all, and docs/glossary.md the words\n"
    )


def test_a_name_and_a_search(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(monkeypatch, capsys, "cells", "lstm", "--search", "gate") == (
        "tidegate: a name and --search exclude each other: omit 'lstm' or --search 'gate'\n"
    )
