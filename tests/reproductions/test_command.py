"""`python -m reproductions`: what it prints, writes and ends with."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import small_experiments as small
from reproductions import __main__ as command
from reproductions import listing as listings
from reproductions import page as pages
from reproductions import run as running
from reproductions.catalogue import EXPERIMENTS
from reproductions.runs import read, write
from tidegate import cli
from tidegate.errors import ArgumentError

Invoke = Callable[..., Any]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    known = {e.name: e for e in (small.DRAWS, small.READS)}
    monkeypatch.setattr(running, "EXPERIMENTS", known)
    monkeypatch.setattr(pages, "EXPERIMENTS", known)
    monkeypatch.setattr(listings, "EXPERIMENTS", known)
    app, usual = command.application(), ("--out", tmp_path / "out", "--processes", 1)

    def invoke(*given: object) -> Any:
        arguments = [str(a) for a in (*given, *usual)] if given else []
        return CliRunner().invoke(app, arguments, catch_exceptions=False)

    return invoke


def test_a_table_beside_the_published_figure(invoke: Invoke) -> None:
    ran = invoke("draws")
    assert ran.exit_code == 0
    title, heading, easy, hard = ran.stdout.strip().split("\n")
    assert title == "Draws: A paper"
    assert heading.startswith("net and training  figure                  published            median")
    assert easy.startswith("easy              sequences until solved  5,000 | all [paper]  ")
    assert "2 of 3" in easy
    assert hard.split() == ["hard", "sequences", "until", "solved", "-", "-", "-", "-", "0", "of", "1", "solved", "0"]


def test_seeds_and_what_is_left_out_are_told_on_stderr(invoke: Invoke) -> None:
    ran = invoke("--all", "--seeds", 2)
    assert ran.stderr.splitlines()[0] == (
        "reads is left out: it needs number.txt; say with --data in which folder that lies"
    )
    assert ran.stderr.splitlines()[1] == "draws, easy, seed 1: not solved, 0.0 s"
    assert ran.stderr.splitlines()[2].startswith("draws, easy, seed 2: ")
    assert "Draws: A paper" in ran.stdout
    assert "Reads" not in ran.stdout


def test_what_was_kept_is_said(invoke: Invoke) -> None:
    invoke("draws")
    assert "4 of 4 seeds were kept from before" in invoke("draws").stderr


def test_only_what_is_kept(invoke: Invoke, tmp_path: Path) -> None:
    assert "Draws" not in invoke("draws", "--kept").stdout
    invoke("draws", "--seeds", 1)
    invoke("draws", "--kept", "--json", tmp_path / "runs.json")
    assert [(r.configuration, r.seed) for r in read(tmp_path / "runs.json")] == [("easy", 1), ("hard", 1)]


def test_data(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "number.txt").write_text("2.5", "utf-8")
    ran = invoke("reads", "--data", tmp_path, "--seeds", 1)
    assert "reads, hard, seed 1: 2.5, 0.0 s" in ran.stderr


def test_runs_as_json(invoke: Invoke, tmp_path: Path) -> None:
    invoke("draws", "--quick", "--json", tmp_path / "runs.json")
    (run,) = read(tmp_path / "runs.json")
    assert (run.experiment, run.configuration, run.seed) == ("draws", "short", 1)


def test_a_page_keeps_what_is_not_run_now(invoke: Invoke, tmp_path: Path) -> None:
    page, runs = tmp_path / "page.md", tmp_path / "page" / "runs.json"
    write(runs, [small.a_run(3.0, experiment="reads", configuration="hard")])
    assert invoke("draws", "--json", runs, "--page", page).exit_code == 0
    assert [(r.experiment, r.seed) for r in read(runs)] == [*(("draws", k) for k in (1, 2, 3, 1)), ("reads", 1)]
    before = page.read_text("utf-8")
    page.unlink()
    assert invoke("--json", runs, "--page", page, "--redraw").stderr == ""
    assert page.read_text("utf-8") == before
    assert "## Reads" in before


def test_errors(invoke: Invoke, tmp_path: Path) -> None:
    def refusal(*given: object) -> str:
        with pytest.raises(ArgumentError) as caught:
            invoke(*given)
        return str(caught.value)

    assert refusal("--page", "p.md") == "--page is made from runs: say with --json where they are kept"
    assert refusal("--redraw") == "--redraw writes a page and runs nothing: say with --page which"
    quick = "--page shows whole experiments, and --quick runs small ones: omit one of them"
    assert refusal("--quick", "--page", "p.md", "--json", "r.json") == quick
    draws = "there is no experiment 'draw', did you mean 'draws'? The experiments are draws, reads"
    assert refusal("draw") == draws
    rows = "there is no row 'hrad', did you mean 'hard'? The rows are easy; hard"
    assert refusal("draws", "--row", "hrad") == rows
    every = "--all runs every experiment, got names as well (draws, reads): omit one of them"
    assert refusal("draws", "reads", "--all") == every
    for option in (["--quick"], ["--row", "hard"], ["--seed", 1], ["--json", "r.json"]):
        assert refusal(*option) == "options are for experiments that run: give their names, or --all"
    assert not (tmp_path / "out").exists()


def test_without_a_name_experiments_are_listed_and_nothing_runs(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "runs.json"
    monkeypatch.setattr(listings, "KEPT", kept)
    write(kept, [small.a_run(seconds=40.0), small.a_run(seed=2, seconds=50.0), small.a_run(seed=3, seconds=7300.0)])
    ran = invoke()
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "draws: Draws; 2 rows, 4 seeds, about 2 min",
        "    easy  3 seeds, about 2 min",
        "    hard  1 seed, time unknown",
        "",
        "reads: Reads; 1 row, 1 seed, time unknown, needs number.txt (--data)",
        "    hard  1 seed, time unknown",
        "",
        "All of them take one core about 2 min; seeds run in parallel.",
        "`python -m reproductions NAME ...` runs some, with --row and --seed less of them, and --all runs all.",
    ]
    assert not (tmp_path / "out").exists()


def test_the_listing_has_a_time_for_every_row() -> None:
    text = "\n".join(listings.listing())
    assert "time unknown" not in text
    for experiment in EXPERIMENTS.values():
        assert f"{experiment.name}: {experiment.title}; {len(experiment.configurations)} rows, " in text


def test_one_new_seed_of_one_row(invoke: Invoke, tmp_path: Path) -> None:
    ran = invoke("draws", "--row", "easy", "--seed", 11, "--json", tmp_path / "runs.json")
    assert ran.exit_code == 0
    assert [(r.configuration, r.seed) for r in read(tmp_path / "runs.json")] == [("easy", 11)]
    assert len(ran.stdout.strip().splitlines()) == 3


def test_an_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["reproductions", "addin"])
    assert cli.main(command.application, "python -m reproductions") == 2
    printed, said = capsys.readouterr()
    assert said.startswith("tidegate: there is no experiment 'addin', did you mean 'adding'? The experiments are ")
    assert (printed, said.count("\n")) == ("", 1)
