"""What is measured: rows, as they are printed, kept as JSON and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from benchmarks.shapes import Shape
from benchmarks.timing import Timing

FLOAT32 = 1e-4  # relative; thousands of steps in float32 stay far below, a wrong formula far above
USUAL, KEPT = "usual", "kept"

# What is timed, and the peers that we are ourselves.
FORWARD, TRAINING, STEPPER, STEP = "forward", "training", "stepper", "layer.step"
COLD, WARM = "nothing cached", "from the disk cache"
FLOP, PADDED, PACKED, SHORT = "our LSTM, a flop", "padded", "torch, packed", "T 1000, a step"
FUNCTION = "a Function of nothing"
PLAIN = "plain BPTT"

# Gradients forward in time, by the rule, and what they stand beside.
ELEMENTWISE, SNAP, RFLO = "RTRL, by unit", "SnAp-1", "RFLO"
MATRIX, PRODUCTS, ONLINE = "RTRL, as a matrix", "the products of RTRL", "online, a step"
PASS, WHOLE = "our forward pass", "our BPTT"


@dataclass(frozen=True)
class Row:
    """One contest: who (`subject`, a cell) did what at which shape, against whom.

    `difference` is the largest one from the reference, of us and of them, None where there is nothing to compare. With
    `flops` come GF/s, and with `limit` (operations a second) and `reading` (seconds for weights that are read anew at
    each step) the share of the machine's limit. `malloc` says whether glibc gave memory back as usual, or was told to
    keep it. `first` is the seconds of their first call, where that was remarkable; `memory` our activations by theirs.
    """

    case: str
    subject: str
    shape: Shape
    what: str
    peer: str
    ours: Timing
    theirs: Timing | None = None
    difference: float | None = None
    their_difference: float | None = None
    bound: float = FLOAT32
    flops: int | None = None
    limit: float | None = None
    reading: float | None = None
    malloc: str = USUAL
    first: float | None = None
    memory: float | None = None

    @property
    def ratio(self) -> float | None:
        """Their time by ours: above 1 we are faster."""
        return None if self.theirs is None else self.theirs.median / self.ours.median

    @property
    def floor(self) -> float | None:
        """Seconds below which a call cannot come: all products at full speed, or the reading of weights."""
        products = [self.flops / self.limit] if self.flops is not None and self.limit is not None else []
        return max([*products, *([] if self.reading is None else [self.reading])], default=None)

    @property
    def share(self) -> float | None:
        """Our share of what the machine can do."""
        return None if self.floor is None else self.floor / self.ours.median

    @property
    def speed(self) -> float | None:
        """Our operations a second."""
        return None if self.flops is None else self.flops / self.ours.median

    @property
    def their_speed(self) -> float | None:
        """Their operations a second; of who does less than we do, none are known."""
        if self.flops is None or self.theirs is None or self.peer == PASS:
            return None
        return self.flops / self.theirs.median

    @property
    def noisy(self) -> bool:
        """Something else was running meanwhile: the ratio may be far from what a quiet machine would give."""
        return self.ours.noisy or (self.theirs is not None and self.theirs.noisy)

    @property
    def wrong(self) -> bool:
        """We are off by more than float32 explains."""
        return self.difference is not None and not self.difference <= self.bound

    @property
    def they_are_wrong(self) -> bool:
        """They are, so that the contest means nothing."""
        return self.their_difference is not None and not self.their_difference <= self.bound

    def to_json(self) -> dict[str, Any]:
        """The fields, and what follows from them for other programs; what JSON cannot say is a text."""
        derived = {"ratio": self.ratio, "gflops": _giga(self.speed), "share": self.share, "wrong": self.wrong}
        return {k: _plain(v) for k, v in (asdict(self) | derived).items() if v is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """The row that gave this."""
        fields = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        fields |= {k: float(fields[k]) for k in ("difference", "their_difference") if k in fields}
        fields |= {k: Timing(**fields[k]) for k in ("ours", "theirs") if k in fields}
        return cls(**fields | {"shape": Shape(**data["shape"])})


@dataclass(frozen=True)
class Result:
    """A case as it was measured: its rows, the machine and its speed, and how long that took.

    `load` is the load average when it began, over 1, 5 and 15 minutes.
    """

    case: str
    rows: tuple[Row, ...]
    machine: Mapping[str, str]
    limit: float
    quick: bool
    seconds: float
    left_out: tuple[str, ...] = field(default=())
    load: tuple[float, ...] = ()

    @property
    def processor(self) -> str:
        """The model of the processor, by which figures are kept."""
        return self.machine["processor"]

    def to_json(self) -> dict[str, Any]:
        """For the file of figures."""
        return asdict(self) | {"rows": [row.to_json() for row in self.rows], "left_out": list(self.left_out)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """The result that gave this."""
        rows, left_out = tuple(map(Row.from_json, data["rows"])), tuple(data["left_out"])
        return cls(**dict(data) | {"rows": rows, "left_out": left_out, "load": tuple(data.get("load", ()))})


Figures = dict[str, dict[str, Result]]  # by processor, then by case


def _giga(speed: float | None) -> float | None:
    return None if speed is None else speed / 1e9


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not isfinite(value) else value
