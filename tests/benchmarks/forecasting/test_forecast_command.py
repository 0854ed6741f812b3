"""`python -m benchmarks.forecasting` on made-up data: what it prints, writes into the page, and refuses."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from benchmarks.forecasting import __main__ as command
from benchmarks.forecasting import peers, subjects
from benchmarks.forecasting.archives import FPP3, Archives
from benchmarks.forecasting.page import rewrite
from benchmarks.forecasting.setting import Outcome, Table
from tidegate import cli
from tidegate.errors import ArgumentError

Invoke = Callable[..., Any]
PAGE = """# Forecasting

<!-- measured: series -->
old
<!-- end -->

Prose.

<!-- measured: m3 -->
kept
<!-- end -->
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with quarterly production: 60 quarters of beer that is season and a little noise, unpacked."""
    noise = np.random.default_rng(0).normal(size=60)
    beer = 400 + 50 * np.sin(np.arange(60) * np.pi / 2) + noise
    quarters = [f"{1990 + k // 4} Q{k % 4 + 1}" for k in range(60)]
    folder = tmp_path / "data" / "tsdata" / "fpp3"
    folder.mkdir(parents=True)
    pl.DataFrame({"Quarter": quarters, "Beer": beer, "Gas": ["NA"] * 60}).write_csv(folder / "aus_production.csv")
    return tmp_path / "data"


@pytest.fixture
def invoke(tmp_path: Path) -> Invoke:
    return lambda *words: CliRunner().invoke(
        command.application(), [*map(str, words), "--cache", str(tmp_path / "cache")], catch_exceptions=False
    )


def test_a_series_is_read_with_its_times(data: Path, tmp_path: Path) -> None:
    (subject,) = subjects.subjects(Archives(data, tmp_path), None, ("beer",))
    assert subject.frame["time"].dt.to_string("%Y-%m-%d").to_list()[:2] == ["1990-01-01", "1990-04-01"]
    assert (subject.horizon, subject.season, len(subject.frame)) == (4, 4, 60)


def test_rows_of_one_time_are_summed_where_they_are_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "tsdata" / "fpp3"
    folder.mkdir(parents=True)
    text = "Month,ATC2,Type,Cost\n1991 Aug,A10,x,5\n1991 Jul,A10,x,1\n1991 Jul,A10,y,2\n1991 Jul,H02,x,100\n"
    (folder / "PBS.csv").write_text(text, "utf-8")
    (subject,) = subjects.subjects(Archives(tmp_path, tmp_path), None, ("antidiabetic drugs",))
    assert subject.frame["value"].to_list() == [3.0, 5.0]
    assert subject.frame["time"].dt.month().to_list() == [7, 8]


def test_etth1_gives_a_series_for_each_column(tmp_path: Path) -> None:
    path = tmp_path / "ETTh1.csv"
    columns = ",".join(subjects.ETTH1_COLUMNS)
    path.write_text(
        f"date,{columns}\n2016-07-01 00:00:00,1,2,3,4,5,6,7\n2016-07-01 01:00:00,8,9,10,11,12,13,14\n", "utf-8"
    )
    found = list(subjects.subjects(Archives(tmp_path, tmp_path), path, ("ETTh1 HULL", "ETTh1 OT")))
    assert [subject.frame["value"].to_list() for subject in found] == [[2.0, 9.0], [7.0, 14.0]]


@pytest.mark.skipif(peers.LACKS is not None, reason=str(peers.LACKS))
def test_a_quick_run_prints_a_table_and_writes_figures(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    ran = invoke("series", "--quick", "--only", "beer", "--data", data, "--json", figures)
    assert ran.exit_code == 0
    assert "| series | rows | horizon | origins | loss | seasonal naive | Theta | ETS | ARIMA | 80 % |" in ran.output
    (row,) = json.loads(figures.read_text("utf-8"))["cases"]["series"]
    assert (row["series"], row["rows"], row["origins"]) == ("beer", 60, 3)
    assert set(row["ratios"]) == {"seasonal naive", "Theta", "ETS", "ARIMA"}
    assert row["verdict"].startswith("The ")
    assert 0.1 < row["ratios"]["seasonal naive"] < 10  # of seconds of training: no wrong unit or place
    assert 0 <= row["coverage"]["Tidegate"]["0.8"] <= row["coverage"]["Tidegate"]["0.9"] <= 1
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 9


def test_without_peers_the_seasonal_naive_forecast_remains(
    invoke: Invoke, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("series", "forecasts"):
        monkeypatch.setattr(f"benchmarks.forecasting.{module}.LACKS", "statsforecast cannot be imported")
    ran = invoke("series", "--quick", "--only", "beer", "--data", data)
    assert "Without peers: statsforecast cannot be imported." in ran.output
    assert "| seasonal naive | 80 % | 90 % | seconds |" in ran.output
    assert "bold" not in ran.output


def test_a_block_of_the_page_is_rewritten_and_the_rest_kept(tmp_path: Path) -> None:
    page = tmp_path / "forecasting.md"
    page.write_text(PAGE, "utf-8")
    outcome = Outcome("series", ["A \\1 sentence.", Table(["series", "loss"], [["beer", "0.5"]])], [])
    rewrite(page, outcome, "python -m benchmarks.forecasting series", 12.3)
    text = page.read_text("utf-8")
    assert "A \\1 sentence.\n\n| series | loss |\n| --- | ---: |\n| beer | 0.5 |\n\n`python -m" in text
    assert "old" not in text
    assert text.endswith(PAGE[PAGE.index("\nProse.") :])
    assert text.startswith("# Forecasting\n\n<!-- measured: series -->\n")
    rewrite(page, outcome, "python -m benchmarks.forecasting series", 12.3)
    assert page.read_text("utf-8").count("A \\1 sentence.") == 1


def test_a_page_without_the_block_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "forecasting.md"
    page.write_text("# Forecasting\n", "utf-8")
    with pytest.raises(ArgumentError, match="one block for the case series: '<!-- measured: series -->', then"):
        rewrite(page, Outcome("series", [], []), "", 1.0)


def test_the_guide_has_a_block_for_every_case() -> None:
    text = (Path(__file__).parents[3] / "docs" / "forecasting.md").read_text("utf-8")
    for case in command.CASES:
        assert text.count(f"<!-- measured: {case} -->") == 1


def test_a_missing_archive_is_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "series", "--only", "pedestrians", "--data", str(data)])
    assert cli.main(command.application, "python -m benchmarks.forecasting") == 2
    printed, said = capsys.readouterr()
    assert said.startswith(f"tidegate: {data} has neither tsdata/fpp3/pedestrian.csv nor {FPP3.wheels}. Give a folder")
    assert (printed, said.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m5"], "there is no case 'm5'"),
        (["series", "--only", "wine"], "there is no series 'wine'. The series are retail cafes NSW, "),
        (["series", "--etth1", "nowhere.csv", "--only", "ETTh1 OT"], "there is no file nowhere.csv"),
        (["series", "--quick", "--page", "a.md"], "--page keeps whole results"),
    ],
)
def test_wrong_use(invoke: Invoke, words: list[str], said: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{said}"):
        invoke(*words)
