"""Where a series is cut: training, validation, held-out, in the order of time."""

from dataclasses import dataclass

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
        needed = max(_shortest(least, horizon), length + 1)
        raise DataError(
            f"{name} has {length} steps, but a forecast of {horizon} steps that looks back {past} needs at least "
            f"{needed}: for training, validation and a held-out part. Give a longer series, a shorter horizon or a "
            "shorter season."
        )
    return Split(validation, held_out, length)


def split_all(panel: Panel, horizon: int, past: int) -> tuple[Split, ...]:
    """The split of each series of a panel."""
    return tuple(split(series, horizon, past) for series in panel.series)


def _shortest(least: int, horizon: int) -> int:
    length = least
    while length - _rest(length, horizon) < least:
        length += 1
    return length


def _rest(length: int, horizon: int) -> int:
    return max(round(_HELD_OUT * length), 2 * horizon) + max(round(_VALIDATION * length), 2 * horizon)
