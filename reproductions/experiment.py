"""What an experiment is, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.equations import Cell


@dataclass(frozen=True)
class Published:
    """A published figure; `says` is what the source says in words, `source` its kind: paper, code, second, derived."""

    figure: float | None
    says: str
    source: str = "paper"


@dataclass(frozen=True)
class Measure:
    """What the figure of a run is: its name for tables and plots, and how it is written."""

    name: str
    form: str = ",.0f"

    def written(self, figure: float | None) -> str:
        """A figure as text, a dash where there is none."""
        return "-" if figure is None else format(figure, self.form)


@dataclass(frozen=True)
class Configuration:
    """One row of an experiment: `settings` is a frozen dataclass of plain values that decide what a seed gives.

    `seeds` is how many are run unless the user says otherwise, numbered from 1.
    """

    name: str
    settings: Any
    measure: Measure
    published: Published | None = None
    seeds: int = 10


@dataclass(frozen=True)
class Outcome:
    """What a seed gave.

    `figure` is None where the criterion was not met within the limit, and `solved` says whether it was; None where an
    experiment has no criterion. `curve` are points for the plot, `also` further figures by name.
    """

    figure: float | None
    solved: bool | None = None
    curve: tuple[tuple[float, float], ...] = ()
    also: dict[str, float] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """In a word or two."""
        return "not solved" if self.figure is None else f"{self.figure:,.6g}"


@dataclass(frozen=True)
class Curve:
    """What the points of a run's curve are."""

    x: str
    y: str
    log: bool = True


@dataclass(frozen=True)
class Net:
    """A cell that the page draws, and its options and surroundings in words."""

    cell: Cell
    about: str


@dataclass(frozen=True)
class Experiment:
    """A published experiment.

    `run(settings, seed, data)` gives the outcome of a seed, the same whenever and wherever it is called; it is found by
    its module and name, for it runs in other processes. `data` is the folder in which `files` lie, None if there are
    none; `package`, of the extra `data`, reads them. Raise `version` when the meaning of a run changes: what was kept
    before is then no longer used.
    """

    name: str
    title: str
    source: str
    about: str
    run: Callable[[Any, int, Path | None], Outcome]
    configurations: tuple[Configuration, ...]
    quick: tuple[Configuration, ...]
    nets: tuple[Net, ...] = ()
    curve: Curve | None = None
    files: tuple[str, ...] = ()
    package: str = ""
    notes: str = ""
    version: int = 1
