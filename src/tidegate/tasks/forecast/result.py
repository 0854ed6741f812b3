"""A forecast: quantiles for the next steps of each series."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from tidegate.data import Grid
from tidegate.data.zones import name_for_frames
from tidegate.files import spreadsheet_text

_DIGITS = 9  # what a float32 can hold


@dataclass(frozen=True)
class Forecast:
    """Quantiles `[series, K, Q]` at the levels `[Q]`; `times [series, K]` are datetime64 or the numbers of the steps.

    Times are those of the `grid`: in UTC where it has a zone, see `texts`. `target`, `time` and `id` are the names of
    the columns that the forecaster was fitted on; `names` are the series'.
    """

    names: tuple[str, ...]
    times: np.ndarray
    levels: tuple[float, ...]
    quantiles: np.ndarray
    target: str
    time: str
    id: str | None
    grid: Grid

    @property
    def texts(self) -> list[list[str]]:
        """The times as text, `[series][K]`, with their zone and as many digits as the grid has."""
        return [self.grid.texts(self.grid.places(times).round().astype(np.int64)) for times in self.times]

    @property
    def median(self) -> np.ndarray:
        """The forecast in one number each: `[series, K]`."""
        return self.quantiles[..., self.levels.index(0.5)]

    def rounded(self, digits: int) -> "Forecast":
        """The forecast with quantiles of so many decimal places."""
        return replace(self, quantiles=np.round(self.quantiles, digits))

    def to_frame(self) -> pl.DataFrame:
        """A row for each series and step: the id and the time under their own names, then q0.05, q0.1 and so on.

        A name that is already taken gets an underscore: with an id called step, rows without times are counted in
        step_. Times have the zone of the data; an offset that polars has no name for, such as +05:30, becomes UTC.
        """
        count, horizon = self.times.shape
        id, time, levels = self._names()
        columns: dict[str, object] = {}
        if id is not None:
            columns[id] = np.repeat(np.array(self.names), horizon)
        times = pl.Series(self.times.reshape(-1))
        if self.grid.zone is not None:
            times = times.dt.replace_time_zone("UTC").dt.convert_time_zone(name_for_frames(self.grid.zone))
        columns[time] = times
        flat = self.quantiles.reshape(count * horizon, -1)
        return pl.DataFrame(columns | {level: flat[:, k] for k, level in enumerate(levels)})

    def _names(self) -> tuple[str | None, str, list[str]]:
        """The names of the columns of id, time and quantiles, all different."""
        taken = {self.id} - {None}
        free: list[str] = []
        for name in (self.time, *(f"q{level:g}" for level in self.levels)):
            while name in taken:
                name += "_"
            taken.add(name)
            free.append(name)
        return self.id, free[0], free[1:]

    def to_csv(self) -> str:
        """The frame as CSV text, of nine significant digits.

        Times are written as `texts` has them. A name that a spreadsheet would take for a
        formula, because it begins with = + - @, a tab or a carriage return and is not a number, gets an apostrophe in
        front.
        """
        frame = self.to_frame()
        if self.grid.unit != "step":
            frame = frame.with_columns(pl.Series(self._names()[1], [text for texts in self.texts for text in texts]))
        frame = frame.with_columns(
            pl.col(pl.Float64).round_sig_figs(_DIGITS),
            pl.col(pl.String).map_elements(spreadsheet_text, return_dtype=pl.String),
        ).rename(spreadsheet_text)
        return frame.write_csv()

    def to_json(self) -> list[dict[str, Any]]:
        """A record for each series and step: series, time (ISO text or a number), and the quantiles by level."""
        return [
            {
                "series": name,
                "time": text if self.grid.zone else int(step) if self.grid.unit == "step" else step.item().isoformat(),
                "quantiles": {f"{level:g}": float(value) for level, value in zip(self.levels, row, strict=True)},
            }
            for name, times, texts, rows in zip(self.names, self.times, self.texts, self.quantiles, strict=True)
            for step, text, row in zip(times, texts, rows, strict=True)
        ]
