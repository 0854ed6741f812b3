"""`tidegate fit` is killed, interrupted, started twice, or finds a disk that is full: it can be run again."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from disk_faults import FULL, READ_ONLY, Faulty, KilledError
from forecast_cases import waves
from tidegate.cli import main
from tidegate.files import read_model
from tidegate.files.atomic import locked
from tidegate.tasks.forecast.model.task import ForecastTask

FIT = ["fit", "forecast", "series.csv", "--target", "y", "--horizon", "2", "--season", "6", "--hidden-size", "4",
       "--context", "12", "--updates", "60"]  # fmt: skip
END = "Check the path, its permissions and the free space.\n"


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"t": np.arange(150), "y": waves(150)}).write_csv("series.csv")
    monkeypatch.setattr("tidegate.training.loop.TELL_EVERY", float("inf"))  # writes do not depend on the clock


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tidegate", *arguments])
    try:
        return main()
    except SystemExit as end:
        return int(end.code or 0)


def events(run: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(run, "events.jsonl").read_text().splitlines()]


def learned(run: str) -> tuple[str, dict[str, object]]:
    """What a complete run has learned: the hash of its weights, and its scores."""
    assert {path.name for path in Path(run).iterdir()} == {
        "config.json", "events.jsonl", "model", "report.html", "report.json"
    }  # fmt: skip
    scores = json.loads(Path(run, "report.json").read_text())["evaluation"]
    return read_model(Path(run, "model")).manifest["weights"], scores


def test_a_run_is_continued_from_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *FIT, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        Faulty(patch, 20)
        with pytest.raises(KilledError):
            call(patch, *FIT, "--out", "run")
    capsys.readouterr()
    assert call(monkeypatch, *FIT, "--out", "run") == 2
    assert capsys.readouterr().err == (
        "tidegate: The folder run holds an unfinished run. Continue it with --resume, or give another folder.\n"
    )
    assert call(monkeypatch, *FIT, "--out", "run", "--resume", "--seed", "1") == 2
    assert capsys.readouterr().err == (
        "tidegate: The folder run holds a run with seed=0, got 1. To continue it give the same options and data, else "
        "another folder.\n"
    )
    assert call(monkeypatch, *FIT, "--out", "run", "--resume") == 0
    assert [event["update"] for event in events("run") if event["event"] == "started"] == [0, 50, 0]
    assert learned("run") == learned("whole")


def test_data_that_has_changed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        Faulty(patch, 20)
        with pytest.raises(KilledError):
            call(patch, *FIT)
    with Path("series.csv").open("a") as file:
        file.write("150,1\n")
    assert call(monkeypatch, *FIT, "--resume") == 0  # no run of this data: a new one
    assert capsys.readouterr().out.endswith("run: runs/series-2\n")


def test_a_complete_run_prints_its_result_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *FIT, "--resume", "--json") == 0
    first = capsys.readouterr().out
    assert call(monkeypatch, *FIT, "--resume", "--json") == 0
    assert capsys.readouterr().out == first
    assert json.loads(first)["run"] == "runs/series-1"
    assert not Path("runs/series-2").exists()


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, *FIT, "--out", "whole") == 0
    command = [sys.executable, "-m", "tidegate", *FIT, "--out", "run", "--resume"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        while not Path("run/checkpoint.safetensors").exists():
            time.sleep(0.002)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate()
    assert (run.returncode, out) == (130, "")
    assert err == "tidegate: Interrupted. run is kept: the same command with --resume continues it.\n"
    assert call(monkeypatch, *FIT, "--out", "run", "--resume") == 0
    assert learned("run") == learned("whole")


def test_ctrl_c_before_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tidegate.tasks.forecast.estimator.read_panel", interrupted)
    assert call(monkeypatch, *FIT, "--out", "run") == 130
    assert (
        capsys.readouterr().err == "tidegate: Interrupted. There is no checkpoint yet: the same command begins anew.\n"
    )
    assert not Path("run").exists()


def test_two_runs_in_one_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--resume"]):
        with locked(Path("run")):
            assert call(monkeypatch, *FIT, "--out", "run", *options) == 1
        assert capsys.readouterr().err == (
            "tidegate: Another process is training in run. Wait until it ends, or give another folder.\n"
        )
        assert list(Path("run").iterdir()) == []
    assert call(monkeypatch, *FIT, "--out", "run") == 0


def test_losses_that_are_not_finite(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    score = ForecastTask.score
    with monkeypatch.context() as patch:
        calls = iter(range(100))
        patch.setattr(
            ForecastTask,
            "score",
            lambda *arguments: (
                score(*arguments)[0] * (1.0 if next(calls) < 30 else float("nan")),
                score(*arguments)[1],
            ),
        )
        assert call(patch, *FIT, "--out", "run") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "tidegate: After 30 updates the training loss is nan and the norm of its gradient nan, three "
    )
    assert [event["row"] for event in events("run") if event["event"] == "undone"] == [1, 2, 3]
    assert call(monkeypatch, *FIT, "--out", "run", "--resume") == 0
    assert [event["update"] for event in events("run") if event["event"] == "started"] == [0, 25, 0]


def faults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stride: int) -> None:
    """Let every `stride`-th change to the disk fail in each of three ways, and run the command again."""
    with monkeypatch.context() as patch:
        faulty = Faulty(patch)
        assert call(patch, *FIT, "--out", "whole", "--resume") == 0
    for number in (FULL, READ_ONLY, None):
        for at in range(0, len(faulty.calls), stride):
            run = f"run-{number}-{at}"
            command = [*FIT, "--out", run, "--resume"]
            capsys.readouterr()
            with monkeypatch.context() as patch:
                Faulty(patch, at, number)
                try:
                    assert call(patch, *command) == 2
                except KilledError:
                    assert number is None
                else:
                    last = capsys.readouterr().err.splitlines()[-1]
                    assert last.startswith(f"tidegate: {run}")
                    assert last.endswith(f" cannot be read or written: {os.strerror(number or 0)}. {END[:-1]}")
            assert call(monkeypatch, *command) == 0
            assert learned(run) == learned("whole"), (faulty.calls[at], at)


def test_faults_of_the_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    faults(monkeypatch, capsys, 13)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_faults_of_the_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    faults(monkeypatch, capsys, 1)


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that start with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tidegate.tasks.forecast", "tidegate.training.progress", "tidegate.models"])
    return context


def run_fit(folder: str, *arguments: str) -> None:
    os.chdir(folder)
    sys.argv = ["tidegate", *FIT, *arguments]
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        sys.stdout = sys.stderr = nothing
        sys.exit(main())


def kills(processes: ForkServerContext, folder: Path, count: int) -> dict[str, int]:
    """Kill a fit at `count` random moments, each in a folder of its own, and see it end as if nothing had happened.
    Returns how many of them had no checkpoint yet, had one, and were complete."""

    def start(out: str) -> multiprocessing.process.BaseProcess:
        """A process whose fit has begun: it has found out what its folder holds."""
        process = processes.Process(target=run_fit, args=(str(folder), "--out", out, "--updates", "300", "--resume"))
        process.start()
        while not Path(out, "config.json").exists():
            time.sleep(0.001)
        return process

    lengths = []
    for number in range(2):  # the first one fills the cache of kernels
        process, began = start(f"whole-{number}"), time.monotonic()
        process.join()
        lengths.append(time.monotonic() - began)
    expected, found = learned("whole-1"), {"new": 0, "unfinished": 0, "complete": 0}
    assert learned("whole-0") == expected
    generator = torch.Generator().manual_seed(count)
    for number in range(count):
        out, moment = f"run-{number}", float(torch.rand((), generator=generator)) * lengths[1]
        process = start(out)
        process.join(moment)
        process.kill()
        process.join()
        names = {path.name for path in Path(out).iterdir()} if Path(out).exists() else set()
        kind = "unfinished" if "checkpoint.safetensors" in names else "complete" if "model" in names else "new"
        found[kind] += 1
        again = start(out)
        again.join()
        assert again.exitcode == 0
        assert learned(out) == expected, (number, moment)
    return found


def test_kill_at_three_moments(processes: ForkServerContext, tmp_path: Path) -> None:
    assert sum(kills(processes, tmp_path, 3).values()) == 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_at_200_moments(processes: ForkServerContext, tmp_path: Path) -> None:
    found = kills(processes, tmp_path, 200)
    assert found["unfinished"] > 40  # the others were killed while data was read, or after training
