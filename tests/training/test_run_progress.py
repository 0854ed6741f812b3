"""The run folder and the line on the terminal."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tidegate.errors import ArgumentError
from tidegate.training import Checked, Finished, RunFolder, Started
from tidegate.training.progress import TerminalProgress

EVENTS = (Started(12, 9.0), Checked(5, 0.5, None, 1.25, 0.1, True), Finished(5, 1.0, "the time was up", 5))


def test_a_run_leaves_config_and_history(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run", {"seed": 3})
    assert not folder.path.exists()
    for event in EVENTS:
        folder(event)
    assert json.loads((folder.path / "config.json").read_text()) == {"seed": 3}
    lines = [json.loads(line) for line in (folder.path / "history.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "checked", "finished"]
    assert lines[1]["validation"] == 1.25
    assert folder.write("a.txt", "text") == folder.path / "a.txt"
    assert (folder.path / "a.txt").read_text() == "text"


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError) as caught:
        RunFolder(tmp_path, {})
    assert str(caught.value) == (
        f"The folder {tmp_path} exists already and is not overwritten. Give a folder that does not exist yet, "
        "or none for a new one under runs/."
    )


def test_fresh_folders_are_numbered(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = RunFolder.fresh("co2", {}, root=tmp_path)
        assert folder.path == tmp_path / f"co2-{number}"
        folder.path.mkdir()


def test_two_runs_at_once_take_different_folders(tmp_path: Path) -> None:
    first, second, named = (
        RunFolder.fresh("co2", {}, tmp_path),
        RunFolder.fresh("co2", {}, tmp_path),
        tmp_path / "co2-3",
    )
    third, fourth = RunFolder(named, {}), RunFolder(named, {})
    for folder in (first, second, third):
        folder(EVENTS[0])
    assert [folder.path.name for folder in (first, second)] == ["co2-1", "co2-2"]
    with pytest.raises(ArgumentError, match="co2-3 exists already"):
        fourth(EVENTS[0])
    assert {path.name for path in tmp_path.iterdir()} == {"co2-1", "co2-2", "co2-3"}


def test_a_number_that_is_not_finite_is_null_in_the_history(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", {"clip": float("inf")})
    for event in (EVENTS[0], Checked(5, 0.5, float("nan"), float("inf"), 0.1, True)):
        folder(event)
    text = (folder.path / "history.jsonl").read_text() + (folder.path / "config.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text


def test_progress_writes_its_last_line_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with TerminalProgress(Console(file=out, width=20)) as progress:
        for event in EVENTS:
            progress(event)
    assert out.getvalue() == "trained until the time was up (5 updates)\n"


def test_progress_draws_one_line_on_a_terminal() -> None:
    out = io.StringIO()
    with TerminalProgress(Console(file=out, width=120, force_terminal=True)) as progress:
        for event in EVENTS:
            progress(event)
    assert "trained until the time was up  loss 1.25  update 5" in out.getvalue()


def test_nothing_is_written_before_training_starts() -> None:
    out = io.StringIO()
    with TerminalProgress(Console(file=out)):
        pass
    assert out.getvalue() == ""
