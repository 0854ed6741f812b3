"""The experiments that there are, with their rows, and roughly how long each takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from reproductions.catalogue import EXPERIMENTS
from reproductions.experiment import Configuration, Experiment
from reproductions.runs import Run, read

KEPT = Path(__file__).parents[1] / "docs" / "experiments" / "runs.json"
_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))


def listing() -> Iterator[str]:
    """The lines: each experiment with its rows. Times are those of one core, from the runs that the page shows."""
    kept = read(KEPT) if KEPT.exists() else []
    total: list[float] = []
    for experiment in EXPERIMENTS.values():
        taken = [_taken(experiment, row, kept) for row in experiment.configurations]
        total += [seconds for seconds in taken if seconds is not None]
        yield from _experiment(experiment, taken)
    yield f"All of them take one core {_roughly(total)}; seeds run in parallel."
    yield "`python -m reproductions NAME ...` runs some, with --row and --seed less of them, and --all runs all."


def _taken(experiment: Experiment, row: Configuration, kept: Sequence[Run]) -> float | None:
    """Seconds of all seeds of a row, None where none was run yet."""
    found = [run.seconds for run in kept if (run.experiment, run.configuration) == (experiment.name, row.name)]
    return row.seeds * median(found) if found else None


def _experiment(experiment: Experiment, taken: Sequence[float | None]) -> Iterator[str]:
    rows = experiment.configurations
    needs = f", needs {', '.join(experiment.files)} (--data)" if experiment.files else ""
    counts = f"{_many(len(rows), 'row')}, {_many(sum(c.seeds for c in rows), 'seed')}, {_roughly(taken)}"
    yield f"{experiment.name}: {experiment.title}; {counts}{needs}"
    width = max(len(row.name) for row in rows)
    for row, seconds in zip(rows, taken, strict=True):
        yield f"    {row.name:{width}}  {_many(row.seeds, 'seed')}, {_roughly([seconds])}"
    yield ""


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count > 1)}"


def _roughly(seconds: Sequence[float | None]) -> str:
    """Their sum as a whole number with its unit."""
    total = sum(s for s in seconds if s is not None)
    size, unit = next(((s, u) for s, u in _UNITS if total >= s), _UNITS[-1])
    return f"about {total / size:.0f} {unit}" if total else "time unknown"
