"""Regular time grids, and the conversion between times and places on a grid."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tidegate.data.zones import Precision, local_clocks, written, zone_named

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_YEAR_1, _YEAR_9999 = (float(np.datetime64(f"{year}-01-01", "us").astype(np.int64)) for year in ("0001", "9999"))
_NAMES = {
    1000: "millisecond",
    _SECOND: "second",
    60 * _SECOND: "minute",
    3600 * _SECOND: "hour",
    _DAY: "day",
    7 * _DAY: "week",
}
_CYCLES = (_DAY, 3600 * _SECOND, 60 * _SECOND, _SECOND)
_LONGEST_SEASON = 400  # steps: a net would need months of data to learn a day of seconds


@dataclass(frozen=True)
class Grid:
    """Equally spaced times: places 0, 1, 2 ... are `step` units apart, from `origin` on.

    `unit` is "step" (whole numbers), "us" (microseconds), "month" (calendar months, on the day of `origin`, or on the
    last day of each month where `month_end`), or "weekday" (Monday to Friday). `origin` is a whole number: of the unit
    "step", or else of microseconds since 1970. With a `zone` ("+02:00" or "Europe/Berlin") times are in UTC and are
    written in that zone; without one they are as written in the data.
    """

    unit: Literal["step", "us", "month", "weekday"]
    step: int
    origin: int
    month_end: bool = False
    zone: str | None = None

    @property
    def season(self) -> int:
        """The season that usually goes with this spacing: 24 for hours, 7 for days, 12 for months; else 1.

        Below an hour it is the longest of day, hour, minute and second that has at most 400 steps.
        """
        if self.unit == "month":
            return 12 // self.step if 12 % self.step == 0 else 1
        if self.unit == "us":
            if self.step >= _DAY:
                return {_DAY: 7, 7 * _DAY: 52}.get(self.step, 1)
            whole = (cycle // self.step for cycle in _CYCLES if cycle % self.step == 0)
            return next((steps for steps in whole if steps <= _LONGEST_SEASON), 1)
        return 5 if self.unit == "weekday" else 1

    @property
    def spacing(self) -> str:
        """The distance between neighbours in words: "1 hour", "3 months", "1 step"."""
        if self.unit == "us":
            base = max((size for size in _NAMES if self.step % size == 0), default=1)
            return _counted(self.step // base, _NAMES.get(base, "microsecond"))
        return _counted(self.step, self.unit)

    @property
    def typical_step(self) -> float:
        """Microseconds between neighbours, on the average; meaningless for the unit "step"."""
        return self.step * {"us": 1.0, "month": 365.2425 / 12 * _DAY, "weekday": 1.4 * _DAY}.get(self.unit, 1.0)

    def places(self, times: np.ndarray) -> np.ndarray:
        """Places of times as float64: a whole number for a time on the grid, a fraction or NaN for others."""
        if self.unit == "step":
            return (times.astype(np.int64) - self.origin) / self.step
        origin = _from_us(self.origin)
        if self.unit == "us":
            return (times.astype("datetime64[us]").astype(np.int64) - self.origin) / self.step
        rough = self._rough_places(times, origin)
        whole = np.round(rough).astype(np.int64)
        return np.where(self.times(whole) == times, rough, np.nan)

    def times(self, places: np.ndarray) -> np.ndarray:
        """Times of whole places: int64 for the unit "step", datetime64[us] for the others."""
        offsets = np.asarray(places, np.int64) * self.step
        if self.unit in ("step", "us"):
            numbers = self.origin + offsets
            return numbers if self.unit == "step" else numbers.astype("datetime64[us]")
        origin = _from_us(self.origin)
        clock = origin - origin.astype("datetime64[D]")
        if self.unit == "weekday":
            return np.busday_offset(origin.astype("datetime64[D]"), offsets).astype("datetime64[us]") + clock
        months = origin.astype("datetime64[M]") + offsets
        if self.month_end:
            return (months + 1).astype("datetime64[D]").astype("datetime64[us]") - np.timedelta64(1, "D") + clock
        day = origin.astype("datetime64[D]") - origin.astype("datetime64[M]").astype("datetime64[D]")
        return (months.astype("datetime64[D]") + day).astype("datetime64[us]") + clock

    def clocks(self, places: np.ndarray) -> np.ndarray:
        """What clocks of the grid's zone show at these places; its `times` where it has none."""
        times = self.times(places)
        return times if self.zone is None else local_clocks(times, self.zone)

    def texts(self, places: np.ndarray) -> list[str]:
        """Times of whole places as text: 2024-01-31, 2024-01-31 13:00:00, 2024-01-31T13:00:00.100+02:00, or a number.

        The clock is left out where all times of the grid are midnights without a zone; digits below a second are
        written where the grid has any.
        """
        times = self.times(places)
        return [str(time) for time in times] if self.unit == "step" else written(times, self.zone, self._precision)

    @property
    def _precision(self) -> Precision:
        parts = (self.origin, self.step) if self.unit == "us" else (self.origin,)
        if self.zone is None and not any(part % _DAY for part in parts):
            return "D"
        if any(part % 1000 for part in parts):
            return "us"
        return "ms" if any(part % _SECOND for part in parts) else "s"

    def has_times(self, first: int, last: int) -> bool:
        """Whether these places have times that can be written: years 1 to 9999, or steps of 62 bits, and a zone."""
        try:
            zone_named(self.zone or "UTC")
        except ValueError:
            return False
        low, high = (-(2.0**62), 2.0**62) if self.unit == "step" else (_YEAR_1, _YEAR_9999)
        return self.step > 0 and all(low < self.origin + place * self.typical_step < high for place in (0, first, last))

    def _rough_places(self, times: np.ndarray, origin: np.datetime64) -> np.ndarray:
        if self.unit == "weekday":
            return np.busday_count(origin.astype("datetime64[D]"), times.astype("datetime64[D]")) / self.step
        return (times.astype("datetime64[M]") - origin.astype("datetime64[M]")).astype(np.int64) / self.step


