"""Processes beside: busy ones, and that of onnxruntime."""

import gc
import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks import busy, ort
from benchmarks.problem import difference, of_torch, solve
from benchmarks.shapes import Shape
from tidegate.errors import TidegateError

PROBLEM = of_torch("LSTM", Shape(4, 3, 5, 8))
needs_onnxruntime = pytest.mark.skipif(ort.LACKS is not None, reason=f"needs {ort.LACKS}")


def children() -> set[int]:
    return set(map(int, Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text("utf-8").split()))


def test_busy_processes_are_there_for_the_block_only() -> None:
    before = children()
    with busy.busy(2):
        assert len(children() - before) == 2
    assert children() == before


def test_busy_processes_end_with_an_error_of_the_block() -> None:
    before = children()
    with pytest.raises(ZeroDivisionError), busy.busy(1):
        raise ZeroDivisionError
    assert children() == before


def test_a_busy_process_that_ended_early_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "_SPIN", "print(flush=True)")
    with pytest.raises(TidegateError, match="a process that was to be busy ended early"), busy.busy(1):
        time.sleep(0.5)


@needs_onnxruntime
def test_onnxruntime_computes_in_a_process_that_ends_with_its_session() -> None:
    before = children()
    session = ort.Session(PROBLEM)
    (worker,) = children() - before
    assert session.forward.seconds(3) > 0
    right = solve(PROBLEM, training=False)
    assert difference(session.named(), right) < 1e-6
    session.forward()
    assert difference(session.named(), right) < 1e-6
    del session
    gc.collect()
    assert worker not in children()
    assert "onnxruntime" not in sys.modules


@needs_onnxruntime
def test_a_failure_in_the_process_of_onnxruntime_is_told() -> None:
    session = ort.Session(PROBLEM)
    with pytest.raises(TidegateError, match=r"onnxruntime failed in its own process: .*(?s:.)*invalid literal"):
        session._worker._ask("forward many")


def test_a_process_of_onnxruntime_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "_model", lambda problem: Nothing())
    session = ort.Session(PROBLEM)
    with pytest.raises(TidegateError, match="onnxruntime failed in its own process: "):
        session.forward()


class Nothing:
    def SerializeToString(self) -> bytes:
        return b""
