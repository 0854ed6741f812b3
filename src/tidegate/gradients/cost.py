"""What a rule keeps, in numbers, before anything is kept; and whether it fits into the machine."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
FREE_BYTES = 1 << 26  # a rule that needs less is not checked against the memory that is free
COPIES = 3  # of the influence while steps are taken: that before all of them, before one, and after it


@dataclass(frozen=True)
class Cost:
    """What a tracker costs: `numbers` stay from step to step, `flops` are the operations of a step with the gradient
    of a loss in it, both for all rows. `weights` are the places of the weights that it follows, `form` is what is kept
    for each row, and `why` says what is left out. `calls` is about how many operations of torch a step takes that comes
    alone, as in a stream: each takes some microseconds, however small the net is."""

    weights: tuple[str, ...]
    form: str
    why: str
    numbers: int
    flops: int
    calls: int


def kept(costs: Sequence[Cost]) -> int:
    """The numbers that stay from step to step."""
    return sum(c.numbers for c in costs)


def free_memory() -> int:
    """Bytes that can still be used: what Linux calls available, or where it does not say, all that the machine has."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", MEMINFO.read_text(), re.MULTILINE) if MEMINFO.exists() else None
    return 1024 * int(found[1]) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def in_units(count: float, unit: str) -> str:
    """A number with three digits and a prefix: 1.34 MB."""
    for prefix in ("", "k", "M", "G", "T"):
        if count < 999.5:
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    return f"{count:,.0f} P{unit}"


def too_large(name: str, costs: Sequence[Cost], rows: int, size: int, free: int, instead: Mapping[str, int]) -> str:
    """What is said of a rule that does not fit; `size` is that of a number, `instead` the bytes of rules that would."""
    largest = max(costs, key=lambda c: c.numbers)
    others = [f"{rule} ({in_units(count, 'B')})" for rule, count in instead.items()]
    return (
        f"{name} keeps {in_units(size * kept(costs), 'B')} for {rows} row{'s' * (rows > 1)} ({largest.form}), "
        f"{COPIES} times that while steps are taken, and {in_units(free, 'B')} are free: use "
        f"{', '.join([*others, 'back-propagation'])} or a smaller net"
    )
