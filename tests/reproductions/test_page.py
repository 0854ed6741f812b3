"""Tables, plots and the page of runs that nobody ran, and the committed page against its runs."""

import re
from pathlib import Path

import pytest

import small_experiments as small
from reproductions import page as pages
from reproductions.catalogue import EXPERIMENTS
from reproductions.experiment import Outcome
from reproductions.runs import read
from reproductions.summary import HEADINGS, markdown, summaries, table

ROOT = Path(__file__).parents[2]
PAGE, RUNS = ROOT / "docs" / "experiments.md", ROOT / "docs" / "experiments" / "runs.json"
SOME = [small.a_run(4000.0, 2), small.a_run(None, 1), small.a_run(7000.0, 3), small.a_run(6000.0, 4, seconds=9.0)]


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "EXPERIMENTS", {e.name: e for e in (small.DRAWS, small.READS)})


def test_seeds_without_a_figure_are_missing_from_the_middle_and_counted() -> None:
    (easy,) = summaries(small.DRAWS, SOME)
    assert dict(zip(HEADINGS, easy.columns, strict=True)) == {
        "net and training": "easy",
        "figure": "sequences until solved",
        "published": "5,000 | all [paper]",
        "median": "6,000",
        "mean": "5,667",
        "least to most": "4,000 to 7,000",
        "seeds": "3 of 4 solved",
        "seconds a seed": "3",
    }


def test_no_seed_with_a_figure_and_no_criterion() -> None:
    failed, free = small.a_run(None, name="hard"), small.a_run(0.25, seed=1, outcome=Outcome(0.25))
    by_name = {s.configuration.name: s for s in summaries(small.DRAWS, [failed, free])}
    assert by_name["hard"].columns[2:7] == ("-", "-", "-", "-", "0 of 1 solved")
    assert by_name["easy"].columns[6] == "1"


def test_a_plain_table_is_aligned() -> None:
    head, row = table(summaries(small.DRAWS, SOME))
    for name, text in zip(
        HEADINGS, ("easy", "sequences", "5,000", "6,000", "5,667", "4,000", "3 of 4 solved", "3"), strict=True
    ):
        assert row.startswith(text, head.index(name))


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    *_, row = markdown(summaries(small.DRAWS, SOME))
    assert len(re.findall(r"(?<!\\)\|", row)) == len(HEADINGS) + 1


@pytest.mark.usefixtures("catalogue")
def test_the_page(tmp_path: Path) -> None:
    page, runs = tmp_path / "docs" / "page.md", tmp_path / "docs" / "page" / "runs.json"
    pages.write_page(page, runs, SOME)
    assert read(runs) == SOME
    assert {p.name for p in runs.parent.iterdir()} == {
        "runs.json",
        "draws.svg",
        "draws-training.svg",
        "draws-elman.svg",
    }
    text = page.read_text("utf-8")
    for said in (
        "## Draws\n\nA paper. `python -m reproductions draws`\n\nWhat it is.\n\n| net and training |",
        "(page/draws.svg)",
        "(page/draws-training.svg)",
        "The net:\n\n```math\n\\begin{aligned}\n",
        "(page/draws-elman.svg)",
        "Not run yet: reads.\n",
    ):
        assert said in text


@pytest.mark.usefixtures("catalogue")
def test_plots() -> None:
    drawn = pages.drawings([*SOME, small.a_run(None, name="hard")])
    seeds = drawn["draws.svg"]
    easy = "easy: 6,000 (4,000 to 7,000), seeds: 3 of 4 solved, published 5,000 | all [paper]"
    assert f"{easy}; hard: - (-), seeds: 0 of 1 solved" in seeds
    assert ">3 of 4 solved<" in seeds
    assert ">0 of 1 solved<" in seeds
    assert "y by x: easy ends at 0.25 to 0.25; hard ends at 0.25 to 0.25" in drawn["draws-training.svg"]
    assert "@media (prefers-color-scheme: dark)" in seeds


def test_how_an_experiment_is_repeated() -> None:
    assert pages.command(small.DRAWS) == "python -m reproductions draws"
    assert pages.command(small.READS) == "python -m reproductions reads --data FOLDER"


def test_names_of_configurations_are_their_own() -> None:
    for name, experiment in EXPERIMENTS.items():
        names = [c.name for c in (*experiment.configurations, *experiment.quick)]
        assert (name, len(names)) == (experiment.name, len(set(names)))
        assert "|" not in "".join(names)


def test_the_committed_page_is_that_of_its_runs() -> None:
    again = "run `make experiments ARGS=--redraw` and commit what it writes"
    runs, place = read(RUNS), Path("docs/experiments/runs.json")
    assert PAGE.read_text("utf-8") == pages.text(Path("docs/experiments.md"), place, runs), again
    drawn = pages.drawings(runs)
    assert {p.name for p in RUNS.parent.iterdir()} == {RUNS.name, *drawn}, again
    for name, svg in drawn.items():
        assert (RUNS.parent / name).read_text("utf-8") == svg, f"{name}: {again}"


def test_committed_runs_are_of_present_settings() -> None:
    known = {(e.name, c.name): c for e in EXPERIMENTS.values() for c in e.configurations}
    for run in read(RUNS):
        assert run.settings == vars(known[run.experiment, run.configuration].settings), run.configuration
