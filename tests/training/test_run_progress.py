"""The run folder and the line on the terminal."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tidegate.errors import ArgumentError, TrainingError
from tidegate.training import Checked, Finished, RunFolder, Started
from tidegate.training.progress import TerminalProgress

EVENTS = (Started(12, 9.0), Checked(5, 0.5, None, 1.25, 0.1, True), Finished(5, 1.0, "the time was up", 5))


def test_a_run_leaves_config_and_events(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "deep" / "run", {"seed": 3}) as folder:
        for event in EVENTS:
            folder(event)
        assert folder.write("a.txt", "text") == folder.path / "a.txt"
    assert json.loads((folder.path / "config.json").read_text()) == {"seed": 3}
    lines = [json.loads(line) for line in (folder.path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "checked", "finished"]
    assert lines[1]["validation"] == 1.25
    assert (folder.path / "a.txt").read_text() == "text"


def taken(path: Path) -> str:
    return (
        f"The folder {path} exists already and is not overwritten. Give a folder that does not exist yet, "
        "or none for a new one under runs/."
    )


def run(path: Path, checkpoint: bool, complete: bool, config: object = None) -> None:
    """A folder as a run that was killed leaves it."""
    with RunFolder(path, {"seed": 3} if config is None else config) as folder:  # type: ignore[arg-type]
        folder(EVENTS[0])
        if checkpoint or complete:
            folder.checkpoint.write_bytes(b"checkpoint")
        if complete:
            (path / "model").mkdir()
            (path / "report.html").touch()
            folder.complete()


def refused(path: Path, **options: bool) -> str:
    before = sorted((file, file.is_file() and file.read_bytes()) for file in path.rglob("*"))
    with pytest.raises(ArgumentError) as caught, RunFolder(path, {"seed": 3}, **options):
        raise AssertionError
    assert sorted((file, file.is_file() and file.read_bytes()) for file in path.rglob("*")) == before
    return str(caught.value)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["file.txt", "config.json", "checkpoint.safetensors", "model"])
def test_a_folder_with_something_else_is_refused(name: str, resume: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    assert refused(tmp_path, resume=resume) == taken(tmp_path)


def test_an_unfinished_run_is_continued_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(path, checkpoint=True, complete=False)
    with (path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "chec')
    (path / ".checkpoint.safetensors.0123abcd").touch()
    assert refused(path) == (
        f"The folder {path} holds an unfinished run. Continue it with --resume, or give another folder."
    )
    with RunFolder(path, {"seed": 3}, resume=True) as folder:
        folder(EVENTS[2])
        assert not folder.completed
    lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "finished"]
    assert {file.name for file in path.iterdir()} == {"config.json", "events.jsonl", "checkpoint.safetensors"}


def test_a_complete_run_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(path, checkpoint=True, complete=True)
    assert refused(path) == taken(path)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    with RunFolder(path, {"seed": 3}, resume=True) as folder:
        assert folder.completed
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


@pytest.mark.parametrize("complete", [False, True])
def test_a_run_with_other_options_is_not_continued(complete: bool, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(path, True, complete, {"seed": 4})
    assert refused(path, resume=True) == (
        f"The folder {path} holds a run with seed=4, got 3. To continue it give the same options and data, else "
        "another folder."
    )


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_ended_before_its_first_checkpoint_begins_again(resume: bool, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(path, checkpoint=False, complete=False)
    with RunFolder(path, {"seed": 3}, resume=resume) as folder:
        folder(EVENTS[0])
    run_again = RunFolder(path, {"seed": 4}, resume=resume)
    with pytest.raises(ArgumentError, match="exists already"), run_again:
        raise AssertionError


def test_a_run_that_fails_before_training_leaves_nothing(tmp_path: Path) -> None:
    for folder in (RunFolder(tmp_path / "a" / "b", {}), RunFolder.numbered("co2", {}, tmp_path / "a")):
        with contextlib.suppress(ZeroDivisionError), folder:
            assert (folder.path / "config.json").exists()
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run", {}):
        pass
    assert (tmp_path / "run").exists()


def test_runs_are_numbered(tmp_path: Path) -> None:
    for number in (1, 2):
        with RunFolder.numbered("co2", {}, tmp_path) as folder:
            folder(EVENTS[0])
        assert folder.path == tmp_path / f"co2-{number}"


def test_the_last_run_of_the_same_command_is_continued(tmp_path: Path) -> None:
    for number, seed in enumerate((3, 3, 4), 1):
        run(tmp_path / f"co2-{number}", checkpoint=True, complete=False, config={"seed": seed})
    (tmp_path / "co2-x").mkdir()
    found = []
    for seed in (3, 4, 5):
        with RunFolder.numbered("co2", {"seed": seed}, tmp_path, resume=True) as folder:
            found.append(folder.path.name)
    assert found == ["co2-2", "co2-3", "co2-4"]
    with RunFolder.numbered("co2", {"seed": 3}, tmp_path / "none", resume=True) as folder:
        assert folder.path == tmp_path / "none" / "co2-1"


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = (
        "import sys, pathlib\nfrom tidegate.training import RunFolder, Started\n"
        f"with RunFolder(pathlib.Path({str(path)!r}), {{'seed': 3}}) as folder:\n"
        "    folder(Started(1, 1.0))\n    print('in', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(TrainingError) as caught, RunFolder(path, {"seed": 3}, resume=True):
            raise AssertionError
        other.kill()
    assert str(caught.value) == (f"Another process is training in {path}. Wait until it ends, or give another folder.")
    with RunFolder(path, {"seed": 3}) as folder:  # the lock of a dead process is free
        assert not folder.completed


def test_a_number_that_is_not_finite_is_null_in_the_events(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {"clip": float("inf")}) as folder:
        for event in (EVENTS[0], Checked(5, 0.5, float("nan"), float("inf"), 0.1, True)):
            folder(event)
    text = (folder.path / "events.jsonl").read_text() + (folder.path / "config.json").read_text()
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
