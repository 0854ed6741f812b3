"""Times that occur twice in a series: why they may do so, and what to do about it."""

import numpy as np
import polars as pl

from tidegate.data.tables.table import Table

_SEVERAL = 0.3  # of the rows share their time with another: the table then holds several series


def remedy(table: Table, time: str, id: str | None, times: np.ndarray, first: int, second: int) -> str:
    """What to do about rows `first` and `second`, which have one time."""
    if table.frame[first].equals(table.frame[second]):
        copies = table.frame.height - table.frame.unique().height
        counted = "1 row is a copy" if copies == 1 else f"{copies} rows are copies"
        return f"The two rows are equal, and {counted} in all: remove them."
    shared = 1 - len(np.unique(times)) / len(times)
    if id is None and shared > _SEVERAL:
        return _several(table, time)
    if _is_autumn(times[second]) and shared < _SEVERAL:
        return (
            "Clocks show this hour twice in autumn: write times with their zone, as in 2024-10-27T02:00:00+02:00, or "
            "in UTC, or join the rows of an hour: --every 1h (in Python every='1h')."
        )
    ways = ["Remove a row"]
    ways += [] if id else ["name the column that tells series apart: --id NAME (in Python id='NAME')"]
    ways += ["join the rows of a step: --every 1d (in Python every='1d')"] if times.dtype.kind == "M" else []
    return f"{', or '.join(ways)}."


def telling_column(table: Table, time: str) -> str | None:
    """The first column of text or whole numbers that tells rows of one time apart."""
    for name in table.frame.columns:
        kind = table.frame[name].dtype
        telling = kind in (pl.String, pl.Categorical, pl.Enum) or kind.is_integer()
        several = telling and 1 < table.frame[name].n_unique() < table.frame.height
        if name != time and several and table.frame.select(time, name).is_unique().all():
            return name
    return None


def _several(table: Table, time: str) -> str:
    name = telling_column(table, time)
    if name is not None:
        return f"Column '{name}' may tell several series apart: --id {name} (in Python id='{name}')."
    return "The table may hold several series: name the column that tells them apart, --id NAME (in Python id='NAME')."


def _is_autumn(time: object) -> bool:
    """Whether it is an early hour of a Sunday from September to November or in March or April."""
    if not isinstance(time, np.datetime64):
        return False
    moment = time.astype("datetime64[s]").item()
    return moment.weekday() == 6 and moment.hour < 4 and moment.month in (3, 4, 9, 10, 11)
