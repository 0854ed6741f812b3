"""Finished runs, and the files that keep them: one a run while running, one of all for the page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reproductions.experiment import Outcome
from tidegate.errors import DataError
from tidegate.files.atomic import write_atomic


@dataclass(frozen=True)
class Run:
    """One seed of one configuration. `seconds` are those of one core."""

    experiment: str
    configuration: str
    settings: dict[str, Any]
    seed: int
    outcome: Outcome
    seconds: float


def key(experiment: str, version: int, settings: Any, seed: int, data: Mapping[str, str]) -> str:
    """What a run depends on, as a name: another version, setting, seed or content of a data file gives another."""
    of = {"experiment": experiment, "version": version, "settings": asdict(settings), "seed": seed, "data": dict(data)}
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:24]


def digest(path: Path) -> str:
    """The content of a file, as a short text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep(path: Path, run: Run) -> None:
    """Write a finished run."""
    write_atomic(path, json.dumps(asdict(run), indent=1).encode())


def kept(path: Path) -> Run | None:
    """A run that was kept; None if there is none, or if it cannot be read."""
    try:
        return _run(json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def write(path: Path, runs: Iterable[Run]) -> None:
    """All runs in one file, a line each."""
    lines = ",\n".join(json.dumps(asdict(run), separators=(",", ":")) for run in runs)
    write_atomic(path, f"[\n{lines}\n]\n".encode())


def read(path: Path) -> list[Run]:
    """The runs of a file. Raises DataError if it holds something else."""
    try:
        return [_run(entry) for entry in json.loads(path.read_text("utf-8"))]
    except (ValueError, TypeError, KeyError):
        raise DataError(
            f"{path} holds no runs of experiments: give a file that `python -m reproductions --json` wrote"
        ) from None


def merged(old: Iterable[Run], new: Iterable[Run]) -> list[Run]:
    """The new runs, and those old ones in whose place none came; in order.

    Old runs of a configuration whose settings have changed since go.
    """
    runs = {_place(run): run for run in new}
    present = {_place(run)[:2]: run.settings for run in runs.values()}
    for run in old:
        if present.get(_place(run)[:2], run.settings) == run.settings:
            runs.setdefault(_place(run), run)
    return [runs[place] for place in sorted(runs)]


def _place(run: Run) -> tuple[str, str, int]:
    return run.experiment, run.configuration, run.seed


def _run(entry: Mapping[str, Any]) -> Run:
    outcome = Outcome(**{**entry["outcome"], "curve": tuple((x, y) for x, y in entry["outcome"]["curve"])})
    return Run(**{**entry, "outcome": outcome})
