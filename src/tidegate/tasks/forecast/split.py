"""Where a series is cut: training, validation, held-out, in the order of time."""

from dataclasses import dataclass

import numpy as np

from tidegate.data import Panel, Series
from tidegate.errors import DataError

_VALIDATION, _HELD_OUT = 0.15, 0.2


@dataclass(frozen=True)
class Split:
    """A series of `stop` steps: training before `validation`, validation before `held_out`, the held-out part after."""

    validation: int
    held_out: int
    stop: int


def split(series: Series, horizon: int, past: int) -> Split:
    """The split of a series: 15 % for validation and 20 % held out, each at least two horizons long.

    `past` is the number of steps that a forecast looks back at. A series too short to leave `past` and three horizons
    for training is an error that says how long it would have to be.
    """
    length = len(series)
    held_out = length - max(round(_HELD_OUT * length), 2 * horizon)
    validation = held_out - max(round(_VALIDATION * length), 2 * horizon)
    least = past + 3 * horizon
    if validation < least:
        name = f"Series '{series.name}'" if series.name else "The series"
        counted = f"{length} step" if length == 1 else f"{length} steps"
        needed = max(_shortest(least, horizon), length + 1)
        raise DataError(
            f"{name} has {counted}, but a forecast of {horizon} steps that looks back {past} needs at least "
            f"{needed}: for training, validation and a held-out part. Give a longer series, a shorter horizon or a "
            "shorter season."
        )
    return Split(validation, held_out, length)


def split_all(panel: Panel, horizon: int, past: int) -> tuple[Split, ...]:
    """The split of each series of a panel; each part must hold a known value in one of them."""
    splits = tuple(split(series, horizon, past) for series in panel.series)
    _refuse_empty("validation", panel, [(cut.validation, cut.held_out) for cut in splits])
    _refuse_empty("held-out", panel, [(cut.held_out, cut.stop) for cut in splits])
    return splits


def _refuse_empty(part: str, panel: Panel, spans: list[tuple[int, int]]) -> None:
    pieces = [series.values[first:stop] for series, (first, stop) in zip(panel.series, spans, strict=True)]
    if not any(np.isfinite(piece).any() for piece in pieces):
        first, stop = spans[0]
        begin, end = panel.grid.times(panel.series[0].start + np.array([first, stop - 1]))
        raise DataError(
            f"{panel.name}, column '{panel.target}': the {part} part, from {begin} to {end}, has no known value. "
            "Expected a series with shorter gaps; omit the rows before or after the gap."
        )


def _shortest(least: int, horizon: int) -> int:
    length = max(least + 4 * horizon, int((least - 1) / (1 - _VALIDATION - _HELD_OUT)))
    while length - _rest(length, horizon) < least:
        length += 1
    return length


def _rest(length: int, horizon: int) -> int:
    return max(round(_HELD_OUT * length), 2 * horizon) + max(round(_VALIDATION * length), 2 * horizon)
