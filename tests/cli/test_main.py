"""The command itself: version, errors in one line, the missing extra."""

import subprocess
import sys
from importlib.metadata import version

import pytest
import typer

from tidegate import cli
from tidegate.errors import DataError


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; {program}from tidegate.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_version() -> None:
    done = run("", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tidegate {version('tidegate')}\n", "")


def test_help_names_every_verb() -> None:
    done = subprocess.run([sys.executable, "-m", "tidegate", "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for verb in ("check-data", "fit", "predict", "report", "cells", "doctor"):
        assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize(("package", "what"), [("typer", "the command line"), ("pydantic", "Reading options")])
def test_without_the_extra_one_line_says_how_to_get_it(package: str, what: str) -> None:
    done = run(f"sys.modules[{package!r}] = None; ")
    said = f"tidegate: {what} needs the extra 'app': pip install 'tidegate[app]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_another_missing_module_is_a_fault_of_ours() -> None:
    done = run("sys.modules['tidegate.cli.doctor'] = None; ")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_an_error_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def application() -> typer.Typer:
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.command()
        def fail() -> None:
            raise DataError("co2.csv, row 7:\n    'x' is no number")

        return app

    monkeypatch.setattr(cli, "application", application)
    monkeypatch.setattr(sys, "argv", ["tidegate"])
    assert cli.main() == 2
    assert capsys.readouterr() == ("", "tidegate: co2.csv, row 7: 'x' is no number\n")


def test_a_place_that_cannot_be_written_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def application() -> typer.Typer:
        raise NotADirectoryError(20, "Not a directory", "file/run")

    monkeypatch.setattr("tidegate.cli.application", application)
    assert cli.main() == 2
    assert capsys.readouterr().err == (
        "tidegate: file/run cannot be read or written: Not a directory. Check the path, its permissions and the "
        "free space.\n"
    )


def test_an_unknown_verb_is_refused() -> None:
    done = run("", "fitt")
    assert done.returncode == 2
    assert "No such command 'fitt'" in done.stderr


def test_packages_come_from_the_installed_metadata() -> None:
    assert sorted(cli.packages()) == ["llvmlite", "numpy", "safetensors", "torch"]
    assert {"typer", "rich", "polars"} < set(cli.packages("app"))
    assert cli.packages("nothing") == []
