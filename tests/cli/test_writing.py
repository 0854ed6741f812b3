"""Output that cannot be written: one line that names it, exit code 2, and nothing half-written."""

import contextlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecast_cases import waves
from tidegate.cli import main
from tidegate.files import read_model

FIT = ["fit", "forecast", "series.csv", "--target", "y", "--horizon", "2", "--season", "6", "--hidden-size", "4"]
QUICK = [*FIT, "--context", "12", "--budget", "0.1s"]
LEARN = ["learn", "series.csv", "--target", "y", "--hidden-size", "4", "--rule", "truncated:1,2"]
END = "Check the path, its permissions and the free space.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a run on it."""
    folder = tmp_path_factory.mktemp("work")
    pl.DataFrame({"t": np.arange(150), "y": waves(150)}).write_csv(folder / "series.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call(patch, *QUICK, "--out", "run") == 0
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
    try:
        return main()
    except SystemExit as end:
        return int(end.code or 0)


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk with so many bytes left for each file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


VERBS = [
    ["cells"], ["cells", "lstm", "--json"], ["cells", "--search", "gate"], ["explain", "gru"],
    ["explain", "gru", "--rule", "rtrl", "--json"], ["doctor"], ["doctor", "--json"], ["predict", "run"],
    ["predict", "run", "--json"], ["report", "run", "--json"], ["diagnose", "run"], LEARN, [*LEARN, "--json"],
    QUICK, [*QUICK, "--json"], ["--version"], ["--help"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", VERBS, ids=lambda a: " ".join(a[:2]))
def test_a_standard_output_that_is_full(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code = call(monkeypatch, *arguments)
    last = capsys.readouterr().err.splitlines()[-1]
    assert (code, last + "\n") == (
        2,
        f"tidegate: the standard output cannot be read or written: No space left on device. {END}",
    )


def test_python_has_nothing_to_say_at_the_end() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "tidegate", "cells"]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = f"tidegate: the standard output cannot be read or written: No space left on device. {END}"
    assert (run.returncode, run.stderr) == (2, said)


def test_a_name_that_the_terminal_cannot_write() -> None:
    command = [sys.executable, "-m", "tidegate", "predict", "\u65e5\udcff"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (run.returncode, run.stderr.splitlines()[-1]) == (
        2,
        "tidegate: There is no folder \\u65e5\\udcff. Give the folder that `tidegate fit forecast` wrote.",
    )


def places(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("size", "file"), [(100, "config.json"), (2000, "checkpoint.safetensors")])
def test_a_disk_that_is_full_while_a_model_is_fitted(
    size: int, file: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"full-{size}"
    with files_of_at_most(size):
        assert call(monkeypatch, *FIT, "--context", "12", "--budget", "0.1s", "--out", run) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"tidegate: {run}/{file}")
    assert last.endswith(f" cannot be read or written: {last.partition('written: ')[2].partition('.')[0]}. {END[:-1]}")
    left = places(folder / run)
    assert not [name for name in left if Path(name).name.startswith((".", "weights-"))]
    for name in left & {"config.json"}:
        json.loads((folder / run / name).read_text())
    for name in left & {"events.jsonl"}:
        assert all(json.loads(line) for line in (folder / run / name).read_text().splitlines())
    assert call(monkeypatch, *FIT, "--context", "12", "--budget", "0.1s", "--out", run) == 0


def test_a_disk_that_is_full_while_a_learner_is_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *LEARN, "--save", "kept") == 0
    before, kept = places(folder / "kept"), read_model(Path("kept"))
    with files_of_at_most(500):
        assert call(monkeypatch, *LEARN[:4], "--load", "kept", "--save", "kept") == 2
    error = capsys.readouterr().err
    assert error.startswith("tidegate: kept/weights-")
    assert error.endswith(f".safetensors cannot be read or written: File too large. {END}")
    assert (places(folder / "kept"), read_model(Path("kept"))) == (before, kept)


@pytest.mark.parametrize(
    ("arguments", "file"),
    [(["predict", "run", "--out", "new.csv"], "new.csv"), (["report", "run"], "run/report.json"),
     (["diagnose", "run"], "run/diagnosis.json")],
)  # fmt: skip
def test_a_disk_that_is_full_while_a_file_is_written(
    arguments: list[str], file: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = places(folder)
    with files_of_at_most(50):
        assert call(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == f"tidegate: {file} cannot be read or written: File too large. {END}"
    assert places(folder) == before
