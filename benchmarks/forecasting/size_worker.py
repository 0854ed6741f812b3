"""One fit in a process of its own: `python -m benchmarks.forecasting.size_worker JSON` prints times and memory."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.data import read_panel
from tidegate.errors import DataError, TidegateError
from tidegate.tasks.forecast import Forecaster
from tidegate.training import Event, Finished, Started

KIBIBYTE = 1024  # which Linux calls kB


@dataclass
class Clock:
    """A listener of a fit: how long training took in all, and how many updates."""

    training: float = 0.0
    updates: int = 0
    _start: float = field(default=0.0)

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, Started):
            self._start = time.perf_counter()
        elif isinstance(event, Finished):
            self.training += time.perf_counter() - self._start
            self.updates += event.updates


def fit(file: str, horizon: int, season: int, **options: Any) -> dict[str, Any]:
    """Times in seconds of the parts of a fit to a CSV file, and of a forecast; the reason where it is refused."""
    clock, forecaster = Clock(), Forecaster(horizon, season=season, **options)
    begun = time.perf_counter()
    read_panel(file, "value", id="series")
    read = time.perf_counter()
    try:
        forecaster.fit(file, "value", id="series", listeners=[clock])
    except DataError as error:
        return {"refused": str(error)}
    fitted = time.perf_counter()
    forecaster.predict()
    reading = read - begun
    return {
        "reading": reading,
        "training": clock.training,
        "updates": clock.updates,
        "judging": fitted - read - reading - clock.training,
        "forecast": time.perf_counter() - fitted,
    }


def peak() -> int:
    """The most memory that this process has had, in bytes.

    Linux hands the figure of getrusage on from the process that started this one, so it is read from /proc.
    """
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIBIBYTE
    raise TidegateError("/proc/self/status has no line VmHWM. The case needs Linux.")


if __name__ == "__main__":
    before = peak()
    measured = fit(**json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps(measured | {"start": before, "peak": peak()}) + "\n")
