"""What the seeds of a configuration came to, beside the published figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reproductions.experiment import Configuration, Experiment
from reproductions.runs import Run

BAR = "\\|"
HEADINGS = ("net and training", "figure", "published", "median", "mean", "least to most", "seeds", "seconds a seed")


@dataclass(frozen=True)
class Summary:
    """The runs of a configuration, by seed."""

    configuration: Configuration
    runs: tuple[Run, ...]

    @property
    def figures(self) -> list[float]:
        """The figures of the seeds that have one."""
        return [run.outcome.figure for run in self.runs if run.outcome.figure is not None]

    @property
    def seeds(self) -> str:
        """How many seeds met the criterion, of how many; without a criterion only how many."""
        met = [run.outcome.solved for run in self.runs]
        return f"{sum(map(bool, met))} of {len(met)} solved" if None not in met else f"{len(met)}"

    @property
    def columns(self) -> tuple[str, ...]:
        """One text for each of HEADINGS. Median, mean, least and most are of the seeds that have a figure."""
        shown, figures = self.configuration.measure, self.figures
        said = self.configuration.published
        published = f"{said.says} [{said.source}]" if said else "-"
        middle = [shown.written(of(figures) if figures else None) for of in (statistics.median, statistics.fmean)]
        span = f"{shown.written(min(figures))} to {shown.written(max(figures))}" if figures else "-"
        seconds = statistics.median(run.seconds for run in self.runs)
        return (self.configuration.name, shown.name, published, *middle, span, self.seeds, f"{seconds:,.0f}")


def summaries(experiment: Experiment, runs: Iterable[Run]) -> list[Summary]:
    """Those configurations of an experiment that have runs, in its order."""
    mine = sorted((run for run in runs if run.experiment == experiment.name), key=lambda run: run.seed)
    return [
        Summary(c, found)
        for c in (*experiment.configurations, *experiment.quick)
        if (found := tuple(run for run in mine if run.configuration == c.name))
    ]


def table(found: Sequence[Summary]) -> Iterator[str]:
    """The lines of a plain table."""
    rows = [HEADINGS, *(s.columns for s in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def markdown(found: Sequence[Summary]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"|{'---|' * len(HEADINGS)}"
    for summary in found:
        yield f"| {' | '.join(text.replace('|', BAR) for text in summary.columns)} |"
