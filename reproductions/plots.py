"""Plots of an experiment: each seed beside the published figure, and the curves of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from reproductions.experiment import Experiment
from reproductions.summary import HEADINGS, Summary
from tidegate.report.canvas import COLOURS, CYCLE, DASHES, draw, key, note, standalone, words

_TOLD = "{net and training}: {median} ({least to most}), seeds: {seeds}, published {published}"
WIDE = 20.0  # figures that differ by more stand on a logarithmic axis


def seeds_plot(experiment: Experiment, found: Sequence[Summary]) -> str:
    """A row a configuration: a dot a seed that has a figure, a bar for the published one, and how many solved it."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row, summary in enumerate(found):
            _row(axes, row, summary)
        axes.set_yticks(range(len(found)), [s.configuration.name for s in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.grid(False, axis="y")
        _scale(axes, [f for s in found for f in [*s.figures, *_published(s)]])
        words(axes, x=" or ".join(dict.fromkeys(s.configuration.measure.name for s in found)))
        key(figure, [(_dot(), "a seed"), (_bar(), "published")])

    return standalone(draw(1.0 + 0.36 * len(found), paint, title=f"{experiment.title}: seeds", alt=_described(found)))


def curves_plot(experiment: Experiment, found: Sequence[Summary]) -> str | None:
    """A thin line a seed, a colour a configuration; None where no run has a curve."""
    shown = [s for s in found if any(run.outcome.curve for run in s.runs)]
    curve = experiment.curve
    if curve is None or not shown:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for number, summary in enumerate(shown):
            for run in summary.runs:
                axes.plot(*zip(*run.outcome.curve, strict=True), alpha=0.75, lw=1.1, **_look(number))
        if curve.log:
            axes.set_yscale("log")
        words(axes, x=curve.x, y=curve.y)
        key(figure, [(Line2D([], [], **_look(n)), s.configuration.name) for n, s in enumerate(shown)])

    ends = "; ".join(f"{s.configuration.name} ends at {_ends(s)}" for s in shown)
    return standalone(draw(3.6, paint, title=f"{experiment.title}: training", alt=f"{curve.y} by {curve.x}: {ends}"))


def _row(axes: Axes, row: int, summary: Summary) -> None:
    axes.axhline(row, color=COLOURS["grid"], lw=0.7, zorder=0)
    axes.plot(summary.figures, [row] * len(summary.figures), "o", ms=5, color=COLOURS["blue"], alpha=0.6)
    for figure in _published(summary):
        axes.plot([figure, figure], [row - 0.32, row + 0.32], color=COLOURS["vermillion"], lw=2.5)
    note(axes, 1.01, row, summary.seeds, transform=axes.get_yaxis_transform(), va="center")


def _published(summary: Summary) -> list[float]:
    said = summary.configuration.published
    return [] if said is None or said.figure is None else [said.figure]


def _scale(axes: Axes, figures: Sequence[float]) -> None:
    if figures and min(figures) > 0 and max(figures) > WIDE * min(figures):
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _dot() -> Line2D:
    return Line2D([], [], marker="o", ls="", ms=5, color=COLOURS["blue"], alpha=0.6)


def _bar() -> Line2D:
    return Line2D([], [], color=COLOURS["vermillion"], lw=2.5)


def _look(number: int) -> dict[str, Any]:
    return {"color": COLOURS[CYCLE[number % len(CYCLE)]], "ls": DASHES[number // len(CYCLE) % len(DASHES)]}


def _ends(summary: Summary) -> str:
    last = [run.outcome.curve[-1][1] for run in summary.runs if run.outcome.curve]
    return f"{min(last):.3g} to {max(last):.3g}"


def _described(found: Sequence[Summary]) -> str:
    rows = [dict(zip(HEADINGS, s.columns, strict=True)) for s in found]
    return "; ".join(_TOLD.format_map(row) for row in rows)
