"""The run folder and the line on the terminal."""

import contextlib
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tidegate.errors import ArgumentError, ModelFileError, TrainingError
from tidegate.training import (
    Checked,
    Event,
    Finished,
    Judging,
    RunFolder,
    Started,
    Undone,
    Updated,
    judging,
    read_events,
)
from tidegate.training.progress import TerminalProgress
from tidegate.training.view import TrainingView

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


def shown(terminal: bool, events: Iterable[Event] = EVENTS, width: int = 120) -> str:
    out = io.StringIO()
    with TerminalProgress(Console(file=out, width=width, force_terminal=terminal)) as progress:
        for event in events:
            progress(event)
    return out.getvalue()


def test_progress_writes_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 3.0, 9.0, 11.0, 12.0, 13.0, 99.0])
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    events = [
        Started(12, 90.0, update=3, seconds=5.0),
        Updated(5, 6.0, 1.25),
        Updated(20, 7.0, 1.5),
        Updated(63, 20.0, 1.75),  # ten seconds after the first line
        Undone(63, 20.0, float("nan"), float("inf"), 1),
        Updated(64, 21.0, 1.75),
        Finished(64, 21.0, "the time was up", 5),
    ]

    def ticking() -> Iterator[Event]:
        for clock[0], event in zip(times, events, strict=True):
            yield event

    assert shown(False, ticking(), width=20).splitlines() == [
        "training goes on after update 3",
        "training  update 63  loss 1.75  4 updates/s  at most 1:10 left",
        "the update after 63 is undone: its loss is nan, the norm of its gradient inf",
        "trained until the time was up  update 64  loss 1.75  1 undone",
    ]


def test_progress_draws_one_line_on_a_terminal() -> None:
    assert "trained until the time was up  update 5  validation 1.25" in shown(True)


def test_time_left_by_the_clock_and_by_updates() -> None:
    view = TrainingView()
    view(Started(1, 100.0, 1000))
    assert (view.share, view.left_text) == (0.0, "at most 1:40 left")
    view(Updated(100, 10.0, 1.0))
    assert (view.share, view.left_text, view.rate) == (0.1, "at most 1:30 left", 10.0)
    view(Checked(300, 12.0, 0.5, 0.75, 0.1, True))  # 25 updates a second
    assert (view.share, view.left_text) == (0.3, "at most 0:28 left")
    assert view.text == "training  update 300  loss 0.5  validation 0.75  25 updates/s"
    view(Started(1, math.inf, None, 300, 12.0))
    view(Updated(310, 14.0, 1.0))
    assert (view.share, view.left_text, view.rate) == (0.0, "", 5.0)
    view(Started(1, 7200.0))
    assert view.left_text == "at most 2:00:00 left"


def test_judging_is_shown_too() -> None:
    view = TrainingView()
    for event in (*EVENTS, Judging(0, 8, 0.0)):
        view(event)
    assert (view.line, view.share) == ("judging  0 of 8", 0.0)
    view(Judging(2, 8, 5.0))
    assert (view.line, view.share) == ("judging  2 of 8  0:15 left", 0.25)
    assert "judging  2 of 8" in shown(True, [*EVENTS, Judging(2, 8, 5.0)])


def test_judging_tells_at_its_ends_and_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, events = [0.0], list[Event]()
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    seen = []
    for part in judging("abcdefg", [events.append]):
        seen.append(part)
        clock[0] += 0.4
    assert seen == list("abcdefg")
    assert [(event.done, event.total) for event in events if isinstance(event, Judging)] == [
        (0, 7),
        (3, 7),
        (6, 7),
        (7, 7),
    ]
    assert events[1] == Judging(3, 7, pytest.approx(1.2))


def test_a_second_training_is_shown_anew() -> None:
    view = TrainingView()
    for event in (*EVENTS, Judging(2, 2, 5.0), Started(12, math.inf, 50)):
        view(event)
    assert (view.text, view.share) == ("training  update 0", 0.0)


def test_the_view_is_that_of_the_recorded_events(tmp_path: Path) -> None:
    events: list[Event] = [
        *EVENTS[:2],
        Updated(7, 0.7, 0.1),
        Undone(7, 0.8, float("nan"), float("nan"), 1),
        Started(12, math.inf, 50, 5, 0.5),
        Checked(9, 3.0, 0.1, 0.2, 0.1, True),
        EVENTS[2],
        Judging(3, 4, 6.0),
    ]
    with RunFolder(tmp_path / "run", {}) as folder:
        live, replayed = TrainingView(), TrainingView()
        for number, event in enumerate(events):
            folder(event)
            live(event)
            replayed = TrainingView()
            for read in read_events(folder.path / "events.jsonl"):
                replayed(read)
            assert (replayed.text, replayed.share, replayed.left_text) == (live.text, live.share, live.left_text), (
                number
            )


@pytest.mark.parametrize("line", ["", "{}", "[1]", '{"event": "ended"}', '{"event": "judging", "done": 1.5}', "{"])
def test_a_line_that_is_no_event(line: str, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(
        '{"event": "judging", "done": 1, "total": 2, "seconds": 0.5}\n' + line + "\n"
    )
    with pytest.raises(ModelFileError, match=r"events\.jsonl:2"):
        read_events(tmp_path / "events.jsonl")


def test_nothing_is_written_before_training_starts() -> None:
    out = io.StringIO()
    with TerminalProgress(Console(file=out)):
        pass
    assert out.getvalue() == ""
