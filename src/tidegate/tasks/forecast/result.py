"""A forecast: quantiles for the next steps of each series."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tidegate.files import spreadsheet_text

_DIGITS = 9  # what a float32 can hold


@dataclass(frozen=True)
class Forecast:
    """Quantiles `[series, K, Q]` at the levels `[Q]`; `times [series, K]` are datetime64 or the numbers of the steps.

    `target`, `time` and `id` are the names of the columns that the forecaster was fitted on; `names` are the series'.
    """

    names: tuple[str, ...]
    times: np.ndarray
    levels: tuple[float, ...]
    quantiles: np.ndarray
    target: str
    time: str
    id: str | None

    @property
    def median(self) -> np.ndarray:
        """The forecast in one number each: `[series, K]`."""
        return self.quantiles[..., self.levels.index(0.5)]

    def to_frame(self) -> pl.DataFrame:
        """A row for each series and step: the id and the time under their own names, then q0.05, q0.1 and so on."""
        count, horizon = self.times.shape
        columns: dict[str, object] = {}
        if self.id is not None:
            columns[self.id] = np.repeat(np.array(self.names), horizon)
        columns[self.time] = self.times.reshape(-1)
        flat = self.quantiles.reshape(count * horizon, -1)
        return pl.DataFrame(columns | {f"q{level:g}": flat[:, k] for k, level in enumerate(self.levels)})

    def to_csv(self) -> str:
        """The frame as CSV text, of nine significant digits.

        Times are written without a clock where all of them are midnights. A name that a spreadsheet would take for a
        formula, because it begins with = + - @, a tab or a carriage return and is not a number, gets an apostrophe in
        front.
        """
        frame, style = self.to_frame(), "%Y-%m-%d %H:%M:%S"
        frame = frame.with_columns(
            pl.col(pl.Float64).round_sig_figs(_DIGITS),
            pl.col(pl.String).map_elements(spreadsheet_text, return_dtype=pl.String),
        ).rename(spreadsheet_text)
        if self.times.dtype.kind == "M" and np.array_equal(self.times, self.times.astype("datetime64[D]")):
            style = "%Y-%m-%d"
        return frame.write_csv(datetime_format=style)

    def to_json(self) -> list[dict[str, Any]]:
        """A record for each series and step: series, time (ISO text or a number), and the quantiles by level."""
        return [
            {
                "series": name,
                "time": step.item().isoformat() if isinstance(step, np.datetime64) else int(step),
                "quantiles": {f"{level:g}": float(value) for level, value in zip(self.levels, row, strict=True)},
            }
            for name, times, rows in zip(self.names, self.times, self.quantiles, strict=True)
            for step, row in zip(times, rows, strict=True)
        ]
