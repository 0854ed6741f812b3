"""Figures of single units: distributions, saturation, time constants and deviations.

As in `figures`: numbers in, SVG text out; `title` is for screen readers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tidegate.report.canvas import COLOURS, draw, key, words

_MOST_TICKS = 8


@dataclass(frozen=True)
class Spread:
    """The values of one gate: `counts` in equal bins between the `ends`, and for each unit the share of its values in
    the lowest and the highest part of the range."""

    ends: tuple[float, float]
    counts: Sequence[int]
    low: Sequence[float]
    high: Sequence[float]


def saturation(gates: Mapping[str, Spread], *, title: str = "Saturation of gates") -> str:
    """For each gate a histogram of its values, the outermost bins in colour, and the saturated share of each unit.

    Args:
        gates: name to the values of a gate; at least one.
        title: for screen readers.
    """

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(gates), 2, squeeze=False, width_ratios=(1, 1.4))
        for (left, right), (name, gate) in zip(grid, gates.items(), strict=True):
            _histogram(left, gate)
            words(left, title=name)
            _shares(right, gate)
        words(grid[-1, 0], x="value")
        words(grid[-1, 1], x="unit")
        swatch = [Line2D([], [], color=COLOURS[c], lw=7) for c in ("blue", "vermillion")]
        key(figure, list(zip(swatch, ("at the lower end", "at the upper end"), strict=True)))

    alt = "; ".join(
        f"{name}: {np.mean(gate.low):.0%} at the lower end, {np.mean(gate.high):.0%} at the upper end"
        for name, gate in gates.items()
    )
    return draw(0.6 + 1.2 * len(gates), paint, title=title, alt=alt)


def per_unit(
    states: Mapping[str, Sequence[float | None]],
    *,
    label: str,
    marked: Mapping[str, Sequence[int]] | None = None,
    title: str = "Unit by unit",
) -> str:
    """A number for each unit on a logarithmic scale, a panel for each name. None is drawn at the top, 0 at the bottom.

    Args:
        states: name to a number of 0 or more for each unit; at least one.
        label: what the number is.
        marked: name to the indices of units that are drawn in another colour.
        title: for screen readers.
    """

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(states), 1, squeeze=False)
        for axes, (name, values) in zip(grid[:, 0], states.items(), strict=True):
            _dots(axes, values, set((marked or {}).get(name, ())))
            words(axes, title=name, y=label)
        words(grid[-1, 0], x="unit")

    alt = "; ".join(f"{name}: {_range(values)}" for name, values in states.items())
    return draw(0.4 + 1.6 * len(states), paint, title=title, alt=alt)


def _histogram(axes: Axes, gate: Spread) -> None:
    edges = np.linspace(*gate.ends, len(gate.counts) + 1)
    colours = [COLOURS["blue"], *[COLOURS["grey"]] * (len(gate.counts) - 2), COLOURS["vermillion"]]
    share = np.asarray(gate.counts) / max(1, sum(gate.counts))
    axes.bar(edges[:-1], share, width=np.diff(edges), align="edge", color=colours)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(3))


def _shares(axes: Axes, gate: Spread) -> None:
    units = np.arange(len(gate.low))
    axes.bar(units, gate.low, width=0.9, color=COLOURS["blue"])
    axes.bar(units, gate.high, bottom=gate.low, width=0.9, color=COLOURS["vermillion"])
    axes.set(ylim=(0, 1), yticks=(0, 0.5, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _unit_axis(axes)


def _dots(axes: Axes, values: Sequence[float | None], marked: set[int]) -> None:
    known = [v for v in values if v]
    low, high = (min(known), max(known)) if known else (0.1, 1.0)
    shown = [3 * high if v is None else v or low / 3 for v in values]
    colours = [COLOURS["vermillion" if k in marked else "blue"] for k in range(len(shown))]
    axes.vlines(range(len(shown)), low / 5, shown, color=colours, lw=0.9)
    axes.scatter(range(len(shown)), shown, color=colours, s=14, lw=0, zorder=3)
    axes.set_yscale("log")
    axes.set_ylim(low / 5, 5 * high)
    _unit_axis(axes)


def _unit_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=_MOST_TICKS))
    axes.grid(False, axis="x")
    axes.margins(x=0.01)


def _range(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return (
        f"{len(values)} units, from {min(known):.3g} to {max(known):.3g}"
        if known
        else f"{len(values)} units, unbounded"
    )
