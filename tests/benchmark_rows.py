"""Figures that nobody measured, for tables, verdicts and pages."""

from typing import Any

from benchmarks.rows import Result, Row
from benchmarks.shapes import GROUPS, OVER_B, OVER_H, Shape
from benchmarks.timing import Timing

SMALL, MEDIUM = GROUPS["small"][0], GROUPS["medium"][0]
MACHINE = {"processor": "a processor", "threads": "2"}


def times(median: float) -> Timing:
    return Timing(median, 0.9 * median, 1.5 * median, 7)


def row(ratio: float | None = 2.0, share: float | None = None, **more: Any) -> Row:
    """Our 10 ms beside theirs."""
    fields: dict[str, Any] = {"case": "lstm", "subject": "lstm", "shape": MEDIUM, "what": "forward", "peer": "torch"}
    fields |= {"ours": times(0.01), "theirs": None if ratio is None else times(0.01 * ratio), "difference": 2e-7}
    fields |= {"reading": None if share is None else 0.01 * share}
    return Row(**fields | more)


def result(*rows: Row, **more: Any) -> Result:
    fields: dict[str, Any] = {"machine": MACHINE, "limit": 3e11, "quick": False, "seconds": 61.0}
    return Result(**{"case": rows[0].case, "rows": rows} | fields | more)


def sweep(case: str) -> Result:
    """Speeds that grow towards a limit of 300 GF/s."""
    rows = []
    for what, passes in (("forward", 1), ("training", 3)):
        for k, shape in enumerate(OVER_H if case == "hidden" else OVER_B):
            flops = passes * _flops(shape)
            ours, eager, torch = (times(flops / (s * 1e9 * (k + 1))) for s in (30, 8, 20))
            common = {"case": case, "shape": shape, "what": what, "ours": ours, "flops": flops, "limit": 3e11}
            rows += [row(theirs=torch, peer="torch", **common), row(theirs=eager, peer="eager", **common)]
    return result(*rows)


def _flops(shape: Shape) -> int:
    return 8 * shape.T * shape.B * (shape.I + shape.H) * shape.H
