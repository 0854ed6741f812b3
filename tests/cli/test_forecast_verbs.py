"""`tidegate fit forecast`, `predict`, `report`: what they write, and one line for whatever is wrong."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecast_cases import waves
from tidegate.cli import main
from tidegate.config import ForecastConfig

OPTIONS = ["--target", "y", "--horizon", "2", "--season", "6", "--hidden-size", "4", "--context", "12"]
QUICK = [*OPTIONS, "--budget", "1s"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file in an empty directory, which is the present one."""
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"t": np.arange(150), "y": waves(150)}).write_csv("series.csv")
    return "series.csv"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
    try:
        return main()
    except SystemExit as end:
        return int(end.code or 0)


def test_help_shows_every_option_with_its_description(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "fit", "forecast", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, field in ForecastConfig.model_fields.items():
        assert f"--{name.replace('_', '-')} " in shown
        assert str(field.description) in shown


def test_a_fit_with_gradients_forward_in_time(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "fit", "forecast", data, "--time", "t", *QUICK, "--gradient", "snap:1,8") == 0
    assert json.loads(Path("runs/series-1/config.json").read_text())["gradient"] == "snap:1,8"


def test_fit_predict_report(data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "fit", "forecast", data, "--time", "t", *QUICK) == 0
    out = capsys.readouterr().out.splitlines()
    run = Path("runs/series-1")
    assert out[1:] == [f"report: {run / 'report.html'}", f"run: {run}"]
    assert {path.name for path in run.iterdir()} == {
        "config.json",
        "events.jsonl",
        "model",
        "report.html",
        "report.json",
    }
    assert json.loads((run / "report.json").read_text())["verdict"] == out[0]
    assert json.loads((run / "config.json").read_text())["horizon"] == 2

    assert call(monkeypatch, "predict", str(run)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("t,q0.05,q0.1,q0.25,q0.5,q0.75,q0.9,q0.95\n150,")
    assert call(monkeypatch, "predict", str(run), "--out", "a.csv", "--json") == 0
    assert Path("a.csv").read_text() == printed
    records = json.loads(capsys.readouterr().out)
    assert [record["time"] for record in records] == [150, 151]

    Path("more.csv").write_text("t,y\n150,52\n151,53\n")
    assert call(monkeypatch, "predict", str(run), "more.csv") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("152,")

    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert call(monkeypatch, "report", str(run)) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    assert (run / "report.html").read_text() == before
    assert call(monkeypatch, "report", str(run), "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == out[0]


def test_json_and_a_cell_from_a_file(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(
        "from tidegate.equations import cell, linear, tanh\n\n\n"
        '@cell(states="h", source="made up")\n'
        "def plain(x, h):\n"
        '    h = tanh(linear("n", x, h))\n'
        "    return h\n"
    )
    assert call(monkeypatch, "fit", "forecast", data, *QUICK, "--cell", "mine.py:plain", "--out", "o", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["run"], result["report"]) == ("o", "o/report.html")
    assert result["evaluation"]["verdict"] == result["verdict"]
    Path("mine.py").unlink()
    assert call(monkeypatch, "predict", "o") == 0


def test_runs_are_numbered_and_never_overwritten(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("runs/series-1").mkdir(parents=True)
    assert call(monkeypatch, "fit", "forecast", data, *QUICK) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "run: runs/series-2"
    Path("a.csv").write_text("mine")
    assert call(monkeypatch, "predict", "runs/series-2", "--out", "a.csv") == 2
    assert capsys.readouterr().err == (
        "tidegate: The file a.csv exists already and is not overwritten. Give another name.\n"
    )
    assert Path("a.csv").read_text() == "mine"


FIT = ("fit", "forecast", "series.csv")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("fit", "forecast", "none.csv", *QUICK),
            "There is no file none.csv. Give the path of a CSV, TSV or Parquet file.",
        ),
        (
            (*FIT, "--horizon", "2"),
            "The option 'target' is missing: it must be the name of a column. Give for example co2.",
        ),
        (
            (*FIT, "--target", "y", "--horizon", "two"),
            "The option 'horizon' must be a whole number of at least 1, got 'two'. Give for example 12.",
        ),
        ((*FIT, *QUICK, "--time", "tt"), "series.csv has no column 'tt'; its columns are t, y. Did you mean 't'?"),
        (
            (*FIT, *QUICK, "--out", "."),
            "The folder . exists already and is not overwritten. Give a folder that does not exist yet, or none for "
            "a new one under runs/.",
        ),
        (
            (*FIT, *QUICK, "--cell", "none.py:it"),
            "There is no file none.py. Give FILE.py:NAME, the file and the cell's name in it.",
        ),
        (
            (*FIT, *QUICK, "--cell", "broken.py:it"),
            "broken.py cannot be run (ZeroDivisionError: division by zero). Expected a Python file that defines a "
            "cell.",
        ),
        (
            (*FIT, *QUICK, "--cell", "empty.py:it"),
            "empty.py: 'it' must be a function decorated with @cell, got nothing.",
        ),
        (
            (*FIT, *QUICK, "--cell", "empty.py:number"),
            "empty.py: 'number' must be a function decorated with @cell, got int.",
        ),
        (("predict", "none"), "There is no folder none. Give the folder that `tidegate fit forecast` wrote."),
        (("report", "none"), "There is no folder none. Give the folder that `tidegate fit forecast` wrote."),
    ],
)
def test_whatever_is_wrong_is_told_in_one_line(
    arguments: tuple[str, ...],
    sentence: str,
    data: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("broken.py").write_text("1 / 0\n")
    Path("empty.py").write_text("number = 3\n")
    assert call(monkeypatch, *arguments) == 2
    assert capsys.readouterr() == ("", f"tidegate: {sentence}\n")
    assert not Path("runs").exists()


def test_another_model_is_no_forecaster(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tidegate import Recurrent, save

    save(Recurrent("gru", 2, 3), "layer")
    assert call(monkeypatch, "predict", "layer") == 2
    assert capsys.readouterr().err == ("tidegate: layer must be a run of `tidegate fit forecast`, got Recurrent.\n")


def test_a_cell_file_that_ends_the_program(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ends.py").write_text("raise SystemExit(3)\n")
    assert call(monkeypatch, "fit", "forecast", data, *QUICK, "--cell", "ends.py:it") == 2
    assert capsys.readouterr().err == (
        "tidegate: ends.py cannot be run (SystemExit: 3). Expected a Python file that defines a cell.\n"
    )


def test_new_rows_take_the_decimal_mark_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{k};{value:.4f}".replace(".", ",") for k, value in enumerate(waves(150))]
    Path("old.csv").write_text("\n".join(["t;y", *rows]) + "\n")
    Path("new.csv").write_text("t;y\n150;1,034\n151;970\n")
    assert call(monkeypatch, "fit", "forecast", "old.csv", "--time", "t", "--out", "run", *QUICK) == 0
    assert call(monkeypatch, "predict", "run", "new.csv") == 2
    assert "'1,034' may be read as 1034 or as 1.034" in capsys.readouterr().err
    assert call(monkeypatch, "predict", "run", "new.csv", "--decimal", ",") == 0
    given = ["--time", "t", "--decimal", ",", "--encoding", "latin-1", "--out", "given"]
    assert call(monkeypatch, "fit", "forecast", "old.csv", *given, *QUICK) == 0
    Path("new.csv").write_bytes("t;y;\xe9\n150;1,034;\n151;970;\n".encode("latin-1"))
    assert call(monkeypatch, "predict", "given", "new.csv") == 0
    assert call(monkeypatch, "predict", "given", "new.csv", "--encoding", "utf-8") == 2
    assert call(monkeypatch, "predict", "run", "new.csv", "--decimal", ";") == 2


def test_wide_rows_of_drifting_clocks_are_read_alike_by_fit_and_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    late = np.random.default_rng(0).integers(0, 40, 150)
    times = np.datetime64("2024-01-01", "ms") + 1000 * (600 * np.arange(150) + late)
    one, two = waves(150), waves(150, seed=1)
    pl.DataFrame({"t": times, "a": one, "b, c": two, "rain": one}).write_csv("wide.csv")
    columns = ["--time", "t", "--covariates", "rain", "--wide", "--every", "10min"]
    assert call(monkeypatch, "fit", "forecast", "wide.csv", *columns, "--out", "run", *QUICK) == 0
    assert "note: 300 rows were moved to steps of 10 minutes, which gave 300." in capsys.readouterr().out
    assert call(monkeypatch, "predict", "run") == 0
    after = capsys.readouterr().out
    assert after.splitlines()[0].startswith("series,t,q0.05")
    assert [line.partition(",2024")[0] for line in after.splitlines()[1:]] == ["a", "a", '"b, c"', '"b, c"']
    assert after.splitlines()[1].startswith("a,2024-01-02 01:00:00,")
    assert call(monkeypatch, "predict", "run", "wide.csv") == 0
    assert capsys.readouterr().out == after
