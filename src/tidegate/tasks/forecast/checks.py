"""What is doubtful or wrong about the values of a panel before a net is trained on them."""

from dataclasses import replace

import numpy as np

from tidegate.config import ForecastOptions
from tidegate.data import Panel, Series
from tidegate.errors import DataError
from tidegate.tasks.forecast.model.scale import outliers

_LISTED = 3


def with_checked_values(panel: Panel, options: ForecastOptions) -> Panel:
    """The panel with notes on absurd values; DataError where values contradict the options `positive` and `count`."""
    for series in panel.series:
        if options.positive or options.count:
            _refuse(panel, series, series.values < 0, "below 0", "positive" if options.positive else "count")
        if options.count:
            _refuse(panel, series, series.values % 1 > 0, "no whole number", "count")
    found = [(series, outliers(series.values)) for series in panel.series]
    notes = [_note(panel, series, places) for series, places in found if len(places)]
    more = [f"{len(notes) - _LISTED} more series have such values."] if len(notes) > _LISTED else []
    return replace(panel, notes=(*panel.notes, *notes[:_LISTED], *more))


def _refuse(panel: Panel, series: Series, wrong: np.ndarray, fault: str, option: str) -> None:
    if wrong.any():
        place = int(wrong.argmax())
        [time] = panel.grid.texts(np.array([series.start + place]))
        whose = f" of series '{series.name}'" if series.name else ""
        raise DataError(
            f"{panel.name}, column '{panel.target}': the value {series.values[place]:g} at {time}{whose} is {fault}, "
            f"which the option '{option}' excludes. Correct the value, or omit the option."
        )


def _note(panel: Panel, series: Series, places: np.ndarray) -> str:
    value = series.values[places[0]]
    [time] = panel.grid.texts(np.array([series.start + places[0]]))
    name = f"Series '{series.name}'" if series.name else "The series"
    more = f", and {len(places) - 1} more like it" if len(places) > 1 else ""
    return f"{name} has the value {value:g} at {time}{more}, far from all others. If it means missing, leave it empty."
