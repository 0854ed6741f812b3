"""`tidegate diagnose`: what it writes and says, and one line for whatever is wrong."""

import json
import sys
from pathlib import Path

import pytest

from forecast_cases import fitted_waves, waves
from tidegate import Recurrent, save
from tidegate.cli import main
from tidegate.gradients.texts import FORMS

ROWS = "\n".join(["y", *(f"{v:.6f}" for v in waves(80, seed=5))])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a fitted model in it, below the present one, and files of rows beside it."""
    monkeypatch.chdir(tmp_path)
    save(fitted_waves(), "run/model")
    Path("more.csv").write_text(ROWS)
    Path("other.csv").write_text("z\n1\n2\n")
    return Path("run")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tidegate", "diagnose", *arguments])
    try:
        return main()
    except SystemExit as end:
        return int(end.code or 0)


def test_page_numbers_and_sentences(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "run", "--rule", "truncated:1,2", "--rule", "bptt") == 0
    out = capsys.readouterr().out.splitlines()
    found = json.loads((run / "diagnosis.json").read_text("utf-8"))
    assert out == [*found["sentences"], f"report: {run / 'diagnosis.html'}"]
    assert out[0].startswith("The gradient ")
    assert out[1].startswith("Effective memory: ")
    assert [c["rule"] for c in found["cosines"]] == ["truncated:1,2", "bptt"]
    assert found["cosines"][1]["cosine"] == pytest.approx(1.0)
    assert (found["cells"], found["steps"], found["rows"]) == (["lstm"], 24, 1)
    assert found["loss"] == "the quantile loss of the forecasts"
    html = (run / "diagnosis.html").read_text("utf-8")
    assert "<h1>Diagnosis of run</h1>" in html
    assert "lstm: 1 x 24 steps of the data of the fit" in html
    assert {path.name for path in run.iterdir()} == {"model", "diagnosis.html", "diagnosis.json"}


def test_other_data_another_folder_and_json(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "run", "--data", "more.csv", "--out", "there/deep", "--json") == 0
    printed = capsys.readouterr().out
    assert printed == Path("there/deep/diagnosis.json").read_text("utf-8") + "\n"
    assert "24 steps of more.csv" in Path("there/deep/diagnosis.html").read_text("utf-8")
    assert [path.name for path in run.iterdir()] == ["model"]
    assert [c["rule"] for c in json.loads(printed)["cosines"]] == [f"truncated:{k},{k}" for k in (1, 2, 5, 10, 20)]
    assert call(monkeypatch, "run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["lags"] != json.loads(printed)["lags"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("none",), "There is no folder none. Give the folder that `tidegate fit forecast` wrote."),
        (("empty",), "empty holds no model: there is no model.json in it"),
        (("layer",), "layer must be a run of `tidegate fit forecast`, got Recurrent."),
        (
            ("run", "--rule", "exact"),
            f"unknown gradient rule 'exact': expected {FORMS}.",
        ),
        (
            ("run", "--rule", "truncated:3,2"),
            "TruncatedBPTT needs 1 <= k1 <= k2, got k1=3 and k2=2: gradients must reach back at least to the last "
            "update. Use for example k1=16, k2=32.",
        ),
        (("run", "--data", "none.csv"), "There is no file none.csv. Give the path of a CSV, TSV or Parquet file."),
        (("run", "--data", "other.csv"), "other.csv has no column 'y'; its columns are z."),
    ],
)
def test_whatever_is_wrong_is_told_in_one_line(
    arguments: tuple[str, ...],
    sentence: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("empty").mkdir()
    save(Recurrent("gru", 2, 3), "layer")
    assert call(monkeypatch, *arguments) == 2
    assert capsys.readouterr() == ("", f"tidegate: {sentence}\n")
    assert [path.name for path in run.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    assert call(monkeypatch, "run", "--out", "file") == 2
    reason = "file cannot be read or written: Not a directory. Check the path, its permissions and the free space."
    assert capsys.readouterr() == ("", f"tidegate: {reason}\n")
