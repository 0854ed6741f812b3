"""The series of the case `series`: chosen for spread before any result was seen, and fixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from benchmarks.forecasting.archives import FPP3, Archives
from tidegate.errors import ArgumentError

ETTH1_COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
MONTH, QUARTER, DAY, HOUR = "month", "quarter", "day", "hour"
HORIZONS = {MONTH: 12, QUARTER: 4, DAY: 14, HOUR: 24}  # a year, a year, two weeks, a day
SEASONS = {MONTH: 12, QUARTER: 4, DAY: 7, HOUR: 24}  # those that the forecaster infers from the spacing


@dataclass(frozen=True)
class Subject:
    """A series: a name, how far apart its rows are, and a frame with the columns `time` and `value`."""

    name: str
    spacing: str
    frame: pl.DataFrame

    @property
    def horizon(self) -> int:
        """Steps to forecast."""
        return HORIZONS[self.spacing]

    @property
    def season(self) -> int:
        """Steps in a season."""
        return SEASONS[self.spacing]


@dataclass(frozen=True)
class Choice:
    """A series of a CSV file: the sum over the rows where `where` holds, at each time."""

    name: str
    file: str
    time: str
    value: str
    spacing: str
    why: str
    where: Mapping[str, str] = field(default_factory=dict)

    def read(self, archives: Archives) -> Subject:
        """The series, from the archive."""
        rows = archives.csv(FPP3, f"tsdata/fpp3/{self.file}.csv")
        for column, wanted in self.where.items():
            rows = rows.filter(pl.col(column) == wanted)
        summed = rows.group_by(self.time).agg(pl.col(self.value).cast(pl.Float64).sum())
        frame = summed.select(_time(self.time, self.spacing).alias("time"), pl.col(self.value).alias("value"))
        return Subject(self.name, self.spacing, frame.sort("time"))


CHOICES = (
    Choice(
        "retail cafes NSW", "aus_retail", "Month", "Turnover", MONTH,
        "growth whose seasonal swings grow with the level",
        {"State": "New South Wales", "Industry": "Cafes, restaurants and catering services"},
    ),
    Choice(
        "retail department stores VIC", "aus_retail", "Month", "Turnover", MONTH,
        "a level that hardly changes and a large December",
        {"State": "Victoria", "Industry": "Department stores"},
    ),
    Choice(
        "retail newspapers and books SA", "aus_retail", "Month", "Turnover", MONTH,
        "a small series whose trend turns",
        {"State": "South Australia", "Industry": "Newspaper and book retailing"},
    ),
    Choice(
        "employment leisure", "us_employment", "Month", "Employed", MONTH,
        "80 years of trend, seasons and recessions", {"Title": "Leisure and Hospitality"},
    ),
    Choice(
        "employment retail trade", "us_employment", "Month", "Employed", MONTH,
        "a season that changes its shape", {"Title": "Retail Trade"},
    ),
    Choice(
        "tourism Snowy Mountains", "tourism", "Quarter", "Trips", QUARTER,
        "80 rows, mostly season", {"Region": "Snowy Mountains", "Purpose": "Holiday"},
    ),
    Choice(
        "tourism Melbourne", "tourism", "Quarter", "Trips", QUARTER,
        "80 rows, mostly noise and a late trend", {"Region": "Melbourne", "Purpose": "Business"},
    ),
    Choice("beer", "aus_production", "Quarter", "Beer", QUARTER, "a stable season after decades of change"),
    Choice("gas", "aus_production", "Quarter", "Gas", QUARTER, "growth by a factor of 40, multiplicative seasons"),
    Choice("antidiabetic drugs", "PBS", "Month", "Cost", MONTH,
           "multiplicative growth with a jump every January", {"ATC2": "A10"}),
    Choice("electricity VIC", "vic_elec", "Date", "Demand", DAY, "weeks, years and the weather, daily sums"),
    Choice("pedestrians", "pedestrian", "Date_Time", "Count", HOUR,
           "counts near zero at night, weekdays unlike weekends", {"Sensor": "Southern Cross Station"}),
)  # fmt: skip


def subjects(archives: Archives, etth1: Path | None, only: tuple[str, ...]) -> Iterator[Subject]:
    """The chosen series, and the columns of ETTh1 where its file is given; of these, those named in `only`."""
    names = [*(choice.name for choice in CHOICES), *(f"ETTh1 {column}" for column in ETTH1_COLUMNS)]
    for name in only:
        if name not in names:
            raise ArgumentError(f"there is no series {name!r}. The series are {', '.join(names)}")
    yield from (choice.read(archives) for choice in CHOICES if not only or choice.name in only)
    if etth1 is not None:
        yield from (one for one in _etth1(etth1) if not only or one.name in only)


def _etth1(path: Path) -> Iterator[Subject]:
    """Seven hourly series of a power transformer (Zhou et al. 2021, arXiv:2012.07436)."""
    if not path.is_file():
        raise ArgumentError(f"there is no file {path}. Expected ETTh1.csv of the data set ETDataset.")
    rows = pl.read_csv(path)
    missing = [column for column in ("date", *ETTH1_COLUMNS) if column not in rows.columns]
    if missing:
        raise ArgumentError(f"{path} has no column '{missing[0]}'. Expected ETTh1.csv of the data set ETDataset.")
    time = pl.col("date").str.to_datetime("%Y-%m-%d %H:%M:%S").alias("time")
    for column in ETTH1_COLUMNS:
        yield Subject(f"ETTh1 {column}", HOUR, rows.select(time, pl.col(column).cast(pl.Float64).alias("value")))


def _time(column: str, spacing: str) -> pl.Expr:
    text = pl.col(column).cast(pl.String)
    match spacing:
        case "month":
            return (text + " 1").str.to_date("%Y %b %d")
        case "quarter":
            year, quarter = text.str.slice(0, 4).cast(pl.Int32), text.str.slice(6, 1).cast(pl.Int32)
            return pl.date(year, 3 * quarter - 2, 1)
        case "day":
            return text.str.to_date("%Y-%m-%d")
    return text.str.to_datetime("%Y-%m-%dT%H:%M:%SZ")
