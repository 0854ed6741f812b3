"""Contests over whole sequences: our layers against peers, forward and in training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import problem as problems
from benchmarks.cells import OWN
from benchmarks.contestants import Contestant, layer
from benchmarks.flops import Work, work
from benchmarks.limits import Limits
from benchmarks.peers import BOTH, PEERS
from benchmarks.problem import Problem, difference, solve
from benchmarks.rows import Row
from benchmarks.shapes import EVERY, FEW, GROUPS, OVER_B, OVER_H, Shape
from benchmarks.timing import Effort, Timing, in_turn

TORCH_MODES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN_TANH"}
_COMPILED = FEW  # where torch.compile is tried unless asked for by name: each loop takes minutes to compile


@dataclass(frozen=True)
class Setting:
    """What holds for a whole run: peers by name (those asked for, installed), limits, and how long to measure.

    `slowly` compiles every loop for the peer `compile`, and not those of two shapes of one cell only.
    """

    peers: tuple[str, ...]
    limits: Limits
    effort: Effort
    quick: bool = False
    slowly: bool = False


def of_torch(case: str, setting: Setting) -> Iterator[Row]:
    """One of torch's modules at every shape."""
    for shape in FEW if setting.quick else EVERY:
        yield from contest(case, problems.of_torch(TORCH_MODES[case], shape), setting)


def own_cells(case: str, setting: Setting) -> Iterator[Row]:
    """Cells that torch does not have."""
    shapes = FEW if setting.quick else (*GROUPS["small"], *GROUPS["medium"])
    for name in ("lstm_peephole", "two_stages") if setting.quick else OWN:
        for shape in shapes:
            patient = setting.slowly or (name == "lstm_peephole" and shape in _COMPILED)
            yield from contest(case, problems.of_cell(OWN[name], shape), setting, patient=patient)


def over_hidden_sizes(case: str, setting: Setting) -> Iterator[Row]:
    """The LSTM at growing hidden sizes."""
    return _sweep(case, OVER_H[2:5:2] if setting.quick else OVER_H, setting)


def over_batches(case: str, setting: Setting) -> Iterator[Row]:
    """The LSTM at growing batches."""
    return _sweep(case, OVER_B[:5:4] if setting.quick else OVER_B, setting)


def _sweep(case: str, shapes: tuple[Shape, ...], setting: Setting) -> Iterator[Row]:
    for shape in shapes:
        yield from contest(case, problems.of_torch("LSTM", shape), setting, patient=setting.slowly)


def contest(case: str, problem: Problem, setting: Setting, *, patient: bool = False) -> Iterator[Row]:
    """We and each peer that can solve the problem, in turn; with no peer there, we are measured alone.

    A peer is there for its own contest only, for the threads of some go on spinning while others are measured.
    """
    right, count = solve(problem, training=True), work(problem.graph, problem.sizes)
    names = [n for n in setting.peers if PEERS[n].can(problem) and (patient or not PEERS[n].patient)]
    ours = layer(problem)
    for what in BOTH:
        mine = getattr(ours, what)
        off = _off(ours, mine, right)
        for n in [n for n in names if what in PEERS[n].whats] or ["-"]:
            times, theirs = _duel(mine, what, n, problem, right, setting)
            row = Row(case, problem.cell.name, problem.shape, what, n, times, difference=off, **theirs)
            yield with_limit(row, count, setting.limits)


def _duel(
    mine: Callable[[], object], what: str, name: str, problem: Problem, right: problems.Named, setting: Setting
) -> tuple[Timing, dict[str, Any]]:
    """Our time, and the peer's: with how far it is off and, if it takes patience, the seconds of its first call."""
    if name not in PEERS:
        return in_turn([mine], setting.effort)[0], {}
    other = PEERS[name].make(problem)
    call = getattr(other, what)
    first = _seconds(call) if PEERS[name].patient else None
    off = _off(other, call, right)
    ours, theirs = in_turn([mine, call], setting.effort)
    return ours, {"theirs": theirs, "their_difference": off, "first": first}


def with_limit(row: Row, count: Work, limits: Limits) -> Row:
    """The row with its operations and the machine's limits, as far as they are known by now."""
    limits.again()
    reading = limits.reading_time(count, row.shape, row.what)
    return replace(row, flops=count.flops(row.shape, row.what), limit=limits.flops, reading=reading)


def _off(contestant: Contestant, call: Callable[[], object], right: problems.Named) -> float:
    return difference(contestant.named(call()), right)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
