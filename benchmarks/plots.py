"""Plots of GF/s against hidden size and batch, as SVG files that stand alone, in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from benchmarks.rows import FORWARD, TRAINING, USUAL, Result, Row
from tidegate.report.canvas import COLOURS, DASHES, draw, key, standalone, words

_AXES = {"hidden": ("H", "hidden size"), "batch": ("B", "batch")}
_LOOK: Mapping[str, dict[str, Any]] = {
    "tidegate": {"color": COLOURS["blue"], "ls": DASHES[0], "lw": 2.2, "marker": "o", "ms": 3.5, "zorder": 3},
    "torch": {"color": COLOURS["vermillion"], "ls": DASHES[1], "marker": "o", "ms": 3},
    "eager": {"color": COLOURS["green"], "ls": DASHES[2], "marker": "o", "ms": 3},
    "compile": {"color": COLOURS["purple"], "ls": DASHES[3], "marker": "o", "ms": 3},
    "limit": {"color": COLOURS["soft"], "ls": DASHES[2], "lw": 1.0},
}


def plots(results: Mapping[str, Result]) -> dict[str, str]:
    """The SVG text of each plot that these results can fill, by the name of its file."""
    return {f"{case}.svg": _plot(case, results[case].rows) for case in _AXES if case in results}


def _plot(case: str, rows: Sequence[Row]) -> str:
    letter, label = _AXES[case]

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, what in ((left, FORWARD), (right, TRAINING)):
            found = curves([r for r in rows if r.what == what and r.malloc == USUAL], letter)
            for name, points in found.items():
                axes.plot(list(points), [speed / 1e9 for speed in points.values()], **_LOOK[name])
            _scales(axes, sorted(next(iter(found.values()))))
            words(axes, x=label, title=what)
        words(left, y="GF/s")
        key(figure, [(Line2D([], [], **_LOOK[name]), name) for name in found])

    title = f"Speed of an LSTM by {label}"
    return standalone(draw(3.4, paint, title=title, alt=_described(rows, letter, label)))


def curves(rows: Sequence[Row], letter: str) -> dict[str, dict[int, float]]:
    """Operations a second by size: of us, each peer and the limit."""
    found: dict[str, dict[int, float]] = {"tidegate": {}}
    for row in rows:
        size = getattr(row.shape, letter)
        for name, speed in (("tidegate", row.speed), (row.peer, row.their_speed), ("limit", _limit(row))):
            if speed is not None:
                found.setdefault(name, {})[size] = speed
    return dict(sorted(found.items(), key=lambda item: list(_LOOK).index(item[0])))


def _limit(row: Row) -> float | None:
    return row.flops / row.floor if row.flops and row.floor else None


def _scales(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _described(rows: Sequence[Row], letter: str, label: str) -> str:
    best = [
        f"{what} {max(points, key=lambda s: points[s])} reaches {max(points.values()) / 1e9:.0f} GF/s"
        for what in (FORWARD, TRAINING)
        if (points := curves([r for r in rows if r.what == what], letter)["tidegate"])
    ]
    return f"GF/s by {label}, of tidegate, its peers and the machine's limit; tidegate's best: {', '.join(best)}"
