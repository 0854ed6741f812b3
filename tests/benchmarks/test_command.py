"""`python -m benchmarks`: what it prints, writes and ends with. Nothing is measured here."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmark_rows import result, row, sweep
from benchmarks import __main__ as command
from benchmarks.run import Begun, LeftOut, Options, as_json, read
from tidegate import cli
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
            yield Begun(name, 3e11, (1.5, 0.25, 0))
            yield from RESULTS[name].rows
            yield RESULTS[name]

    monkeypatch.setattr(command, "run", stand_in)
    return options


@pytest.fixture
def invoke() -> Invoke:
    return lambda *arguments: CliRunner().invoke(
        command.application(), [str(a) for a in arguments], catch_exceptions=False
    )


def test_a_table_and_verdicts(invoke: Invoke, asked: list[Options]) -> None:
    ran = invoke("--case", "lstm", "--peer", "torch", "--quick")
    assert ran.exit_code == 0
    assert asked == [Options(("lstm",), ("torch",), quick=True)]
    title, heading, first, verdict, _ = ran.output.split("\n", 4)
    assert title.startswith("lstm: `tidegate.LSTM`, forward pass and training step (")
    assert title.endswith(" (torch.mm reaches 300 GF/s, load average 1.50, 0.25, 0.00)")
    assert heading.split()[:2] == ["cell", "T"]
    assert first.startswith("lstm             100 32 128 256  forward")
    assert verdict == "MET: LSTM forward against torch's, >= 1.4, no shape below 1.0: 2.00 over 1 shape"


def test_what_is_left_out_and_kept_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    command.show(LeftOut("eager is left out"))
    command.show(row(malloc="kept"))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "eager is left out"
    assert second.endswith("  memory kept")


@pytest.mark.usefixtures("asked")
def test_figures_go_to_a_file(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert invoke("--json", path).exit_code == 0
    assert path.read_text("utf-8") == as_json({"a processor": RESULTS})
    assert invoke("--case", "gru", "--json", path).exit_code == 0
    assert list(read(path)["a processor"]) == ["gru"]


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
    assert list(read(path)["a processor"]) == ["lstm", "gru", "batch"]
    changed = set(after.splitlines()) - set(before.splitlines())
    assert len(changed) == 3  # the row, and its verdict in two places
    assert all("3.21" in line for line in changed)


def test_a_page_is_drawn_again_without_measuring(invoke: Invoke, asked: list[Options], tmp_path: Path) -> None:
    page, path = tmp_path / "page.md", tmp_path / "figures.json"
    invoke("--page", page, "--json", path)
    text = page.read_text("utf-8")
    page.unlink()
    (tmp_path / "a-processor-batch.svg").unlink()
    assert invoke("--page", page, "--json", path, "--redraw").exit_code == 0
    assert page.read_text("utf-8") == text
    assert (tmp_path / "a-processor-batch.svg").exists()
    assert len(asked) == 1


@pytest.mark.usefixtures("asked")
def test_a_run_replaces_the_section_of_its_own_processor_only(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, path = tmp_path / "page.md", tmp_path / "figures.json"
    other = result(row(1.23, case="gru"), machine={"processor": "Another(R) one"})
    path.write_text(as_json({"Another(R) one": {"gru": other}}), "utf-8")
    assert invoke("--page", page, "--json", path).exit_code == 0
    assert read(path) == {"Another(R) one": {"gru": other}, "a processor": RESULTS}
    first, second = page.read_text("utf-8").split("\n## a processor\n")
    assert "\n## Another(R) one\n" in first
    assert "1.23" in first
    assert "1.23" not in second


def test_an_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--case", "gruu"])
    assert cli.main(command.application, "python -m benchmarks") == 2
    printed, said = capsys.readouterr()
    assert said.startswith("tidegate: there is no case 'gruu', did you mean 'gru'? The cases are lstm, ")
    assert (printed, said.count("\n")) == ("", 1)


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
        (["--case", "gruu"], "there is no case 'gruu', did you mean 'gru'? The cases are lstm, gru, rnn, cells, flops, "
         "hidden, batch, lengths, growth, checkpoint, step, overhead, busy, online-gradients, compile"),
    ],
)  # fmt: skip
def test_wrong_use(invoke: Invoke, arguments: list[str], said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        invoke(*arguments)
    assert str(caught.value) == said
