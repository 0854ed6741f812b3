"""The lines that have to be reached, and whether they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from statistics import geometric_mean
from typing import Literal

from benchmarks.rows import (
    COLD,
    ELEMENTWISE,
    FLOP,
    FORWARD,
    FUNCTION,
    KEPT,
    MATRIX,
    PADDED,
    PASS,
    PLAIN,
    RFLO,
    SHORT,
    SNAP,
    STEP,
    STEPPER,
    TRAINING,
    USUAL,
    WARM,
    Row,
)

EASED = 0.8  # of the line, or of the limit: a shape has to reach the lower of the two
OWN_PEERS = ("eager", "compile", "torchrecurrent")


@dataclass(frozen=True)
class Line:
    """What has to be reached, in words, and the rows that decide.

    By `ratio`: each cell's geometric mean over the shapes, against the fastest of `peers`, reaches `wanted`; each shape
    reaches `EASED` of that or of the machine's limit if `eased`, and `least` in any case. By `seconds`: no row takes
    longer. By `beyond`: no row takes so many seconds longer than its peer. By `memory`: no row keeps
    a greater share of its peer's activations. By `products`: each row reaches so much of the speed of products.
    """

    text: str
    case: str
    what: str
    peers: tuple[str, ...]
    wanted: float
    least: float = 0.0
    eased: bool = True
    measure: Literal["ratio", "seconds", "beyond", "memory", "products"] = "ratio"
    groups: tuple[str, ...] = ()
    malloc: str = USUAL
    steps: int = 0  # shapes of fewer do not count
    rows: int = 0  # likewise

    @property
    def command(self) -> str:
        """What measures it again."""
        return f"python -m benchmarks --case {self.case}"

    def concerns(self, row: Row) -> bool:
        """Whether the row is one of those that decide."""
        asked = (row.case, row.what, row.malloc) == (self.case, self.what, self.malloc)
        counts = not self.groups or row.shape.group in self.groups
        return asked and counts and row.peer in self.peers and self.steps <= row.shape.T and self.rows <= row.shape.B

    def needed(self, row: Row) -> float:
        """The ratio that this row has to reach. A limit that was passed is none, and excuses nothing."""
        if not self.eased:
            return self.least
        at_limit = row.ratio / row.share if row.share and row.ratio and row.share <= 1 else self.wanted
        return max(self.least, EASED * min(self.wanted, at_limit))

    def value(self, row: Row) -> float:
        """The row's figure, in the line's measure."""
        if self.measure == "memory":
            return row.memory or 0.0
        if self.measure == "products":
            return row.speed / row.limit if row.speed and row.limit else 0.0
        if self.measure == "seconds" or row.theirs is None or row.ratio is None:
            return row.ours.median
        return row.ratio if self.measure == "ratio" else row.ours.median - row.theirs.median


@dataclass(frozen=True)
class Verdict:
    """What came of a line: its figure (the lowest mean of a cell, or the worst row), and which rows stay below.

    `shapes` says over how many the mean was taken, or how many rows there were; `noisy` how many rows the machine was
    not quiet for.
    """

    line: Line
    figure: float
    cell: str
    cells: int
    shapes: int
    noisy: int
    below: tuple[str, ...]

    @property
    def met(self) -> bool:
        """Reached, as a whole and on every shape."""
        wanted = self.line.wanted
        reached = self.figure >= wanted if self.line.measure in ("ratio", "products") else self.figure <= wanted
        return reached and not self.below


def judged(rows: Iterable[Row]) -> list[Verdict]:
    """The verdict on each line that these rows can decide, in the order of the lines."""
    every = list(rows)
    found = ((line, [r for r in every if line.concerns(r)]) for line in LINES)
    return [judge(line, deciding) for line, deciding in found if deciding]


def judge(line: Line, rows: list[Row]) -> Verdict:
    """The verdict on a line by the rows that decide it, of which there is one at least."""
    wrong = tuple(f"{_where(row)}: WRONG" for row in rows if row.wrong or row.they_are_wrong)
    if line.measure != "ratio":
        worst = (min if line.measure == "products" else max)(rows, key=line.value)
        return Verdict(line, line.value(worst), worst.subject, len(_cells(rows)), len(rows), _noisy(rows), wrong)
    best = _best_peers(rows, line)
    means = {cell: geometric_mean([line.value(r) for r in best if r.subject == cell]) for cell in _cells(best)}
    cell = min(means, key=lambda c: means[c])
    low = (r for r in best if line.value(r) < line.needed(r))
    below = tuple(f"{_where(r)}: {line.value(r):.2f}, needs {line.needed(r):.2f}" for r in low)
    count = sum(row.subject == cell for row in best)
    return Verdict(line, means[cell], cell, len(means), count, _noisy(best), wrong + below)


def _best_peers(rows: Iterable[Row], line: Line) -> list[Row]:
    """For each cell and shape, the row of the peer that comes nearest."""
    best: dict[object, Row] = {}
    for row in rows:
        kept = best.setdefault((row.subject, row.shape), row)
        if line.value(row) < line.value(kept):
            best[row.subject, row.shape] = row
    return list(best.values())


def _noisy(rows: Iterable[Row]) -> int:
    return sum(row.noisy for row in rows)


def _cells(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.subject for row in rows))


def _where(row: Row) -> str:
    return f"{row.subject} {row.shape}"


def _against_torch() -> Iterator[Line]:
    wanted = {
        ("lstm", FORWARD): (1.4, 1.0, ">= 1.4, no shape below 1.0"),
        ("lstm", TRAINING): (1.4, 1.1, ">= 1.4, no shape below 1.1"),
        ("gru", FORWARD): (3.5, 0.0, ">= 3.5"),
        ("gru", TRAINING): (4.5, 0.0, ">= 4.5"),
        ("rnn", FORWARD): (2.5, 0.0, ">= 2.5"),
        ("rnn", TRAINING): (3.0, 0.0, ">= 3"),
    }
    for (case, what), (mean, least, shown) in wanted.items():
        name = f"{case.upper()} {what} against torch's"
        yield Line(f"{name}, {shown}", case, what, ("torch",), mean, least)
        kept = f"{name}, its memory kept, >= 1.2, no shape below 1.0"
        yield Line(kept, case, what, ("torch",), 1.2, 1.0, eased=False, malloc=KEPT)


def _own_cells() -> Iterator[Line]:
    for (group, mean), what in product((("small", 5.0), ("medium", 2.0)), (FORWARD, TRAINING)):
        text = f"any other cell, {what}, {group} shapes, against the best of eager, compiled and torchrecurrent"
        yield Line(f"{text}, >= {mean:g}", "cells", what, OWN_PEERS, mean, groups=(group,))


def _ourselves() -> Iterator[Line]:
    for what in (FORWARD, TRAINING):
        text = f"any gated cell against our own LSTM, {what}, time for each flop <= 1.25 x"
        yield Line(text, "flops", what, (FLOP,), 1 / 1.25)
    for what in (FORWARD, TRAINING):
        text = f"lengths half of T on average, {what}, <= 0.65 x the padded time"
        yield Line(text, "lengths", what, (PADDED,), 1 / 0.65)
    for what in (FORWARD, TRAINING):
        text = f"growth with T, {what}: a step of up to 100,000 takes <= 1.25 x one of 1,000"
        yield Line(text, "growth", what, (SHORT,), 0.8, 0.8, eased=False, steps=10_000)
    few = "1,000 steps on 50 stored states,"
    time = f"{few} 32 rows and more, <= 1.4 x the time of plain BPTT"
    yield Line(time, "checkpoint", TRAINING, (PLAIN,), 1 / 1.4, 1 / 1.4, eased=False, rows=32)
    memory = f"{few} <= 6 % of the activations of plain BPTT"
    yield Line(memory, "checkpoint", TRAINING, (PLAIN,), 0.06, measure="memory")


def _seconds() -> Iterator[Line]:
    first = "first call of a new cell, forward and backward together"
    yield Line(f"{first}, nothing cached, <= 1 s", "compile", COLD, ("-",), 1.0, measure="seconds")
    yield Line(f"{first}, from the disk cache, <= 20 ms", "compile", WARM, ("-",), 0.02, measure="seconds")
    yield Line("stepper against onnxruntime, >= 2", "step", STEPPER, ("onnxruntime",), 2.0)
    within = "layer.step within 15 microseconds of stepper"
    yield Line(within, "step", STEP, (STEPPER,), 15e-6, measure="beyond")
    for what, most in ((TRAINING, 150), (STEP, 15), (STEPPER, 5)):
        text = f"Python-level cost of {'a training step of a tiny net' if what == TRAINING else what}"
        peer = FUNCTION if what == TRAINING else "torch"
        yield Line(f"{text} <= {most} microseconds", "overhead", what, (peer,), most * 1e-6, measure="seconds")


def _forward_in_time() -> Iterator[Line]:
    case = "online-gradients"
    half = "RTRL of an LSTM, H 32, 8 rows, at half of sgemm's speed or better in its products"
    yield Line(half, case, MATRIX, (PASS,), 0.5, measure="products")
    for what, most in ((ELEMENTWISE, 4), (SNAP, 10), (RFLO, 10)):
        text = f"{what}, one row, <= {most} x the forward pass"
        yield Line(text, case, what, (PASS,), 1 / most, 1 / most, eased=False)


LINES = (*_against_torch(), *_own_cells(), *_ourselves(), *_forward_in_time(), *_seconds())
