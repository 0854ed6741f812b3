"""Seeds that are run, kept, found again and left out."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import small_experiments as small
from reproductions import run as running
from reproductions import runs
from reproductions.run import LeftOut, Options, Planned, run
from reproductions.runs import Run
from tidegate.errors import ArgumentError, DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {e.name: e for e in (small.DRAWS, small.READS, small.FAILS, small.LISTENS)}
    monkeypatch.setattr(running, "EXPERIMENTS", known)


def figures(options: Options) -> dict[tuple[str, int], float | None]:
    found = [event for event in run(options) if isinstance(event, Run)]
    return {(r.configuration, r.seed): r.outcome.figure for r in found}


def planned(options: Options) -> Planned:
    return next(event for event in run(options) if isinstance(event, Planned))


def test_configurations_and_their_seeds(tmp_path: Path) -> None:
    found = figures(Options(("draws",), out=tmp_path, processes=1))
    assert list(found) == [("easy", 1), ("easy", 2), ("easy", 3), ("hard", 1)]
    assert found["easy", 1] is None
    assert found["easy", 2] != found["easy", 3]
    torch.manual_seed(3)
    assert found["easy", 3] == round(float(torch.rand(())) * 20_000)


def test_seeds_and_quick(tmp_path: Path) -> None:
    assert list(figures(Options(("draws",), seeds=2, out=tmp_path, processes=1))) == [
        ("easy", 1), ("easy", 2), ("hard", 1), ("hard", 2),
    ]  # fmt: skip
    assert list(figures(Options(("draws",), quick=True, out=tmp_path, processes=1))) == [("short", 1)]


def test_rows_and_seeds_that_are_picked(tmp_path: Path) -> None:
    options = Options(("draws", "fails"), rows=("hard",), only=(7, 2, 7), out=tmp_path, processes=1)
    found = figures(options)
    assert list(found) == [("hard", 7), ("hard", 2)]
    assert figures(Options(("draws",), seeds=2, out=tmp_path, processes=1))["hard", 2] == found["hard", 2]


def test_other_processes_do_not_run_the_main_module_again(tmp_path: Path) -> None:
    script = tmp_path / "no_guard.py"
    script.write_text(
        "from functools import partial\nfrom reproductions.workers import finish\nprint('begun')\n"
        "print(sorted(finish([partial(pow, 2, k) for k in range(3)], 2)))\n"
    )
    found = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    done = subprocess.run([sys.executable, script], env=found, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n[1, 2, 4]\n", "")


def test_random_numbers_and_threads_outside_are_as_before(tmp_path: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        figures(Options(("draws",), out=tmp_path, processes=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_seeds_in_parallel_give_what_they_give_alone(tmp_path: Path) -> None:
    alone = figures(Options(("draws",), seeds=3, out=tmp_path / "alone", processes=1))
    together = figures(Options(("draws",), seeds=3, out=tmp_path / "together", processes=2))
    assert together == alone


@pytest.mark.slow
def test_an_error_in_a_process_ends_the_others(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"seed \d broke"):
        figures(Options(("fails",), out=tmp_path, processes=2))
    for child in multiprocessing.active_children():
        child.join(20)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_interrupt_is_for_this_process_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    together = figures(Options(("listens",), out=tmp_path / "together", processes=2))
    assert signal.getsignal(signal.SIGINT) is before
    assert set(together.values()) == {0.0}
    assert set(figures(Options(("listens",), out=tmp_path / "alone", processes=1)).values()) == {1.0}


def test_what_is_finished_is_kept(tmp_path: Path) -> None:
    options = Options(("draws",), out=tmp_path, processes=1)
    events = run(options)
    assert next(events) == Planned(4, 0)
    first, second = next(events), next(events)
    events.close()  # interrupted
    assert planned(options) == Planned(4, 2)
    again = [event for event in run(options) if isinstance(event, Run)]
    assert again[:2] == [first, second]
    assert planned(options) == Planned(4, 4)
    assert figures(options) == {(r.configuration, r.seed): r.outcome.figure for r in again}


def test_only_what_is_kept(tmp_path: Path) -> None:
    events = run(Options(("draws",), out=tmp_path, processes=1))
    next(events)
    first = next(events)
    events.close()
    assert list(run(Options(("draws",), out=tmp_path, only_kept=True))) == [Planned(4, 1), first]


def test_a_configuration_that_is_called_otherwise_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(("draws",), out=tmp_path, processes=1)
    before = figures(options)
    easy, hard = small.ROWS
    renamed = dataclasses.replace(small.DRAWS, configurations=(dataclasses.replace(easy, name="soft"), hard))
    monkeypatch.setitem(running.EXPERIMENTS, "draws", renamed)
    assert planned(options) == Planned(4, 4)
    assert figures(options) == {("soft" if name == "easy" else name, k): f for (name, k), f in before.items()}


def test_a_damaged_file_is_run_again(tmp_path: Path) -> None:
    options = Options(("draws",), out=tmp_path, processes=1)
    before = figures(options)
    damaged, foreign = sorted((tmp_path / "draws").iterdir())[:2]
    damaged.write_text(damaged.read_text("utf-8")[:50], "utf-8")
    foreign.write_text(json.dumps({"outcome": {"figure": 3}}), "utf-8")
    assert planned(options) == Planned(4, 2)
    assert figures(options) == before


def test_what_a_run_depends_on() -> None:
    def key(experiment: str = "a", version: int = 1, steps: int = 20, seed: int = 1, data: str = "d") -> str:
        return runs.key(experiment, version, dataclasses.replace(small.EASY, steps=steps), seed, {"file": data})

    others = [key("b"), key(version=2), key(steps=21), key(seed=2), key(data="e")]
    assert len({key(), *others}) == 6
    assert key() == key()


def test_an_experiment_without_its_data_is_left_out(tmp_path: Path) -> None:
    (absent,) = [e for e in run(Options(("reads",), out=tmp_path)) if isinstance(e, LeftOut)]
    assert absent.reason == "reads is left out: it needs number.txt; say with --data in which folder that lies"
    (missing,) = [e for e in run(Options(("reads",), out=tmp_path, data=tmp_path)) if isinstance(e, LeftOut)]
    assert missing.reason == f"reads is left out: there is no number.txt in {tmp_path}"


def test_an_experiment_without_its_package_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "number.txt").write_text("1", "utf-8")
    monkeypatch.setitem(
        running.EXPERIMENTS, "reads", dataclasses.replace(small.READS, package="a_package_that_is_not_there")
    )
    (absent,) = [e for e in run(Options(("reads",), out=tmp_path, data=tmp_path)) if isinstance(e, LeftOut)]
    assert absent.reason == (
        "reads is left out: reading number.txt needs the extra 'data': pip install 'tidegate[data]'"
    )


def test_other_data_is_another_run(tmp_path: Path) -> None:
    options = Options(("reads",), out=tmp_path / "out", data=tmp_path, processes=1)
    for number in (3.0, 4.0, 3.0):
        (tmp_path / "number.txt").write_text(str(number), "utf-8")
        assert figures(options) == {("hard", 1): number}
    assert len(list((tmp_path / "out" / "reads").iterdir())) == 2


def refusal(options: Options) -> str:
    with pytest.raises(ArgumentError) as caught:
        list(run(options))
    return str(caught.value)


def test_errors(tmp_path: Path) -> None:
    names = "The experiments are draws, reads, fails, listens"
    assert refusal(Options(("drows",))) == f"there is no experiment 'drows', did you mean 'draws'? {names}"
    assert refusal(Options(("",))) == f"there is no experiment ''. {names}"
    assert refusal(Options(("reads",), rows=("easy",))) == "there is no row 'easy'. The rows are hard"
    assert refusal(Options(("draws",), rows=("easy",), quick=True)) == "there is no row 'easy'. The rows are short"
    assert refusal(Options(seeds=0)) == "seeds must be 1 or more, got 0"
    assert refusal(Options(only=(3, -2))) == "seed must be 1 or more, got -2"
    assert refusal(Options(only=(3,), seeds=2)) == "--seed picks seeds and --seeds counts them: omit one of them"
    assert refusal(Options(processes=-1)) == "processes must be 1 or more, got -1"


def test_runs_in_a_file(tmp_path: Path) -> None:
    path, some = tmp_path / "runs.json", [small.a_run(seed=2), small.a_run(None)]
    runs.write(path, some)
    assert runs.read(path) == some
    path.write_text('{"no": "runs"}', "utf-8")
    with pytest.raises(DataError) as caught:
        runs.read(path)
    assert str(caught.value) == (
        f"{path} holds no runs of experiments: give a file that `python -m reproductions --json` wrote"
    )


def test_new_runs_take_the_place_of_old_ones() -> None:
    old = [small.a_run(3.0, 1, "hard"), small.a_run(2.0, 2), small.a_run(1.0, 1)]
    new = [small.a_run(4.0, 1)]
    assert runs.merged(old, new) == [new[0], old[1], old[0]]
    otherwise = [small.a_run(4.0, 1, settings={"steps": 21})]
    assert runs.merged(old, otherwise) == [otherwise[0], old[0]]
