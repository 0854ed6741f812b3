"""Calendar features of times, as numbers between -1 and 1."""

import numpy as np

from tidegate.data.grid import Grid

_DAY = 86_400e6
_CYCLES = {"time of day": _DAY, "day of week": 7 * _DAY, "time of year": 365.2425 * _DAY}


def calendar_features(grid: Grid, places: np.ndarray, seen: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Cosine and sine of the cycles that a net can learn: `[places, 2 * cycles]`, and the features' names.

    The cycles are the day, the week and the year. One is used where at least two steps fit into it and where the
    `seen` steps that a net is trained on go through it twice. A grid that only counts steps has no calendar.
    """
    times = grid.clocks(places)
    columns, names = [], []
    for name, length in _CYCLES.items():
        if grid.unit != "step" and 2 * grid.typical_step <= length and seen * grid.typical_step >= 2 * length:
            phase = 2 * np.pi * _phase(name, times)
            columns += [np.cos(phase), np.sin(phase)]
            names += [f"{name} (cosine)", f"{name} (sine)"]
    return (np.stack(columns, -1) if columns else np.zeros((len(places), 0))), tuple(names)


def _phase(name: str, times: np.ndarray) -> np.ndarray:
    if name == "time of year":
        years = times.astype("datetime64[Y]")
        return (times - years.astype(times.dtype)) / ((years + 1).astype(times.dtype) - years.astype(times.dtype))
    monday = np.datetime64("1970-01-05", "us")
    length = int(_CYCLES[name])
    return (times - monday).astype(np.int64) % length / length
