"""Figures of a forecast: numpy arrays in, SVG text out; the same arrays give the same bytes.

Every function takes `title`, for screen readers only (the page has captions).
Figures have the width of the page; with `half` they are drawn for one of two columns (`report.columns`).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tidegate.errors import ArgumentError
from tidegate.report.canvas import COLOURS, CYCLE, DASHES, HALF, WIDTH, draw, key, note, time_axis, words

Array = np.ndarray
_POINTS = 1400


def series(
    times: Any,
    values: Any,
    *,
    parts: Sequence[tuple[str, int]] = (),
    unit: str = "",
    title: str = "The series over time",
) -> str:
    """A series over time. NaN is a gap; long series are drawn as the extremes of each pixel column.

    Args:
        times: dates (`datetime64`) or numbers, [N], ascending.
        values: numbers, [N].
        parts: `(name, first)` for each part of a split: its name and the index of its first value, in order; the last
            part reaches to the end. Every second one is shaded.
        unit: the values' unit, for the axis.
        title: for screen readers.
    """
    times, values = _pair("series", times, values)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        _split(axes, times, parts)
        axes.plot(*_thinned(times, values), color=COLOURS["blue"], lw=1.2 if len(values) < 500 else 0.8)
        words(axes, y=unit)
        time_axis(axes, times)

    alt = f"{len(values)} values from {_shown(times[0])} to {_shown(times[-1])}, {_range(values)}"
    return draw(2.8, paint, title=title, alt=alt + "".join(f"; {name} from {_shown(times[k])}" for name, k in parts))


def fan(
    history_times: Any,
    history: Any,
    times: Any,
    quantiles: Mapping[float, Any],
    *,
    truth: Any = None,
    unit: str = "",
    half: bool = False,
    title: str = "The forecast with its intervals",
) -> str:
    """The end of a series and its forecast: the median as a line, central intervals as bands, darker inside.

    Args:
        history_times, history: the values before the origin, [M].
        times: of the forecast, [N].
        quantiles: level (0.05) to forecast values [N]; levels come in pairs (q and 1 - q) around an optional 0.5.
        truth: the true values, [N], if known.
        half: for one of two columns.
        unit, title: as in `series`.
    """
    history_times, history = _pair("fan", history_times, history)
    times = np.asarray(times)
    levels = {float(q): _column("fan", times, v) for q, v in sorted(quantiles.items())}
    intervals = [(q, levels[q], _opposite(levels, q)) for q in levels if q < 0.5]
    known = None if truth is None else _column("fan", times, truth)
    joined = np.concatenate([history_times[-1:], times])

    def from_last(side: np.ndarray) -> np.ndarray:
        return np.concatenate([history[-1:], side])  # the fan begins at the last value

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        _bands(axes, joined, [(q, from_last(low), from_last(high)) for q, low, high in intervals])
        axes.plot(history_times, history, color=COLOURS["ink"], lw=1.2)
        entries: list[tuple[Any, str]] = [(_line("ink"), "observed")]
        if known is not None:
            axes.plot(times, known, color=COLOURS["ink"], lw=1.2, ls="none", marker="o", ms=2.6)
            entries.append((Line2D([], [], color=COLOURS["ink"], ls="none", marker="o", ms=3), "what came"))
        if 0.5 in levels:
            axes.plot(joined, from_last(levels[0.5]), color=COLOURS["blue"], lw=1.8)
            entries.append((_line("blue", lw=1.8), "median forecast"))
        entries += [(_swatch(k, len(intervals)), f"{1 - 2 * q:.0%}") for k, (q, _, _) in enumerate(intervals)]
        axes.axvline(history_times[-1], color=COLOURS["soft"], lw=0.8, ls=(0, (2, 2)))
        words(axes, y=unit)
        time_axis(axes, times if np.issubdtype(times.dtype, np.datetime64) else history_times)
        key(axes, entries)

    bands = ", ".join(f"{1 - 2 * q:.0%}" for q, _, _ in intervals)
    alt = f"forecast of {len(times)} steps from {_shown(times[0])} to {_shown(times[-1])}; intervals: {bands or 'none'}"
    return draw(3.0 if half else 3.2, paint, title=title, alt=alt, width=HALF if half else WIDTH)


def by_horizon(
    scores: Mapping[str, Any],
    *,
    label: str,
    ours: str | None = None,
    reference: float | None = None,
    percent: bool = False,
    half: bool = False,
    title: str = "Scores by forecast horizon",
) -> str:
    """A score for each step ahead, one line for each method.

    Args:
        scores: method to values [N], for the horizons 1 ... N.
        label: what the score is, with its unit, for the axis.
        ours: the method that is drawn stronger.
        reference: a level drawn across (the nominal coverage, say).
        percent: values are shares, shown in percent.
        half: for one of two columns.
        title: as in `series`.
    """
    columns = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    if not columns or len({c.shape for c in columns.values()}) != 1 or next(iter(columns.values())).ndim != 1:
        raise ArgumentError(f"by_horizon: got {_shapes(columns)}; expected one [N] array per method, all of one length")

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        entries = []
        if reference is not None:
            axes.axhline(reference, color=COLOURS["soft"], lw=0.9, ls=(0, (2, 2)))
        for k, (name, values) in enumerate(columns.items()):
            style: dict[str, Any] = {"color": COLOURS[CYCLE[k % len(CYCLE)]], "ls": DASHES[k % len(DASHES)]}
            style |= {"lw": 2.2 if name == ours else 1.4, "zorder": 3 if name == ours else 2}
            axes.plot(np.arange(1, len(values) + 1), values, marker="o" if len(values) < 13 else None, ms=3.5, **style)
            entries.append((Line2D([], [], **style), name))
        _count_from_one(axes, len(values))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        words(axes, x="steps ahead", y=label)
        key(axes, entries)

    means = ", ".join(f"{name} {np.nanmean(values):.4g}" for name, values in columns.items())
    alt = f"{label}, mean over horizons: {means}"
    return draw(3.4 if half else 2.8, paint, title=title, alt=alt, width=HALF if half else WIDTH)


def learning_curve(
    history: Mapping[str, Any],
    *,
    best: int | None = None,
    label: str = "loss",
    x: str = "epoch",
    title: str = "The loss during training",
) -> str:
    """Losses by epoch, counted from 1; a logarithmic axis where they span more than a factor of 10.

    Args:
        history: name (`"training"`, `"validation"`) to values [E]; NaN where an epoch has none.
        best: index (from 0) of the epoch whose weights were restored.
        label, x: for the axes.
        title: as in `series`.
    """
    curves = {name: np.asarray(values, dtype=float) for name, values in history.items()}
    if not curves or any(c.ndim != 1 or not len(c) for c in curves.values()):
        raise ArgumentError(
            f"learning_curve: got {_shapes(curves)}; expected an [E] array for each curve, E at least 1"
        )
    every = np.concatenate([c[np.isfinite(c)] for c in curves.values()])

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        entries = []
        for k, (name, values) in enumerate(curves.items()):
            style: dict[str, Any] = {"color": COLOURS[CYCLE[k % len(CYCLE)]], "ls": DASHES[k % len(DASHES)]}
            axes.plot(np.arange(1, len(values) + 1), values, marker="o" if len(values) < 8 else None, ms=3.5, **style)
            entries.append((Line2D([], [], **style), name))
        if every.size and every.min() > 0 and every.max() > 10 * every.min():
            axes.set_yscale("log")
        if best is not None:
            axes.axvline(best + 1, color=COLOURS["soft"], lw=0.9, ls=(0, (2, 2)))
            entries.append((Line2D([], [], color=COLOURS["soft"], lw=0.9, ls=(0, (2, 2))), "kept"))
        _count_from_one(axes, max(map(len, curves.values())))
        words(axes, x=x, y=label)
        key(axes, entries)

    last = ", ".join(f"{name} ends at {values[-1]:.4g}" for name, values in curves.items())
    kept = f"; weights of {x} {best + 1} were kept" if best is not None else ""
    return draw(2.6, paint, title=title, alt=last + kept)


def calibration(
    levels: Any, observed: Any, *, count: int | None = None, title: str = "Calibration of the quantiles"
) -> str:
    """The share of true values at or below each forecast quantile; on the diagonal the forecast is calibrated.

    Args:
        levels: of the quantiles, in (0, 1), [Q].
        observed: share of the held-out values at or below that quantile, [Q].
        count: number of values that the shares come from; draws the 95 % band of a
            calibrated forecast (as if values were independent).
        title: as in `series`.
    """
    levels, observed = _pair("calibration", levels, observed)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        ideal = np.linspace(0, 1, 101)
        if count:
            width = 1.96 * np.sqrt(ideal * (1 - ideal) / count)
            axes.fill_between(ideal, ideal - width, ideal + width, color=COLOURS["shade"])
        axes.plot(ideal, ideal, color=COLOURS["soft"], lw=0.9, ls=(0, (2, 2)))
        axes.plot(levels, observed, color=COLOURS["blue"], marker="o", ms=4.5)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        words(axes, x="level of the quantile", y="share of values below it")

    pairs = ", ".join(f"{level:.0%} level: {share:.1%}" for level, share in zip(levels, observed, strict=True))
    return draw(3.6, paint, title=title, alt=pairs, width=HALF)


def _count_from_one(axes: Axes, last: int) -> None:
    axes.set_xlim(1 - 0.02 * last, last + 0.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))


def _split(axes: Axes, times: Array, parts: Sequence[tuple[str, int]]) -> None:
    ends = [start for _, start in parts[1:]] + [len(times) - 1]
    for k, ((name, start), end) in enumerate(zip(parts, ends, strict=False)):
        if k % 2:
            axes.axvspan(times[start], times[end], color=COLOURS["shade"], zorder=0)
        if k:
            axes.axvline(times[start], color=COLOURS["soft"], lw=0.8, ls=(0, (2, 2)))
        middle = times[start] + (times[end] - times[start]) / 2
        note(axes, middle, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom")


def _bands(axes: Axes, times: Array, intervals: list[tuple[float, Array, Array]]) -> None:
    for k, (_, low, high) in enumerate(intervals):
        axes.fill_between(times, low, high, color=COLOURS["blue"], alpha=_strength(k, len(intervals)), lw=0)


def _strength(k: int, count: int) -> float:
    return 0.16 + 0.22 * k / max(count - 1, 1)


def _line(colour: str, **style: Any) -> Line2D:
    return Line2D([], [], color=COLOURS[colour], **style)


def _swatch(k: int, count: int) -> Line2D:
    shown = 1.0
    for inner in range(k + 1):
        shown *= 1 - _strength(inner, count)
    return Line2D([], [], color=COLOURS["blue"], lw=7, alpha=1 - shown, solid_capstyle="butt")


def _thinned(times: Array, values: Array) -> tuple[Array, Array]:
    """The lowest and the highest value of each bucket, in order, for a line of `_POINTS` pixels."""
    if len(values) <= 2 * _POINTS:
        return times, values
    starts = np.linspace(0, len(values), _POINTS + 1).astype(int)
    kept: list[int] = []
    for low, high in pairwise(starts):
        piece = values[low:high]
        if np.isnan(piece).all():
            kept.append(low)
        else:
            kept += sorted({low + int(np.nanargmin(piece)), low + int(np.nanargmax(piece))})
    return times[kept], values[kept]


def _pair(who: str, times: Any, values: Any) -> tuple[Array, Array]:
    first = np.asarray(times)
    return first, _column(who, first, values)


def _column(who: str, times: Array, values: Any) -> Array:
    column = np.asarray(values, dtype=float)
    if times.ndim != 1 or column.shape != times.shape or not times.size:
        raise ArgumentError(
            f"{who}: got arrays of shapes {times.shape} and {column.shape}; expected two [N] arrays, N at least 1"
        )
    return column


def _opposite(levels: dict[float, Array], q: float) -> Array:
    for other, values in levels.items():
        if abs(other + q - 1) < 1e-9:
            return values
    came = ", ".join(f"{level:g}" for level in levels)
    raise ArgumentError(f"fan: got the quantiles {came}; {q:g} has no counterpart, so add {1 - q:g}")


def _shapes(arrays: Mapping[str, Array]) -> str:
    return ", ".join(f"{name!r} of shape {array.shape}" for name, array in arrays.items()) or "nothing"


def _shown(time: Any) -> str:
    return str(np.datetime_as_string(time, unit="auto")) if isinstance(time, np.datetime64) else f"{time:g}"


def _range(values: Array) -> str:
    return (
        f"between {np.nanmin(values):.4g} and {np.nanmax(values):.4g}" if np.isfinite(values).any() else "all missing"
    )
