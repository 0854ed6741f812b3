"""The case `size`: time and memory of a fit to many rows and to many series, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.forecasting.setting import Outcome, Setting, Table, number
from benchmarks.machine import ROOT
from tidegate.errors import TidegateError

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Load:
    """A made-up data set: so many series of so many rows, with a season, forecast a season ahead."""

    name: str
    series: int
    rows: int
    season: int

    def frame(self) -> pl.DataFrame:
        """The series one below the other: trend, season and noise that remembers, from a fixed seed."""
        draw, steps = np.random.default_rng(0), np.arange(self.rows)
        columns = []
        for _ in range(self.series):
            level, trend, swing = draw.uniform(50, 150), draw.normal() / self.rows * 50, draw.uniform(5, 20)
            noise = np.convolve(draw.normal(size=self.rows), 0.8 ** np.arange(30))[: self.rows]
            columns.append(level + trend * steps + swing * np.sin(2 * np.pi * steps / self.season) + noise)
        names = np.repeat(np.arange(self.series), self.rows).astype(str)
        return pl.DataFrame({"series": names, "value": np.concatenate(columns)})


LOADS = (Load("one series of 200,000 rows", 1, 200_000, 24), Load("1,000 series of 200 rows", 1000, 200, 12))
QUICK = (Load("one series of 2,000 rows", 1, 2000, 24), Load("10 series of 200 rows", 10, 200, 12))


def measure(setting: Setting) -> Outcome:
    """Fit each data set in a fresh process."""
    found = {}
    for load in () if setting.peers_only else QUICK if setting.quick else LOADS:
        found[load.name] = run(load, setting.training)
        setting.say(" | ".join(_cells(load.name, found[load.name])))
    return Outcome("size", list(_parts(found)), found)


def run(load: Load, training: Mapping[str, Any]) -> dict[str, Any]:
    """What `size_worker` measures of a data set."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        load.frame().write_csv(path)
        task = {"file": str(path), "horizon": load.season, "season": load.season, **training}
        command = [sys.executable, "-m", "benchmarks.forecasting.size_worker", json.dumps(task)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TidegateError(f"the fit of {load.name} failed: {done.stderr.strip()[-500:]}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _parts(found: Mapping[str, dict[str, Any]]) -> Iterator[str | Table]:
    headings = ["data", "reading", "training", "updates", "judging and the rest", "forecast", "memory", "at the start"]
    yield Table(headings, [_cells(name, measured) for name, measured in found.items()])
    refused = [f"- {name}: {measured['refused']}" for name, measured in found.items() if "refused" in measured]
    if refused:
        yield "\n".join(refused)


def _cells(name: str, measured: Mapping[str, Any]) -> Sequence[str]:
    if "refused" in measured:
        return [name, *["-"] * 5, _memory(measured["peak"]), _memory(measured["start"])]
    seconds = [f"{number(measured[part], 1)} s" for part in ("reading", "training", "judging", "forecast")]
    updates = f"{measured['updates']:,}"
    return [name, *seconds[:2], updates, *seconds[2:], _memory(measured["peak"]), _memory(measured["start"])]


def _memory(size: int) -> str:
    return f"{size / MEBIBYTE:,.0f} MiB"
