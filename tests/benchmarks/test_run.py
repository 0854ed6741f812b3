"""Runs: what is asked for, every case once at tiny sizes, and the processes that are started."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmark_rows import result, row
from benchmarks import busy, checkpoints, contests, gradients, ourselves, run, start, steps
from benchmarks.cases import CASES
from benchmarks.limits import Limits
from benchmarks.peers import PEERS
from benchmarks.rows import Result, Row
from benchmarks.run import Begun, LeftOut, Options, as_json
from benchmarks.shapes import EVERY, GROUPS, OVER_B, OVER_H, OVER_T, STEPS, Shape
from benchmarks.timing import Effort
from tidegate.errors import ArgumentError, TidegateError

FEW = (Shape(3, 2, 2, 4), Shape(4, 3, 2, 5))
LOAD = (0.5, 0.25, 0.0)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes and efforts that take no time."""
    monkeypatch.setattr(run, "QUICK", Effort(0.0, 1, 0.0, 0.0))
    monkeypatch.setattr(run, "measured", lambda: Limits(1e9))
    monkeypatch.setattr("benchmarks.limits.bandwidth", lambda size: 1e9)
    monkeypatch.setattr("benchmarks.limits.compute", lambda: 1e9)
    monkeypatch.setattr(run, "load_average", lambda: LOAD)
    for module in (busy, contests, ourselves, start):
        monkeypatch.setattr(module, "FEW", FEW)
    monkeypatch.setattr(contests, "OVER_H", tuple(Shape(3, 2, 2, H) for H in range(1, 8)))
    monkeypatch.setattr(contests, "OVER_B", tuple(Shape(3, B, 2, 4) for B in range(1, 10)))
    monkeypatch.setattr(ourselves, "OVER_T", tuple(Shape(T, 1, 2, 3) for T in (2, 4, 8)))
    monkeypatch.setattr(checkpoints, "THOUSAND", (Shape(70, 2, 3, 4),))
    monkeypatch.setattr("benchmarks.gradients.bandwidth", lambda size: 1e9)
    monkeypatch.setattr(gradients, "SEQUENCES", FEW)
    monkeypatch.setattr(gradients, "LANES", FEW[0])
    monkeypatch.setattr(gradients, "SHORTER", FEW[1])
    monkeypatch.setattr(steps, "STEPS", tuple(Shape(1, B, 2, 4) for B in range(1, 7)))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The process that a first call is measured in is this one; the environments that it was to have."""
    environments = []

    def stand_in(command: list[str], *, env: dict[str, str], **_: object) -> SimpleNamespace:
        environments.append(env)
        start.report(*command[-2:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(start.subprocess, "run", stand_in)
    return environments


OF_KERNELS = {"checkpoint"}  # whose rows are wrong where bits differ, as they do on the reference path


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.kernels if c in OF_KERNELS else ()) for c in CASES])
@pytest.mark.usefixtures("tiny", "in_this_process")
def test_every_case_quickly(case: str) -> None:
    begun, *events, last = run.run(Options((case,), quick=True))
    assert begun == Begun(case, 1e9, LOAD)
    assert isinstance(last, Result)
    rows = [e for e in events if isinstance(e, Row)]
    assert [replace(r, limit=None) for r in last.rows] == [replace(r, limit=None) for r in rows]
    assert rows
    assert all(r.case == case and r.difference is not None and not r.wrong for r in rows)
    assert not any(r.they_are_wrong for r in rows)
    assert (last.quick, last.machine["threads"], last.load) == (True, str(torch.get_num_threads()), LOAD)
    assert json.loads(as_json({"x": {case: last}}))["processors"]["x"][case]["rows"]


@pytest.mark.usefixtures("tiny")
def test_peers_that_are_asked_for_alone_take_part() -> None:
    *_, last = run.run(Options(("lstm",), ("torch",), quick=True))
    rows = last.rows
    assert {(r.what, r.peer) for r in rows} == {("forward", "torch"), ("training", "torch")}
    assert {r.shape for r in rows} == set(FEW)
    assert all(r.flops and r.limit == last.limit and r.their_difference is not None for r in rows)


@pytest.mark.usefixtures("tiny")
def test_a_peer_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {name: SimpleNamespace(**vars(p) | {"lacks": name}) if name == "eager" else p for name, p in PEERS.items()}
    for module in ("run", "peers", "contests"):
        monkeypatch.setattr(f"benchmarks.{module}.PEERS", gone)
    events = list(run.run(Options(("cells",), ("eager",), quick=True)))
    said = "eager is left out because eager cannot be imported: pip install 'tidegate[bench]'"
    assert events[1] == LeftOut(said)
    assert {e.peer for e in events if isinstance(e, Row)} == {"-"}
    assert events[-1].left_out == (said,)


def test_torch_compile_comes_only_where_it_is_asked_for(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make(problem: Any) -> Any:
        made.append(problem.cell.name)
        return PEERS["eager"].make(problem)

    patient = {**PEERS, "compile": SimpleNamespace(**vars(PEERS["compile"]) | {"make": make})}
    for module in ("run", "contests"):
        monkeypatch.setattr(f"benchmarks.{module}.PEERS", patient)
    monkeypatch.setattr(contests, "_COMPILED", FEW[:1])

    def rows(**more: Any) -> list[Row]:
        made.clear()
        events = run.run(Options(("cells",), quick=True, **more))
        return [e for e in events if isinstance(e, Row) and e.peer == "compile"]

    assert rows() == []
    assert {(r.subject, r.shape) for r in rows(patient=True)} == {("lstm_peephole", FEW[0])}
    asked = rows(peers=("compile",))
    assert made == ["lstm_peephole"] * 4 + ["two_stages"] * 4  # two shapes, forward and in training
    assert all(r.first is not None and r.first >= 0 for r in asked)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cases": ("lstms",)}, f"there is no case 'lstms', did you mean 'lstm'? The cases are {', '.join(CASES)}"),
        ({"cases": ("?",)}, f"there is no case '?'. The cases are {', '.join(CASES)}"),
        (
            {"peers": ("Torch",)},
            "there is no peer 'Torch', did you mean 'torch'? The peers are torch, eager, compile, torchrecurrent, "
            "onnxruntime, torch.func, jax, braintrace",
        ),
        (
            {"cases": ("gru", "rnn"), "peers": ("eager",)},
            "peer 'eager' takes no part in gru, rnn: it does in cells, hidden, batch",
        ),
    ],
)
def test_what_is_not_known_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Options(**options)
    assert str(caught.value) == said


def test_first_calls_begin_with_an_empty_cache_and_then_with_what_is_there(
    tiny: None, in_this_process: list[dict[str, str]]
) -> None:
    rows = list(start.first_calls("compile", contests.Setting((), Limits(1e9), Effort(0, 1, 0, 0), quick=True)))
    assert [r.what for r in rows] == ["nothing cached", "from the disk cache"]
    first, second = (env["TIDEGATE_CACHE"] for env in in_this_process)
    assert first == second
    assert not Path(first).exists()


def test_a_first_call_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=3, stderr="no such thing\n")
    monkeypatch.setattr(start.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(TidegateError) as caught:
        start._in_own_process("lstm", "nowhere")
    assert str(caught.value) == "the first call of lstm failed in its own process: no such thing"


@pytest.mark.slow
def test_first_calls_in_processes_of_their_own() -> None:
    cold, warm = start._cold_and_warm("two_stages")
    assert cold["seconds"] > 0
    assert warm["difference"] < 1e-5


@pytest.fixture
def other_process(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What the process whose malloc keeps memory is called with; it answers with one row."""
    calls = []

    def stand_in(command: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append((command[1:], env))
        Path(command[-1]).write_text(as_json({"x": {"gru": result(row(1.1, case="gru"))}}), "utf-8")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(run.subprocess, "run", stand_in)
    monkeypatch.setattr(run.platform, "libc_ver", lambda: ("glibc", "2.36"))
    return calls


def test_memory_is_kept_in_a_process_of_its_own(other_process: list[tuple[list[str], dict[str, str]]]) -> None:
    (kept,) = run._kept("gru", Options(("gru",)), ["torch", "onnxruntime"])
    assert kept == row(1.1, case="gru", malloc="kept")
    ((command, env),) = other_process
    assert command[:-1] == ["-m", "benchmarks", "--case", "gru", "--peer", "torch", "--once", "--json"]
    assert {k: env[k] for k in run.KEEP} == run.KEEP
    assert list(run._kept("gru", Options(("gru",)), ["onnxruntime"])) == []


def test_without_glibc_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.platform, "libc_ver", lambda: ("", ""))
    (event,) = run._kept("gru", Options(("gru",)), ["torch"])
    assert event == LeftOut("memory kept is left out: there is no glibc here, whose malloc could be told")


def test_both_columns_come_of_a_full_run_only(
    tiny: None, other_process: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "FULL", Effort(0.0, 1, 0.0, 0.0))
    monkeypatch.setattr(contests, "EVERY", FEW)

    def mallocs(**more: Any) -> list[str]:
        *_, last = run.run(Options(("gru",), ("torch",), **more))
        return [r.malloc for r in last.rows]

    assert mallocs() == ["usual"] * 4 + ["kept"]
    assert mallocs(both=False) == ["usual"] * 4
    assert mallocs(quick=True) == ["usual"] * 4


def test_shapes_are_those_of_the_lines() -> None:
    assert len(EVERY) == 11
    assert [s.group for s in EVERY] == [name for name, shapes in GROUPS.items() for _ in shapes]
    assert [s.H for s in OVER_H] == [16, 32, 64, 128, 256, 512, 1024]
    assert {s.B for s in OVER_H} == {32}
    assert [s.B for s in OVER_B] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert {s.H for s in OVER_B} == {256}
    assert OVER_T[-1].T == 100_000
    assert {(s.B, s.H) for s in STEPS} == {(B, H) for B in (1, 16, 256) for H in (64, 256)}
    assert Shape(3, 1, 1, 1).group == "other"
