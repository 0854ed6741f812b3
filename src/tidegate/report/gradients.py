"""Figures of gradients through time: norms by lag, the spectrum of a step, cosines of rules.

As in `figures`: numbers in, SVG text out; `title` is for screen readers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tidegate.errors import ArgumentError
from tidegate.report.canvas import COLOURS, CYCLE, DASHES, HALF, WIDTH, draw, key, note, words

Curve = Sequence[float]
_MAX_MARKED_POINTS = 40  # a line of up to this many points marks each


def gradient_norms(
    curves: Mapping[str, tuple[Curve, Curve, Curve]],
    *,
    label: str = "norm of the gradient",
    levels: Mapping[str, float] | None = None,
    half: bool = False,
    title: str = "The gradient by lag",
) -> str:
    """Norms by the number of steps back, on a logarithmic scale, without zeros.

    Args:
        curves: name to the median, the lower and the upper end of a band, [K] each, for lags 0 ... K - 1.
        label: for the vertical axis.
        levels: name to a norm that is drawn across.
        half: for one of two columns.
        title: for screen readers.
    """
    tables = {name: np.asarray(curve, dtype=float) for name, curve in curves.items()}
    if not tables or any(t.ndim != 2 or len(t) != 3 or not t.size for t in tables.values()):
        shapes = ", ".join(f"{name!r} of shape {t.shape}" for name, t in tables.items()) or "nothing"
        raise ArgumentError(f"gradient_norms: got {shapes}; expected for each name three [K] arrays, K at least 1")

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        entries = []
        for k, (name, table) in enumerate(tables.items()):
            median, low, high = np.where(table > 0, table, np.nan)
            style = _style(k)
            axes.fill_between(np.arange(len(low)), low, high, color=style["color"], alpha=0.15, lw=0)
            axes.plot(median, marker="o" if len(median) <= _MAX_MARKED_POINTS else None, ms=2.5, **style)
            entries.append((Line2D([], [], **style), name))
        for name, level in (levels or {}).items():
            axes.axhline(level, color=COLOURS["soft"], lw=0.8, ls=(0, (2, 2)))
            note(axes, 0.995, level, name, transform=axes.get_yaxis_transform(), ha="right", va="bottom")
        if any((table[0] > 0).any() for table in tables.values()):
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        words(axes, x="steps back", y=label)
        key(axes, entries)

    ends = (f"{name}: {t[0, 0]:.3g} at lag 0, {t[0, -1]:.3g} at lag {t.shape[1] - 1}" for name, t in tables.items())
    return draw(3.0, paint, title=title, alt="; ".join(ends), width=HALF if half else WIDTH)


def eigenvalues(pairs: Any, *, title: str = "Eigenvalues of a step's Jacobian") -> str:
    """Complex numbers in the plane beside the unit circle, for one of two columns.

    Args:
        pairs: real and imaginary parts, [N, 2].
        title: for screen readers.
    """
    points = _points(pairs)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        turn = np.linspace(0, 2 * np.pi, 181)
        axes.plot(np.cos(turn), np.sin(turn), color=COLOURS["soft"], lw=0.9, ls=(0, (2, 2)))
        axes.scatter(points[:, 0], points[:, 1], s=7, color=COLOURS["blue"], alpha=0.45, lw=0)
        axes.set_aspect("equal", adjustable="datalim")
        words(axes, x="real part", y="imaginary part")

    moduli = np.hypot(*points.T)
    alt = f"{len(points)} eigenvalues, of which {int((moduli > 1).sum())} lie outside the unit circle; "
    return draw(3.6, paint, title=title, alt=f"{alt}the largest modulus is {moduli.max():.4g}", width=HALF)


def by_rank(
    spectra: Mapping[str, tuple[Curve, Curve, Curve]], *, title: str = "Singular values and eigenvalues by rank"
) -> str:
    """Sorted numbers with the range of several samples, beside the level 1; for one of two columns.

    Args:
        spectra: name to the median, the least and the greatest, [N] each.
        title: for screen readers.
    """
    tables = {name: np.asarray(curve, dtype=float) for name, curve in spectra.items()}

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(1.0, color=COLOURS["soft"], lw=0.9, ls=(0, (2, 2)))
        entries = []
        for k, (name, (median, low, high)) in enumerate(tables.items()):
            rank, style = np.arange(1, len(median) + 1), _style(k)
            axes.fill_between(rank, low, high, color=style["color"], alpha=0.18, lw=0)
            axes.plot(rank, median, marker="o" if len(median) <= _MAX_MARKED_POINTS else None, ms=2.5, **style)
            entries.append((Line2D([], [], **style), name))
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        words(axes, x="rank")
        key(axes, entries)

    tops = ", ".join(
        f"{name}: the largest is {t[0, 0]:.4g}, from {t[1, 0]:.4g} to {t[2, 0]:.4g}" for name, t in tables.items()
    )
    return draw(3.6, paint, title=title, alt=tops, width=HALF)


def agreement(
    rules: Sequence[str],
    overall: Sequence[float | None],
    single: Mapping[str, Sequence[float | None]],
    *,
    title: str = "Rules beside the exact gradient",
) -> str:
    """The cosine of each rule's gradient with the exact one: over all parameters, and thin lines for single ones.

    Args:
        rules: the names of the rules, [R].
        overall: the cosine over all parameters, [R]; None where there is none.
        single: parameter to cosines, [R].
        title: for screen readers.
    """
    whole = np.array([np.nan if c is None else c for c in overall])

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(rules))
        axes.axhline(1.0, color=COLOURS["soft"], lw=0.9, ls=(0, (2, 2)))
        for values in single.values():
            row = [np.nan if c is None else c for c in values]
            axes.plot(places, row, color=COLOURS["grey"], lw=0.8, alpha=0.6, marker=".", ms=3)
        axes.plot(places, whole, color=COLOURS["blue"], lw=2.2, marker="o", ms=4.5)
        axes.set_xticks(places, [""] * len(rules))
        for place, rule in zip(places, rules, strict=True):
            note(axes, place, -0.05, rule, transform=axes.get_xaxis_transform(), ha="center", va="top")
        words(axes, y="cosine with the exact gradient")
        lines = [(Line2D([], [], color=COLOURS["blue"], lw=2.2), "all parameters")]
        key(axes, [*lines, (Line2D([], [], color=COLOURS["grey"], lw=0.8), "single parameters")])

    alt = "; ".join(f"{rule}: {c:.4g}" for rule, c in zip(rules, whole, strict=True))
    return draw(3.0, paint, title=title, alt=alt)


def _style(k: int) -> dict[str, Any]:
    return {"color": COLOURS[CYCLE[k % len(CYCLE)]], "ls": DASHES[k // len(CYCLE) % len(DASHES)], "lw": 1.6}


def _points(pairs: Any) -> np.ndarray:
    points = np.asarray(pairs, dtype=float)
    if points.ndim != 2 or points.shape[1:] != (2,) or not len(points):
        raise ArgumentError(f"eigenvalues: got an array of shape {points.shape}; expected [N, 2], N at least 1")
    return points
