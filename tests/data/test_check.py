"""What `check-data` sees: kinds of columns, guesses, series, doubts, and the reason where a table cannot be read."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidegate.cli import main
from tidegate.data import check_table


def panel() -> pl.DataFrame:
    days = [f"2024-01-{day:02}" for day in range(1, 31)]
    wave = [10 + float(np.sin(k)) for k in range(30)]
    return pl.DataFrame(
        {"shop": ["a"] * 30 + ["b"] * 30, "day": days * 2, "units": [*wave, *wave[:-1], 9999.0], "tag": [None] * 60}
    )


def test_columns_and_guesses() -> None:
    found = check_table(panel().with_columns(open=pl.lit("1.034"), span=pl.duration(days=1)))
    assert {one.name: one.kind for one in found.columns} == {
        "shop": "text", "day": "times", "units": "numbers", "tag": "empty", "open": "undecided", "span": "other",
    }  # fmt: skip
    assert (found.time, found.id, found.target) == ("day", "shop", "open")
    assert "may be read as 1.034 or as 1034" in found.problem


def test_series_steps_and_values_in_doubt() -> None:
    found = check_table(panel())
    assert (found.target, found.step, found.season, found.problem) == ("units", "1 day", 7, "")
    assert [(one.name, one.first, one.last, one.steps) for one in found.series] == [
        ("a", "2024-01-01", "2024-01-30", 30), ("b", "2024-01-01", "2024-01-30", 30),
    ]  # fmt: skip
    [doubt] = found.doubts
    assert (doubt.series, doubt.time, doubt.value) == ("b", "2024-01-30", 9999.0)
    assert doubt.distance > 1000


def test_names_that_are_given_are_used() -> None:
    data = panel().with_columns(price=pl.lit(2.5), label=pl.lit("4"))
    found = check_table(data, "units", covariates=["price"])
    assert (found.target, found.problem) == ("units", "")
    assert check_table(data, covariates=["label"]).target == "price"
    assert check_table(data, known=["label"], static=["price"]).target == "units"
    assert check_table(data.select("shop")).problem == "No column holds numbers to forecast."


def test_a_decimal_comma_and_a_zone_are_named() -> None:
    hours = [f"2024-06-17T{hour:02}:00:00+02:00" for hour in range(5)]
    found = check_table(pl.DataFrame({"time": hours, "y": ["1,5", "2", "3", None, "4"]}))
    assert [one.detail for one in found.columns] == [
        "2024-06-17T00:00:00+02:00 to 2024-06-17T04:00:00+02:00",
        "1.5 to 4, decimal comma",
    ]
    assert (found.zone, found.season, found.columns[1].missing, found.series[0].missing) == ("+02:00", 24, 1, 1)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
    try:
        return main()
    except SystemExit as end:
        return int(end.code or 0)


def test_the_command_it_gives_reads_the_table_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    panel().with_columns(pl.lit(1).alias("price, net")).write_csv("my shops.csv")
    assert (
        run(monkeypatch, "check-data", "my shops.csv", "--target", "units", "--covariates", '"price, net"', "--json")
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    words = shlex.split(told["command"])
    assert words == [
        *("tidegate", "fit", "forecast", "my shops.csv", "--target", "units", "--time", "day", "--id", "shop"),
        *("--covariates", '"price, net"', "--horizon", "7"),
    ]
    assert run(monkeypatch, *words[1:], "--budget", "1s", "--hidden-size", "4", "--quantiles", "median") == 2
    assert "The option 'quantiles'" in capsys.readouterr().err


def test_a_table_that_cannot_be_read_as_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("t;v\n1;1.034\n2;970\n")
    assert run(monkeypatch, "check-data", "a.csv") == 2
    out = capsys.readouterr().out
    assert "v  undecided: a.csv, row 2, column 'v': '1.034' may be read as 1.034 or as 1034" in out
    assert out.splitlines()[-1].startswith("It cannot be read as series: a.csv, row 2")
    assert run(monkeypatch, "check-data", "a.csv", "--decimal", ",") == 0
    assert (
        "To forecast it:\n  tidegate fit forecast a.csv --target v --decimal , --horizon 12\n"
        in capsys.readouterr().out
    )
