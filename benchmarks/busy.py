"""Our LSTM and torch's on a machine whose processors others use as well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from torch import nn

from benchmarks.contestants import layer, module
from benchmarks.contests import Setting, with_limit
from benchmarks.flops import work
from benchmarks.peers import BOTH
from benchmarks.problem import difference, of_torch, solve
from benchmarks.rows import Row
from benchmarks.shapes import FEW
from benchmarks.timing import in_turn
from tidegate.errors import TidegateError

COUNTS = (0, 1, 2, 4)
_MOST = 60  # seconds after which a busy process ends by itself
_SPIN = f"import time; print(flush=True); end = time.monotonic() + {_MOST}\nwhile time.monotonic() < end: pass"


def beside_busy_processes(case: str, setting: Setting) -> Iterator[Row]:
    """Forward and training beside so many busy processes."""
    for shape in FEW[:1] if setting.quick else FEW:
        problem = of_torch("LSTM", shape)
        right, count = solve(problem, training=True), work(problem.graph, problem.sizes)
        contestants = layer(problem), module(problem, nn)
        for what in BOTH:
            calls = [getattr(c, what) for c in contestants]
            off, away = (difference(c.named(call()), right) for c, call in zip(contestants, calls, strict=True))
            for beside in COUNTS[:2] if setting.quick else COUNTS:
                with busy(beside):
                    ours, theirs = in_turn(calls, setting.effort)
                row = Row(case, "lstm", shape, what, "torch", ours, theirs, off, away)
                yield replace(with_limit(row, count, setting.limits), what=f"{what}, {beside} busy")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute all the while. Raises TidegateError if one ended before the block did."""
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            command = [sys.executable, "-I", "-c", _SPIN]
            processes.append(stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE)))
            stack.callback(processes[-1].kill)
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
        yield
        if any(process.poll() is not None for process in processes):
            raise TidegateError(f"a process that was to be busy ended early: measure less than {_MOST} s at a time")
