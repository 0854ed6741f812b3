"""Tables, pages and figures from canned rows."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmark_rows import SMALL, result, row, sweep, times
from benchmarks import page
from benchmarks.lines import judged
from benchmarks.plots import curves, plots
from benchmarks.rows import Result, Row
from benchmarks.run import as_json, read
from benchmarks.tables import heading, line, markdown, timing, verdict
from benchmarks.timing import Timing
from tidegate.errors import ArgumentError

ROOT = Path(__file__).parents[2]
FULL = row(2.0, 0.5, flops=2_000_000_000, first=41.0, their_difference=3e-7)
LSTM = result(FULL, row(1.3, what="training", shape=SMALL), row(1.5, malloc="kept"), load=(0.5, 0.25, 0.1))


def test_a_row_for_a_terminal() -> None:
    assert " ".join(heading().split()) == "cell T B I H what peer difference ours theirs ratio GF/s limit"
    shown = line(FULL)
    assert " ".join(shown.split()) == (
        "lstm 100 32 128 256 forward torch 2e-07 10 ms (9-15) 20 ms (18-30) 2.00 200 50%"
    )
    assert shown.index("torch") == heading().index("peer")


def test_what_is_absent_is_a_dash() -> None:
    shown = " ".join(line(row(None, peer="-", difference=None)).split())
    assert shown == "lstm 100 32 128 256 forward - - 10 ms (9-15) - - - -"


@pytest.mark.parametrize(
    ("off", "said"),
    [
        ({"difference": 0.25}, "WRONG 2e-01"),
        ({"difference": float("inf")}, "WRONG not finite"),
        ({"difference": float("nan")}, "WRONG not finite"),
        ({"their_difference": 0.25}, "WRONG 20 ms"),
    ],
)
def test_what_is_wrong_is_said(off: dict[str, float], said: str) -> None:
    assert said in line(row(**off))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(2.0, "2 s (1.8-3)"), (0.0123, "12.3 ms (11.1-18.4)"), (4e-6, "4 us (3.6-6)"), (5e-9, "5 ns (4.5-7.5)")],
)
def test_times(seconds: float, shown: str) -> None:
    assert timing(times(seconds)) == shown


def test_noise_is_said() -> None:
    loud = row(theirs=Timing(0.02, 0.0133, 0.03, 5))
    assert not row(theirs=Timing(0.02, 0.0134, 0.03, 5)).noisy
    assert line(loud).split()[-3] == "~2.00"
    (found,) = judged([loud])
    assert verdict(found).endswith(": 2.00 over 1 shape, noisy rows: 1")
    (found,) = judged([row(None, case="compile", what="nothing cached", peer="-", ours=Timing(0.5, 0.1, 0.6, 3))])
    assert verdict(found).endswith(": 500 ms at most, noisy rows: 1")


def test_verdicts() -> None:
    (forward, kept, training) = judged(LSTM.rows)
    assert verdict(forward) == "MET: LSTM forward against torch's, >= 1.4, no shape below 1.0: 2.00 over 1 shape"
    assert verdict(kept).endswith("its memory kept, >= 1.2, no shape below 1.0: 1.50 over 1 shape")
    assert verdict(training) == (
        "NOT MET: LSTM training against torch's, >= 1.4, no shape below 1.1: 1.30 over 1 shape"
    )
    (slow,) = judged([row(0.5)])
    assert verdict(slow).endswith(": 0.50 over 1 shape; below: lstm 100 32 128 256: 0.50, needs 1.12")
    (cells,) = judged([row(3.0, case="cells", subject=name, peer="eager") for name in ("gru", "b")])
    assert verdict(cells).endswith(", >= 2: 3.00 over 1 shape, of gru, the lowest of 2 cells")
    (first,) = judged([row(None, case="compile", what="nothing cached", peer="-", ours=times(0.8))])
    assert verdict(first).endswith("nothing cached, <= 1 s: 800 ms at most")


def test_a_table_of_a_page_has_both_columns() -> None:
    lines = markdown(LSTM.rows).splitlines()
    assert len(lines) == 4
    assert lines[0].split(" | ")[7:9] == ["ratio", "ratio, memory kept"]
    assert lines[2].split(" | ")[7:9] == ["2.00", "1.50"]
    assert lines[3].split(" | ")[7:9] == ["1.30", "-"]
    assert "memory kept" not in markdown(LSTM.rows[:2])


def test_json_holds_every_field_and_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(as_json({"p": {"lstm": LSTM}}), "utf-8")
    data = json.loads(path.read_text("utf-8"))
    assert data["version"] == 2
    kept = data["processors"]["p"]["lstm"]
    first = kept["rows"][0]
    assert first["shape"] == {"T": 100, "B": 32, "I": 128, "H": 256}
    assert first["ours"] == pytest.approx({"median": 0.01, "least": 0.009, "most": 0.015, "samples": 7})
    assert {k: first[k] for k in ("ratio", "gflops", "share", "wrong", "malloc", "first")} == {
        "ratio": 2.0,
        "gflops": 200.0,
        "share": 0.5,
        "wrong": False,
        "malloc": "usual",
        "first": 41.0,
    }
    assert kept["machine"] == {"processor": "a processor", "threads": "2"}
    assert kept["load"] == [0.5, 0.25, 0.1]
    assert read(path) == {"p": {"lstm": LSTM}}


def test_json_has_no_number_that_json_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(as_json({"p": {"lstm": result(row(difference=float("inf")))}}), "utf-8")
    json.loads(path.read_text("utf-8"), parse_constant=lambda name: pytest.fail(name))
    (back,) = read(path)["p"]["lstm"].rows
    assert back.wrong


def test_a_file_without_figures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text('{"results": []}', "utf-8")
    with pytest.raises(ArgumentError) as caught:
        read(path)
    said = f"{path} holds no figures ('processors'): write it with `python -m benchmarks --json {path}`"
    assert str(caught.value) == said


def test_a_page_from_figures(tmp_path: Path) -> None:
    docs, figures = tmp_path / "performance.md", tmp_path / "performance" / "figures.json"
    results = {"a processor": {"hidden": sweep("hidden"), "lstm": LSTM}}
    page.write(docs, figures, results)
    text = docs.read_text("utf-8")
    assert sorted(p.name for p in figures.parent.iterdir()) == ["a-processor-hidden.svg", "figures.json"]
    assert read(figures) == results
    assert text.index("## a processor") < text.index("### lstm") < text.index("### hidden")
    assert f"`python -m benchmarks --page {docs} --json {figures}`" in text
    assert "](performance/a-processor-hidden.svg)" in text
    assert "`python -m benchmarks --case lstm`, 61 s, load average 0.50, 0.25, 0.10." in text
    assert "`python -m benchmarks --case hidden`, 61 s.\n" in text  # measured before it was noted
    assert (
        "| LSTM forward against torch's, >= 1.4, no shape below 1.0 | met | 2.00 over 1 shape | "
        "`python -m benchmarks --case lstm` |"
    ) in text
    assert "| **not met** | 1.30 over 1 shape |" in text
    assert "Not measured yet: GRU forward" in text
    assert "torch.compile took 41 to 41 s" in text
    assert "The limit of the cases, in products, was 300 to 300 GF/s." in text
    assert "| processor | a processor |" in text
    assert "--quick" not in text


def test_figures_of_several_versions_say_whose_they_are(tmp_path: Path) -> None:
    other = result(
        row(case="gru"), machine={"processor": "a processor", "torch": "3"}, quick=True, left_out=("torch is absent",)
    )
    text = page.text(tmp_path / "a.md", tmp_path / "b" / "c.json", {"a processor": {"lstm": LSTM, "gru": other}})
    assert "Cases lstm:" in text
    assert "Cases gru:" in text
    assert "Measured with `--quick`: few shapes and short times." in text
    assert "torch is absent." in text


def test_notes_stand_with_their_case(tmp_path: Path) -> None:
    notes = tmp_path / "a-processor.md"
    notes.write_text("# Notes\n\n## machine\n\nTwo cores.\n\n## lstm\n\nBounded by barriers.\n\nAnd bytes.\n", "utf-8")
    page.write(tmp_path / "a.md", tmp_path / "figures.json", {"another": {"gru": LSTM}, "a processor": {"lstm": LSTM}})
    text = (tmp_path / "a.md").read_text("utf-8")
    assert text.index("| threads | 2 |") < text.index("Two cores.") < text.index("### lstm")
    assert text.endswith("Bounded by barriers.\n\nAnd bytes.\n")
    assert text.count("Two cores.") == 1


def test_notes_about_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("## lstms\n\nSlow.\n", "utf-8")
    with pytest.raises(
        ArgumentError, match=r"notes.md has a part '## lstms', which is no case: lstm, gru, .*, or machine"
    ):
        page.notes(tmp_path / "notes.md")


@pytest.mark.parametrize("case", ["hidden", "batch"])
def test_plots_stand_alone_in_light_and_dark(case: str) -> None:
    found = sweep(case)
    drawn = plots({case: found, "lstm": LSTM})
    assert list(drawn) == [f"{case}.svg"]
    svg = drawn[f"{case}.svg"]
    assert plots({case: found})[f"{case}.svg"] == svg
    root = ET.fromstring(svg)
    words = {e.text for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"tidegate", "torch", "eager", "limit", "forward", "training", "GF/s", "256"} <= words
    assert "@media (prefers-color-scheme: dark) { svg { --tg-ink: #" in svg


def test_curves_by_size() -> None:
    rows = [r for r in sweep("batch").rows if r.what == "forward"]
    found = curves(rows, "B")
    assert list(found) == ["tidegate", "torch", "eager", "limit"]
    assert list(found["torch"]) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert found["tidegate"][4] == pytest.approx(90e9)
    assert found["limit"][4] == pytest.approx(3e11)


@pytest.mark.parametrize(
    ("processor", "name"),
    [("Intel(R) Xeon(R) Processor, model 207", "intel-xeon-processor-model-207"), ("AMD EPYC 9B14", "amd-epyc-9b14")],
)
def test_names_of_files_of_a_processor(processor: str, name: str) -> None:
    assert page.slug(processor) == name


def test_the_page_is_that_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    figures = Path("docs/performance/figures.json")
    text = page.text(Path("docs/performance.md"), figures, read(figures))
    plots = {p.name for p in figures.parent.glob("*.svg")}
    assert plots == {f"{page.slug(p)}-{case}.svg" for p in read(figures) for case in ("hidden", "batch")}
    assert (ROOT / "docs" / "performance.md").read_text("utf-8") == text, "run make performance ARGS=--redraw"


def test_rows_come_back_from_json() -> None:
    for one in (FULL, row(None), row(malloc="kept")):
        assert Row.from_json(one.to_json()) == one
    assert Result.from_json(LSTM.to_json()) == LSTM
