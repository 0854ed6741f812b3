"""Memory and operations of a rule, computed in advance, and whether they fit into free memory."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
FREE_BYTES = 1 << 26  # rules that need less are not checked against free memory
COPIES = 3  # of the influence during a run: before the first step, before the current one, and after it


@dataclass(frozen=True)
class Cost:
    """What a tracker costs: `numbers` are the elements carried from step to step, `flops` the operations of a step that
    has a loss, both for all rows. `weights` are the places of its weights, `form` is what is carried for each row, and
    `why` says what is left out. `calls` is the approximate number of torch operations in a single step, as in a
    stream: each takes microseconds, however small the net is."""

    weights: tuple[str, ...]
    form: str
    why: str
    numbers: int
    flops: int
    calls: int


def kept(costs: Sequence[Cost]) -> int:
    """The elements carried from step to step."""
    return sum(c.numbers for c in costs)


def free_memory() -> int:
    """Free bytes: MemAvailable on Linux, elsewhere all physical memory."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", MEMINFO.read_text(), re.MULTILINE) if MEMINFO.exists() else None
    return 1024 * int(found[1]) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def in_units(count: float, unit: str) -> str:
    """Format a number with three digits and a prefix: 1.34 MB."""
    for prefix in ("", "k", "M", "G", "T"):
        if count < 999.5:
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    return f"{count:,.0f} P{unit}"


def too_large(name: str, costs: Sequence[Cost], rows: int, size: int, free: int, instead: Mapping[str, int]) -> str:
    """The error text for a rule that does not fit; `size` is bytes per element, `instead` maps rules that fit to
    bytes."""
    largest = max(costs, key=lambda c: c.numbers)
    others = [f"{rule} ({in_units(count, 'B')})" for rule, count in instead.items()]
    return (
        f"{name} keeps {in_units(size * kept(costs), 'B')} for {rows} row{'s' * (rows > 1)} ({largest.form}), "
        f"{COPIES} times that during a run, but only {in_units(free, 'B')} are free: use "
        f"{', '.join([*others, 'back-propagation'])} or a smaller net"
    )
