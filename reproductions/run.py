"""Runs seeds in parallel, keeps what is finished, and tells of it by events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import torch

from reproductions.catalogue import EXPERIMENTS
from reproductions.experiment import Configuration, Experiment
from reproductions.runs import Run, digest, keep, kept, key
from reproductions.workers import finish
from tidegate.errors import ArgumentError, MissingExtraError


@dataclass(frozen=True)
class Options:
    """What to run.

    `names` of experiments and `rows` of these by name, all if empty; `only` these seeds, or so many `seeds` instead of
    each configuration's own number; `quick` takes the small configurations; `out` is the folder of finished runs;
    `data` is the folder of data files; `processes` is the number of seeds at a time, one for each core if None, and
    with 1 they run in this process; `only_kept` runs nothing that is not kept from before.
    """

    names: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    only: tuple[int, ...] = ()
    seeds: int | None = None
    quick: bool = False
    out: Path = Path("runs/experiments")
    data: Path | None = None
    processes: int | None = None
    only_kept: bool = False


@dataclass(frozen=True)
class Planned:
    """What will be run: `total` seeds, of which `found` were kept from earlier."""

    total: int
    found: int


@dataclass(frozen=True)
class LeftOut:
    """An experiment that cannot run here, and why."""

    experiment: str
    reason: str


@dataclass(frozen=True)
class Job:
    """One seed to be run, and where it will be kept."""

    experiment: Experiment
    configuration: Configuration
    seed: int
    data: Path | None
    path: Path

    def __call__(self) -> Run:
        """Run it on one thread, and keep it."""
        torch.set_num_threads(1)
        begun = time.process_time()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            outcome = self.experiment.run(self.configuration.settings, self.seed, self.data)
        seconds = round(time.process_time() - begun, 1)
        settings = asdict(self.configuration.settings)
        run = Run(self.experiment.name, self.configuration.name, settings, self.seed, outcome, seconds)
        keep(self.path, run)
        return run

    def kept(self) -> Run | None:
        """What it gave before, under the present name of its configuration; None if it is still to be run."""
        run = kept(self.path)
        return run and replace(run, configuration=self.configuration.name)


def run(options: Options) -> Iterator[Planned | LeftOut | Run]:
    """Run experiments: what is left out, what is planned, then each run as it is finished, kept ones first.

    Raises ArgumentError for an unknown name or row and for numbers below 1.
    """
    experiments = chosen(options.names)
    _check(options, experiments)
    jobs: list[Job] = []
    for experiment in experiments:
        reason = lacking(experiment, options.data)
        if reason:
            yield LeftOut(experiment.name, reason)
        else:
            jobs += planned(experiment, options)
    found = [job.kept() for job in jobs]
    yield Planned(len(jobs), sum(run is not None for run in found))
    yield from (run for run in found if run is not None)
    if not options.only_kept:
        yield from finish([job for job, run in zip(jobs, found, strict=True) if run is None], options.processes)


def chosen(names: Sequence[str]) -> list[Experiment]:
    """Experiments by name, all if there are no names."""
    _known("experiment", names, EXPERIMENTS, ", ")
    return [EXPERIMENTS[name] for name in names or EXPERIMENTS]


def lacking(experiment: Experiment, data: Path | None) -> str:
    """Why an experiment cannot run, empty if it can."""
    if not experiment.files:
        return ""
    if experiment.package and find_spec(experiment.package) is None:
        return f"{experiment.name} is left out: {MissingExtraError('data', f'reading {experiment.files[0]}')}"
    files = ", ".join(experiment.files)
    if data is None:
        return f"{experiment.name} is left out: it needs {files}; say with --data in which folder that lies"
    missing = [name for name in experiment.files if not (data / name).is_file()]
    return f"{experiment.name} is left out: there is no {missing[0]} in {data}" if missing else ""


def planned(experiment: Experiment, options: Options) -> list[Job]:
    """The seeds of an experiment, configuration by configuration."""
    data = options.data if experiment.files else None
    digests = {name: digest(data / name) for name in experiment.files} if data else {}
    kept_here = options.out / experiment.name
    jobs = []
    for c in rows(experiment, options):
        count = options.seeds or (1 if options.quick else c.seeds)
        for seed in dict.fromkeys(options.only) or range(1, count + 1):
            name = key(experiment.name, experiment.version, c.settings, seed, digests)
            jobs.append(Job(experiment, c, seed, data, kept_here / f"{name}.json"))
    return jobs


def rows(experiment: Experiment, options: Options) -> list[Configuration]:
    """The rows of an experiment that are asked for."""
    every = experiment.quick if options.quick else experiment.configurations
    return [c for c in every if not options.rows or c.name in options.rows]


def _check(options: Options, experiments: Sequence[Experiment]) -> None:
    every = [c.name for e in experiments for c in rows(e, replace(options, rows=()))]
    _known("row", options.rows, every, "; ")  # there are commas in them
    if options.only and options.seeds is not None:
        raise ArgumentError("--seed picks seeds and --seeds counts them: omit one of them")
    numbers = [("seeds", options.seeds), ("processes", options.processes), *(("seed", seed) for seed in options.only)]
    for name, number in numbers:
        if number is not None and number < 1:
            raise ArgumentError(f"{name} must be 1 or more, got {number}")


def _known(what: str, names: Iterable[str], known: Iterable[str], comma: str) -> None:
    every = list(dict.fromkeys(known))
    for name in names:
        if name not in every:
            close = get_close_matches(name, every, 1)
            hint = f", did you mean {close[0]!r}?" if close else "."
            raise ArgumentError(f"there is no {what} {name!r}{hint} The {what}s are {comma.join(every)}")
