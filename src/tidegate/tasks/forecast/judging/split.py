"""Where a series is cut: training, validation, held-out, in the order of time."""

from dataclasses import dataclass, replace

import numpy as np

from tidegate.data import Panel, Series
from tidegate.errors import DataError

_VALIDATION, _HELD_OUT = 0.15, 0.2
_LISTED = 5


@dataclass(frozen=True)
class Split:
    """A series of `stop` steps: training before `validation`, validation before `held_out`, the held-out part after.

    All three are equal where a series is too short to be cut: it is trained on and not judged.
    """

    validation: int
    held_out: int
    stop: int

    @property
    def judged(self) -> bool:
        """Whether there is a held-out part."""
        return self.held_out < self.stop


def split(length: int, horizon: int, first_origin: int) -> Split:
    """The split of a series: 15 % for validation and 20 % held out, each at least two horizons long.

    Where that leaves less than two horizons to train on, each is at least one horizon long; a series that is too short
    for this, too, is not cut. `first_origin` is the first place from which a forecast is scored.
    """
    for horizons in (2, 1):
        held_out = length - max(round(_HELD_OUT * length), horizons * horizon)
        validation = held_out - max(round(_VALIDATION * length), horizons * horizon)
        if validation >= first_origin + 1 + horizons * horizon:
            return Split(validation, held_out, length)
    return Split(length, length, length)


def split_all(panel: Panel, horizon: int, first_origin: int) -> tuple[Panel, tuple[Split, ...]]:
    """The panel without the series that are too short to be forecast, and the split of each series in it.

    A series needs `first_origin + 1` steps. The panel's notes name those that were omitted, and say how many are
    trained on without being judged. Validation and held-out part must hold a known value in some series; DataError
    says how long a series must be where none can be cut.
    """
    kept = tuple(series for series in panel.series if len(series) > first_origin)
    splits = tuple(split(len(series), horizon, first_origin) for series in kept)
    if not any(cut.judged for cut in splits):
        raise _too_short(panel, horizon, first_origin)
    omitted = [series for series in panel.series if len(series) <= first_origin]
    notes = [*panel.notes, *_omitted(omitted, first_origin + 1), *_unjudged(kept, splits), *_small(splits, horizon)]
    panel = replace(panel, series=kept, notes=tuple(notes))
    _refuse_empty("validation", panel, [(cut.validation, cut.held_out) for cut in splits])
    _refuse_empty("held-out", panel, [(cut.held_out, cut.stop) for cut in splits])
    return panel, splits


def _too_short(panel: Panel, horizon: int, first_origin: int) -> DataError:
    longest = max(panel.series, key=len)
    counted = "1 step" if len(longest) == 1 else f"{len(longest)} steps"
    several = f"The longest of {len(panel.series)} series, '{longest.name}', has"
    alone = f"Series '{longest.name}' has" if longest.name else "The series has"
    return DataError(
        f"{several if len(panel.series) > 1 else alone} {counted}, but forecasting {horizon} steps needs at least "
        f"{first_origin + 1 + 3 * horizon}: for training, validation and a held-out part. Give a longer series, a "
        "shorter horizon or a shorter season."
    )


def _omitted(series: list[Series], least: int) -> list[str]:
    if not series:
        return []
    names = ", ".join(f"'{one.name}' ({len(one)})" for one in series[:_LISTED])
    more = f" and {len(series) - _LISTED} more" if len(series) > _LISTED else ""
    return [f"Series with fewer than {least} steps were omitted: {names}{more}."]


def _unjudged(series: tuple[Series, ...], splits: tuple[Split, ...]) -> list[str]:
    short = [one for one, cut in zip(series, splits, strict=True) if not cut.judged]
    if not short:
        return []
    return [f"{len(short)} of {len(series)} series are too short to be judged: the net was only trained on them."]


def _small(splits: tuple[Split, ...], horizon: int) -> list[str]:
    judged = [cut for cut in splits if cut.judged]
    small = [cut for cut in judged if cut.stop - cut.held_out < 2 * horizon]
    if not small:
        return []
    whose = "The held-out part" if len(splits) == 1 else f"The held-out part of {len(small)} of {len(judged)} series"
    return [f"{whose} is shorter than two horizons, so the judgement rests on few forecasts."]


def _refuse_empty(part: str, panel: Panel, spans: list[tuple[int, int]]) -> None:
    pieces = [series.values[first:stop] for series, (first, stop) in zip(panel.series, spans, strict=True)]
    if not any(np.isfinite(piece).any() for piece in pieces):
        index = next(k for k, (first, stop) in enumerate(spans) if stop > first)
        first, stop = spans[index]
        begin, end = panel.grid.times(panel.series[index].start + np.array([first, stop - 1]))
        raise DataError(
            f"{panel.name}, column '{panel.target}': the {part} part, from {begin} to {end}, has no known value. "
            "Expected a series with shorter gaps; omit the rows before or after the gap."
        )
