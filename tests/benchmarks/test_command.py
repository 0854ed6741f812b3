"""`tidegate bench`: what it prints, writes and ends with. Nothing is measured here."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmark_rows import result, row, sweep
from benchmarks import run as runs
from benchmarks.run import Begun, LeftOut, Options, as_json
from tidegate.cli import bench
from tidegate.errors import ArgumentError

RESULTS = {"lstm": result(row(2.0)), "gru": result(row(9.0, case="gru")), "batch": sweep("batch")}
Invoke = Callable[..., Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The options that a run was asked for; canned results come."""
    options: list[Options] = []

    def stand_in(given: Options) -> Iterator[Any]:
        options.append(given)
        for name in given.cases or RESULTS:
            yield Begun(name, 3e11)
            yield from RESULTS[name].rows
            yield RESULTS[name]

    monkeypatch.setattr(runs, "run", stand_in)
    return options


@pytest.fixture
def invoke() -> Invoke:
    app = typer.Typer()
    bench.register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_a_table_and_verdicts(invoke: Invoke, asked: list[Options]) -> None:
    ran = invoke("--case", "lstm", "--peer", "torch", "--quick")
    assert ran.exit_code == 0
    assert asked == [Options(("lstm",), ("torch",), quick=True)]
    title, heading, first, verdict, _ = ran.output.split("\n", 4)
    assert title.startswith("lstm: `tidegate.LSTM`, forward and a training step (")
    assert title.endswith(" (torch.mm reaches 300 GF/s)")
    assert heading.split()[:2] == ["cell", "T"]
    assert first.startswith("lstm             100 32 128 256  forward")
    assert verdict == "MET: LSTM forward against torch's, >= 1.4, no shape below 1.0: 2.00 over 1 shape"


def test_what_is_left_out_and_kept_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    bench.show(LeftOut("eager is left out"))
    bench.show(row(malloc="kept"))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "eager is left out"
    assert second.endswith("  memory kept")


@pytest.mark.usefixtures("asked")
def test_figures_go_to_a_file(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert invoke("--json", path).exit_code == 0
    assert path.read_text("utf-8") == as_json(RESULTS)
    assert invoke("--case", "gru", "--json", path).exit_code == 0
    assert list(json.loads(path.read_text("utf-8"))["cases"]) == ["gru"]


def test_a_page_keeps_the_cases_that_are_not_measured_anew(
    invoke: Invoke, asked: list[Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, path = tmp_path / "page.md", tmp_path / "figures.json"
    assert invoke("--page", page, "--json", path).exit_code == 0
    assert asked[-1] == Options(patient=True)
    before = page.read_text("utf-8")
    monkeypatch.setitem(RESULTS, "gru", result(row(3.21, case="gru")))
    assert invoke("--page", page, "--json", path, "--case", "gru", "--quick", "--once").exit_code == 0
    assert asked[-1] == Options(("gru",), quick=True, both=False)
    after = page.read_text("utf-8")
    assert list(json.loads(path.read_text("utf-8"))["cases"]) == ["lstm", "gru", "batch"]
    changed = set(after.splitlines()) - set(before.splitlines())
    assert len(changed) == 3  # the row, and its verdict in two places
    assert all("3.21" in line for line in changed)


def test_a_page_is_drawn_again_without_measuring(invoke: Invoke, asked: list[Options], tmp_path: Path) -> None:
    page, path = tmp_path / "page.md", tmp_path / "figures.json"
    invoke("--page", page, "--json", path)
    text = page.read_text("utf-8")
    page.unlink()
    (tmp_path / "batch.svg").unlink()
    assert invoke("--page", page, "--json", path, "--redraw").exit_code == 0
    assert page.read_text("utf-8") == text
    assert (tmp_path / "batch.svg").exists()
    assert len(asked) == 1


@pytest.mark.parametrize("off", [{"difference": 0.1}, {"their_difference": 0.1}])
@pytest.mark.usefixtures("asked")
def test_a_wrong_answer_ends_with_1_and_its_figures_are_kept(
    invoke: Invoke, off: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RESULTS, "lstm", result(row(**off)))
    path = tmp_path / "figures.json"
    ran = invoke("--case", "lstm", "--json", path)
    assert ran.exit_code == 1
    assert "WRONG" in ran.output
    assert ran.output.endswith("A result was WRONG: its time means nothing.\n")
    assert path.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--page", "a.md"], "--page is made from figures: say with --json where they are kept"),
        (["--redraw", "--json", "a.json"], "--redraw writes a page and measures nothing: say with --page which"),
        (["--case", "gruu"], "there is no case 'gruu': did you mean gru? The cases are lstm, gru, rnn, cells, flops, "
         "hidden, batch, lengths, growth, checkpoint, step, overhead, online-gradients, compile"),
    ],
)  # fmt: skip
def test_wrong_use(invoke: Invoke, arguments: list[str], said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        invoke(*arguments)
    assert str(caught.value) == said
