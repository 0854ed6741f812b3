"""Figures of gates and states over time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tidegate.errors import ArgumentError
from tidegate.report.canvas import COLOURS, draw, key, time_axis, words

_UNITS = 5
_BANDS = (("nine in ten units", 5, 95, 0.14), ("half of the units", 25, 75, 0.2))


def traces(
    gates: Mapping[str, Any],
    states: Mapping[str, Any] | None = None,
    *,
    times: Any = None,
    legends: Mapping[str, str] | None = None,
    units: Sequence[int] | None = None,
    title: str = "Gates and states over time",
) -> str:
    """Panels two abreast: gates on axes from 0 to 1, then the states in their order, so that c stands beside h.

    Each panel has the middle half and the middle nine tenths of the units as bands, and a few single units as lines:
    the same ones in the same colours in every panel.

    Args:
        gates: name to values [T, H], [T, 1] or [T]; they are expected to lie in [0, 1].
        states: the same for states and other values, each on an axis of its own.
        times: for the time axis, [T]; by default steps from 0.
        legends: name to what it is (`"forget gate"`), shown beside the name.
        units: indices of the single units; by default the ones that change most in the first state.
        title: for screen readers.
    """
    panels = {name: _table(name, values) for name, values in ({**gates, **(states or {})}).items()}
    steps = {len(values) for values in panels.values()}
    if len(steps) != 1:
        raise ArgumentError(f"traces: got {_lengths(panels)}; expected arrays over the same T steps, T at least 1")
    axis = np.arange(steps.pop()) if times is None else np.asarray(times)
    chosen = _moving(panels, states or gates) if units is None else list(units)
    rows, known = _rows(gates, states or {}), legends or {}

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(rows), 2, sharex=True, squeeze=False)
        for places, names in zip(grid, rows, strict=True):
            for axes, name in zip(places, [*names, None], strict=False):
                if name is None:
                    axes.set_axis_off()
                    continue
                _panel(axes, axis, panels[name], chosen, gate=name in gates)
                words(axes, title=f"{name}  ({known[name]})" if known.get(name) else name)
        if any(values.shape[1] > 1 for values in panels.values()):
            key(figure, _entries())
        for axes in (grid[-1, 0], grid[-1, 1]):
            words(axes, x=None if np.issubdtype(axis.dtype, np.datetime64) else "step")

    alt = "; ".join(
        f"{name}: mean {np.nanmean(values):.3g}, from {np.nanmin(values):.3g} to {np.nanmax(values):.3g}"
        for name, values in panels.items()
    )
    return draw(0.55 + 1.35 * len(rows), paint, title=title, alt=alt)


def _entries() -> list[tuple[Any, str]]:
    line = Line2D([], [], color=COLOURS["blue"], lw=0.9)
    bands = [Line2D([], [], color=COLOURS["grey"], lw=7, alpha=1.4 * alpha) for *_, alpha in _BANDS]
    return [(line, "single units"), (bands[1], _BANDS[1][0]), (bands[0], _BANDS[0][0])]


def _panel(axes: Axes, times: np.ndarray, values: np.ndarray, units: list[int], *, gate: bool) -> None:
    if values.shape[1] > 1:
        for _, low, high, alpha in _BANDS:
            band = np.nanpercentile(values, (low, high), axis=1)
            axes.fill_between(times, *band, color=COLOURS["grey"], alpha=alpha, lw=0)
    colours = ("blue", "vermillion", "green", "purple", "orange")
    for k, unit in enumerate(u for u in units if u < values.shape[1]):
        axes.plot(times, values[:, unit], color=COLOURS[colours[k % len(colours)]], lw=0.9)
    if gate:
        axes.set(ylim=(-0.03, 1.03), yticks=(0, 0.5, 1))
    time_axis(axes, times)


def _rows(gates: Mapping[str, Any], states: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for names in (list(gates), [name for name in states if name not in gates]):
        rows += [names[k : k + 2] for k in range(0, len(names), 2)]
    return rows


def _moving(panels: Mapping[str, np.ndarray], first: Mapping[str, Any]) -> list[int]:
    spread = np.nanstd(panels[next(iter(first))], axis=0)
    return sorted(int(k) for k in np.argsort(-spread, kind="stable")[:_UNITS])


def _table(name: str, values: Any) -> np.ndarray:
    table = np.asarray(values, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or not table.size:
        raise ArgumentError(
            f"traces: {name!r} has shape {table.shape}; expected [T, H] or [T] of one sequence, not empty"
        )
    return table


def _lengths(panels: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name!r} with T = {len(values)}" for name, values in panels.items()) or "nothing"
