"""A run: cases one after another, as events for whoever shows them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.contests import Setting
from benchmarks.limits import measured
from benchmarks.machine import ROOT, load_average, machine
from benchmarks.peers import PEERS, absent, check_names
from benchmarks.rows import KEPT, Figures, Result, Row
from benchmarks.timing import FULL, QUICK, Effort
from tidegate.errors import ArgumentError, TidegateError

# As torch meets it when nothing is given back: no mapping of large blocks, no trimming, growth by large pieces.
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}


@dataclass(frozen=True)
class Options:
    """What a run is asked for: cases and peers by name (none: all of them, without those that take minutes)."""

    cases: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    quick: bool = False
    patient: bool = False  # the peers that take minutes take part as well, where the case says so
    both: bool = True  # cases that are measured twice, are

    def __post_init__(self) -> None:
        check_names("case", self.cases, CASES)
        check_names("peer", self.peers, PEERS)
        taking_part = {peer for case in self.chosen for peer in CASES[case].peers}
        for peer in self.peers:
            if peer not in taking_part:
                where = ", ".join(name for name, case in CASES.items() if peer in case.peers)
                raise ArgumentError(f"peer {peer!r} takes no part in {', '.join(self.chosen)}: it does in {where}")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The cases of the run."""
        return self.cases or tuple(CASES)

    @property
    def effort(self) -> Effort:
        """How long to measure."""
        return QUICK if self.quick else FULL


@dataclass(frozen=True)
class Begun:
    """A case begins, on a machine that multiplies with so many operations a second, under this load average."""

    case: str
    limit: float
    load: tuple[float, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """Something takes no part, for this reason."""

    reason: str


Event = Begun | LeftOut | Row | Result


def run(options: Options) -> Iterator[Event]:
    """Measure; a Result ends each case."""
    for name in options.chosen:
        yield from _case(name, options)


def _case(name: str, options: Options) -> Iterator[Event]:
    load, start, limits = load_average(), time.perf_counter(), measured()
    yield Begun(name, limits.flops, load)
    case = CASES[name]
    peers = tuple(p for p in case.peers if _wanted(p, options))
    left_out = absent(peers)
    yield from map(LeftOut, left_out)
    slowly = any(PEERS[p].patient for p in options.peers)
    present = tuple(p for p in peers if not PEERS[p].lacks)
    rows = []
    for row in case.measure(name, Setting(present, limits, options.effort, options.quick, slowly)):
        rows.append(row)
        yield row
    if case.twice and options.both and not options.quick:
        for event in _kept(name, options, present):
            if isinstance(event, Row):
                rows.append(event)
            else:
                left_out.append(event.reason)
            yield event
    limits.again()
    best, rows = with_best_limit(rows, limits.flops)
    seconds = time.perf_counter() - start
    yield Result(name, tuple(rows), machine(), best, options.quick, seconds, tuple(left_out), load)


def with_best_limit(rows: Sequence[Row], flops: float) -> tuple[float, list[Row]]:
    """The most operations a second that were seen, in `torch.mm` or in anyone's cell, as the limit of every row."""
    seen = [speed for row in rows for speed in (row.limit, row.speed, row.their_speed) if speed is not None]
    best = max([flops, *seen])
    return best, [row if row.limit is None else replace(row, limit=best) for row in rows]


def _wanted(peer: str, options: Options) -> bool:
    return peer in options.peers if options.peers else options.patient or not PEERS[peer].patient


def _kept(name: str, options: Options, peers: Sequence[str]) -> Iterator[Row | LeftOut]:
    """The case once more in a process of its own, whose malloc keeps what it has; against torch only."""
    if "torch" not in peers:
        return
    if platform.libc_ver()[0] != "glibc":
        yield LeftOut("memory kept is left out: there is no glibc here, whose malloc could be told")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks", "--case", name, "--peer", "torch", "--once"]
        done = subprocess.run(
            [*command, "--json", str(path)],
            cwd=ROOT,
            env=os.environ | KEEP,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1) or not path.exists():
            raise TidegateError(f"{' '.join(command[1:])} failed in its own process: {done.stderr.strip()[-500:]}")
        (result,) = (result for cases in read(path).values() for result in cases.values())
    yield from (replace(row, malloc=KEPT) for row in result.rows)


def read(path: Path) -> Figures:
    """Results from a file of figures, by processor and case. Raises ArgumentError where it is none."""
    try:
        kept = json.loads(path.read_text("utf-8"))["processors"]
        return {p: {name: Result.from_json(result) for name, result in cases.items()} for p, cases in kept.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArgumentError(
            f"{path} holds no figures ({error}): write it with `python -m benchmarks --json {path}`"
        ) from error


def as_json(figures: Figures) -> str:
    """The text of a file of figures, by processor and in the order of the cases."""
    kept = {p: {name: cases[name].to_json() for name in CASES if name in cases} for p, cases in figures.items()}
    return json.dumps({"version": 2, "processors": kept}, indent=1) + "\n"