def infer_grid(runs: list[np.ndarray]) -> Grid:
    """The grid of several series' times, each rising: the spacing that occurs most often, counted over all of them.

    The unit is months if all times are on the same day of the month (at most the 28th) or all on the last; weekdays
    where days follow each other and no Saturday or Sunday occurs. A single time gives steps of 1.
    """
    joined = np.concatenate(runs)
    if joined.dtype.kind != "M":
        return Grid("step", _mode([np.diff(run) for run in runs], 1), int(joined.min()))
    origin = int(joined.min().astype("datetime64[us]").astype(np.int64))
    gaps = [np.diff(run.astype("datetime64[us]")).astype(np.int64) for run in runs]
    month_end = _all_month_ends(joined)
    if min((int(gap.min()) for gap in gaps if len(gap)), default=0) >= 28 * _DAY and (month_end or _same_day(joined)):
        steps = [np.diff(run.astype("datetime64[M]")).astype(np.int64) for run in runs]
        return Grid("month", _mode(steps, 1), origin, month_end)
    if _mode(gaps, 1) == _DAY and _only_weekdays(joined, gaps):
        return Grid("weekday", 1, origin)
    return Grid("us", _mode(gaps, _DAY), origin)


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _from_us(number: int) -> np.datetime64:
    return np.datetime64(number, "us")


def _mode(gaps: list[np.ndarray], default: int) -> int:
    values, counts = np.unique(np.concatenate(gaps), return_counts=True)
    return int(values[counts.argmax()]) if len(values) else default


def _clock(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[us]").astype(np.int64) % _DAY


def _same_day(times: np.ndarray) -> bool:
    days = (times.astype("datetime64[D]") - times.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64)
    return bool(days.max() == days.min() < 28 and np.ptp(_clock(times)) == 0)


def _all_month_ends(times: np.ndarray) -> bool:
    tomorrow = (times.astype("datetime64[D]") + 1).astype("datetime64[D]")
    return bool(np.all(tomorrow == tomorrow.astype("datetime64[M]")) and np.ptp(_clock(times)) == 0)


def _only_weekdays(times: np.ndarray, gaps: list[np.ndarray]) -> bool:
    weekend = any(bool(np.any(gap == 3 * _DAY)) for gap in gaps)
    return bool(weekend and np.all(np.is_busday(times.astype("datetime64[D]"))) and np.ptp(_clock(times)) == 0)
