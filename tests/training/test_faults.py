"""Every write, sync, rename and removal of a run fails in turn: the folder stays intact, and the run can go on."""

import json
from pathlib import Path

import pytest

from disk_faults import FULL, READ_ONLY, Faulty, KilledError
from tidegate.training import RunFolder, TrainingPlan, train
from tidegate.training.checkpoint import load_checkpoint
from training_cases import Stream, bits

PLAN = TrainingPlan(learning_rate=0.02, updates=8, check_every=3)


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The events, and so the writes, do not depend on the clock."""
    monkeypatch.setattr("tidegate.training.loop.TELL_EVERY", float("inf"))


def fit(path: Path) -> Stream:
    """A run as the command line makes one."""
    task = Stream()
    with RunFolder(path, {"seed": 3}, resume=True) as folder:
        if not folder.completed:
            train(task, PLAN, [folder], checkpoint=folder.checkpoint, resume=folder.resume)
            folder.write("report.html", "report")
            folder.write("model", "model")
            folder.complete()
    return task


def changes(path: Path) -> list[str]:
    """The changes to the disk of a whole run, in order."""
    with pytest.MonkeyPatch.context() as patch:
        faulty = Faulty(patch)
        fit(path)
    return faulty.calls


def intact(path: Path, killed: bool) -> None:
    """What is in a folder can be read whole; only a killed process leaves temporary files or part of a line."""
    if not path.exists():
        return
    if (path / "config.json").exists():
        assert json.loads((path / "config.json").read_text()) == {"seed": 3}
    load_checkpoint(path / "checkpoint.safetensors")
    if (path / "events.jsonl").exists():
        *lines, last = (path / "events.jsonl").read_bytes().split(b"\n")
        assert all(json.loads(line)["event"] for line in lines)
        assert killed or last == b""
    assert killed or not list(path.glob(".*"))


def test_every_kind_of_change_is_part_of_a_run(tmp_path: Path) -> None:
    found = changes(tmp_path / "run")
    assert {name: found.count(name) for name in set(found)} == {
        "make_folder": 1,
        "write": 13,  # config, 4 checkpoints, 6 events, model and report
        "sync": 14,  # of file and folder
        "rename": 7,
        "remove": 1,
    }


@pytest.mark.parametrize("number", [FULL, READ_ONLY, None], ids=["full", "read-only", "killed"])
def test_a_fault_at_every_change(number: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bits(dict(fit(tmp_path / "whole").module.state_dict()))
    count = len(changes(tmp_path / "counted"))
    for at in range(count):
        path = tmp_path / f"run-{at}"
        with monkeypatch.context() as patch:
            faulty = Faulty(patch, at, number)
            with pytest.raises(KilledError if number is None else OSError) as caught:
                fit(path)
        assert len(faulty.calls) > at
        if isinstance(caught.value, OSError):
            assert str(path) in str(caught.value.filename), faulty.calls[at]
        intact(path, killed=number is None)
        task = fit(path)
        assert {file.name for file in path.iterdir()} == {"config.json", "events.jsonl", "model", "report.html"}, at
        assert bits(dict(task.module.state_dict())) == whole, at


def test_two_faults_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that continues a killed one is killed too, at each of its own changes."""
    whole = bits(dict(fit(tmp_path / "whole").module.state_dict()))
    for at in range(23):
        path = tmp_path / f"run-{at}"
        for kill in (14, at):
            with monkeypatch.context() as patch:
                Faulty(patch, kill)
                with pytest.raises(KilledError):
                    fit(path)
            intact(path, killed=True)
        assert bits(dict(fit(path).module.state_dict())) == whole, at
