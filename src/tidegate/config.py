"""Options: models whose field descriptions are the help of the command line.

Nothing derived is kept here, and torch is not imported. A value that does not fit raises `ArgumentError`, which says
what was expected, what was given and what to give instead. `checked` does the same for data of saved models.
"""

import csv
import difflib
import itertools
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self

from tidegate.errors import ArgumentError, MissingExtraError, ModelFileError

try:
    from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
except ImportError:  # pragma: no cover - seen only where the extra is not installed
    raise MissingExtraError("app", "Reading options") from None

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_COUNT = r"0*[1-9]\d*"
_RULE = re.compile(
    rf"bptt(:{_COUNT}([kmg]ib)?)?|truncated:(?P<k1>{_COUNT}),(?P<k2>{_COUNT})"
    rf"|snap:{_COUNT}(,{_COUNT})?|(rtrl|uoro|kfrtrl|rflo|eprop)(:{_COUNT})?"
)


def seconds(value: object) -> float:
    """A length of time in seconds: a number, or text such as "90s", "2m", "1h30m"."""
    if isinstance(value, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", value.strip())
        if not parts or "".join(number + unit for number, unit in parts) != value.strip():
            raise ValueError(value)
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(value)
    return float(value)


def _names(value: object) -> object:
    """Names or numbers with commas between them; those that hold a comma themselves are in double quotes."""
    if isinstance(value, str):
        return tuple(part.strip() for part in next(csv.reader([value], skipinitialspace=True), []) if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _gradient(value: object) -> str:
    text = str(value).replace(" ", "").lower()
    match = _RULE.fullmatch(text)
    if not match or (match["k1"] and int(match["k1"]) > int(match["k2"])):
        raise ValueError(value)
    return text


Seconds = Annotated[float, BeforeValidator(seconds)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Levels = Annotated[tuple[float, ...], BeforeValidator(_names)]
Gradient = Annotated[str, BeforeValidator(_gradient)]


def option(default: Any, help: str, expected: str, example: str, **limits: Any) -> Any:
    """A field with its help, and for error messages what is expected and an example."""
    return Field(default, description=help, json_schema_extra={"expected": expected, "example": example}, **limits)


def a_cell(default: str) -> Any:
    """The field `cell`."""
    return option(
        default,
        "The recurrent cell: a name that `tidegate cells` lists, or FILE.py:NAME for one of your own.",
        "the name of a cell or FILE.py:NAME",
        default,
        min_length=1,
    )


def a_size(default: int) -> Any:
    """The field `hidden_size`."""
    return option(default, "Units in a layer.", "a whole number from 1 to 4096", str(default), ge=1, le=4096)


def a_depth() -> Any:
    """The field `num_layers`."""
    return option(1, "Layers on top of each other.", "a whole number from 1 to 16", "1", ge=1, le=16)


def a_seed() -> Any:
    """The field `seed`."""
    return option(0, "Start of the random numbers.", "a whole number from 0 to 4294967295", "0", ge=0, le=2**32 - 1)


def a_rate(default: float) -> Any:
    """The field `learning_rate`."""
    return option(default, "Step size of Adam.", "a number above 0 and below 1", str(default), gt=0, lt=1)


def a_clip() -> Any:
    """The field `clip`."""
    return option(1.0, "Largest norm of a gradient.", "a number above 0", "1.0", gt=0)


_PROBLEMS = {  # of pydantic, in other words than its own
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "value_error": "is not valid",
    "json_invalid": "holds text that is not valid",
}
_adapter = cache(TypeAdapter)  # which takes its time


def checked(kind: Any, data: object, place: str) -> Any:
    """Validate data from JSON as a type, without conversions. Raises ModelFileError, which names the wrong field."""
    try:
        return _adapter(kind).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, (place, *problem["loc"])))
    told = _PROBLEMS.get(problem["type"], problem["msg"].replace("Input should be", "must be"))
    got = "" if problem["type"] == "missing" else f", got {problem['input']!r:.80}"
    raise ModelFileError(f"{where} {told}{got}")


class Options(BaseModel):
    """A frozen set of options; `make` builds one and raises `ArgumentError` for wrong values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def make(cls, **values: object) -> Self:
        """The options with these values; what is not given, or given as None, takes its default."""
        try:
            return cls(**{name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            raise ArgumentError(_sentence(cls, error.errors()[0], values)) from None


def _sentence(model: type[Options], problem: Mapping[str, Any], values: Mapping[str, object]) -> str:
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, model.model_fields, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else f"The options are {', '.join(model.model_fields)}."
        return f"There is no option '{name}'. {hint}"
    words = model.model_fields[name].json_schema_extra
    assert isinstance(words, dict)
    missing, got = ("is missing: it ", "") if problem["type"] == "missing" else ("", f", got {values.get(name)!r}")
    return f"The option '{name}' {missing}must be {words['expected']}{got}. Give for example {words['example']}."


class ForecastOptions(Options):
    """Options of a forecaster: the task, the net, and how it is trained."""

    horizon: int = option(..., "Steps to forecast.", "a whole number of at least 1", "12", ge=1)
    season: int | None = option(
        None,
        "Steps in a season: 24 for hours in a day, 12 for months in a year; 1 says there is none. "
        "Without it the distance between rows decides.",
        "a whole number of at least 1",
        "12",
        ge=1,
    )
    cell: str = a_cell("lstm")
    hidden_size: int = a_size(32)
    num_layers: int = a_depth()
    context: int | None = option(
        None,
        "Steps the net reads before it forecasts. Without it: a few seasons.",
        "a whole number of at least 2",
        "96",
        ge=2,
    )
    positive: bool | None = option(
        None,
        "Whether no forecast may be below 0. Without it: where no value is negative and one in twenty is 0.",
        "true or false",
        "true",
    )
    count: bool = option(False, "Forecast whole numbers of at least 0.", "true or false", "true")
    refit: bool = option(
        True,
        "Fit the net again on all of the data after it was judged; the verdict is that of the judged net.",
        "true or false",
        "true",
    )
    keep_net: bool = option(
        False,
        "Forecast with the net even where it lost to a baseline, which otherwise takes its place.",
        "true or false",
        "true",
    )
    quantiles: Levels = option(
        (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95),
        "Quantile levels, with commas between them.",
        "rising numbers between 0 and 1 with 0.5 among them",
        "0.1,0.5,0.9",
    )
    budget: Seconds = option(
        120.0, "Time for training, such as 90s or 2m.", "a length of time above zero", "90s or 2m", gt=0
    )
    updates: int | None = option(
        None,
        "End training after this many updates, whatever the clock says. Without it the budget decides.",
        "a whole number of at least 1",
        "2000",
        ge=1,
    )
    seed: int = a_seed()
    learning_rate: float = a_rate(0.003)
    schedule: Literal["constant", "cosine"] = option(
        "constant",
        "How the learning rate moves: constant (cut when the validation loss stops falling, then training ends early), "
        "or cosine (rises for 5 % of the budget, then falls to 1 %; the whole budget is used).",
        "constant or cosine",
        "cosine",
    )
    accumulate: int = option(1, "Batches for one update.", "a whole number from 1 to 4096", "4", ge=1, le=4096)
    clip: float = a_clip()
    gradient: Gradient = option(
        "bptt",
        "How gradients go through time. Back: bptt, bptt:50 (with 50 stored states), bptt:64MiB (within that much "
        "memory), or truncated:K1,K2 (an update every K1 steps, with gradients through K2). Forward, in memory that "
        "does not grow with the sequence: rtrl (exact), snap:N, uoro, kfrtrl, rflo or eprop (cheaper, some of them for "
        "some cells only), with one number more, the steps from update to update, as in snap:1,8.",
        "bptt, bptt:STATES, bptt:MEMORY with a unit KiB, MiB or GiB, truncated:K1,K2 with whole numbers "
        "1 <= K1 <= K2, rtrl, snap:N, uoro, kfrtrl, rflo or eprop, and the last six may have one number more, the "
        "steps from update to update",
        "truncated:16,32",
    )

    @field_validator("quantiles")
    @classmethod
    def _rising(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        inside = all(0 < level < 1 for level in levels)
        if not (inside and 0.5 in levels and all(a < b for a, b in itertools.pairwise(levels))):
            raise ValueError(levels)
        return levels


def a_decimal() -> Any:
    """The field `decimal`."""
    return option(
        None,
        "The decimal mark of the file's numbers: . or a comma. Without it each column tells, or is refused.",
        "a point or a comma",
        "','",
    )


class SpellingOptions(Options):
    """How the values of a file are spelled."""

    decimal: Literal[".", ","] | None = a_decimal()
    encoding: str | None = option(
        None,
        "The encoding of a text file, such as cp1252. Without it: UTF-8.",
        "the name of an encoding",
        "cp1252",
        min_length=1,
    )


class ReadingOptions(SpellingOptions):
    """How a table is read: its columns, and the spelling of its values."""

    target: str = option(..., "The column to forecast.", "the name of a column", "co2", min_length=1)
    time: str | None = option(
        None,
        "The column with the time of each row. Without it the rows are equal steps in the order of the file.",
        "the name of a column",
        "date",
        min_length=1,
    )
    id: str | None = option(
        None,
        "The column that says which series a row belongs to, where a file holds several.",
        "the name of a column",
        "store",
        min_length=1,
    )
    covariates: Names = option(
        (),
        "Further columns the net may read, with commas between them (a name that holds one is put in double quotes); "
        "their past is used, not their future.",
        "names of columns with commas between them",
        "price,rain",
    )

    known: Names = option(
        (),
        "Columns known in advance, such as holidays or planned prices: read also for the steps ahead, in rows without "
        "a target.",
        "names of columns with commas between them",
        "holiday,price",
    )
    static: Names = option(
        (),
        "Columns with one value for each series, numbers or text.",
        "names of columns with commas between them",
        "region,size",
    )
    wide: bool = option(
        False,
        "Each column, but for the time and the covariates, is a series; --target says what to call their values.",
        "true or false",
        "true",
    )
    every: str | None = option(
        None,
        "Bring the rows onto this step, such as 5min, 1h, 1d or 1month: each row is moved to a step, or the rows of a "
        "step are joined where there are several.",
        "a number and a unit: ms, s, min, h, d, w, month, quarter or year",
        "5min",
        min_length=1,
    )
    how: Literal["mean", "sum", "last", "min", "max"] = option(
        "mean", "How rows in one step are joined: mean, sum, last, min or max.", "mean, sum, last, min or max", "sum"
    )

    def reading(self) -> dict[str, Any]:
        """The arguments of `tidegate.data.read_panel`, without the target."""
        return {name: getattr(self, name) for name in ReadingOptions.model_fields if name != "target"}


class CheckConfig(ReadingOptions):
    """Options of `tidegate check-data`."""

    target: str | None = option(  # type: ignore[assignment]
        None,
        "The column to forecast. Without it: the last column of numbers.",
        "the name of a column",
        "co2",
        min_length=1,
    )


class ForecastConfig(ReadingOptions, ForecastOptions):
    """Options of `tidegate fit forecast`: the columns to read, where to write, and those of a forecaster."""

    out: str | None = option(
        None,
        "The folder to write, which must not exist yet. Without it: runs/NAME-1, runs/NAME-2 and so on.",
        "the name of a folder",
        "runs/co2",
        min_length=1,
    )

    def options(self) -> ForecastOptions:
        """The options of the forecaster."""
        return ForecastOptions(**self.model_dump(include=set(ForecastOptions.model_fields)))


class OnlineOptions(Options):
    """Options of an online learner: its task, its net, and its limits."""

    task: Literal["regression", "classification"] = option(
        "regression",
        "What is predicted: regression (a number) or classification (a label).",
        "regression or classification",
        "regression",
    )
    cell: str = a_cell("gru")
    hidden_size: int = a_size(16)
    num_layers: int = a_depth()
    rule: str = option(
        "rtrl",
        "The rule that gives each step's gradient: rtrl (exact), snap:N, uoro, kfrtrl, rflo, eprop (cheaper, some of "
        "them for some cells only), or truncated:1,K (looks back K steps).",
        "the text of a rule that gives a gradient at each step",
        "rtrl",
        min_length=1,
    )
    learning_rate: float = a_rate(0.001)
    clip: float = a_clip()
    delay: int = option(
        0, "How many steps late the labels come.", "a whole number from 0 to 100000", "24", ge=0, le=100_000
    )
    anchor: Literal["naive", "none"] = option(
        "naive",
        "What a number is predicted from: naive (the last known number, which the net corrects) or none (the running "
        "mean; for rows that are no series).",
        "naive or none",
        "none",
    )
    seed: int = a_seed()
    window: int = option(
        10_000,
        "Values that the scales of inputs and target remember.",
        "a whole number of at least 2",
        "10000",
        ge=2,
    )
    drift: float = option(
        50.0,
        "When the alarm of a drift sounds: a larger number is later and surer; 0 turns it off.",
        "a number of at least 0",
        "50",
        ge=0,
    )
    max_keys: int = option(
        1024,
        "Keys whose state is kept; the least recently seen one is forgotten first.",
        "a whole number of at least 1",
        "1024",
        ge=1,
    )
    max_features: int | None = option(
        None,
        "Features that the net can read. Without it: those of the first step.",
        "a whole number from 1 to 65536",
        "8",
        ge=1,
        le=65536,
    )
    max_classes: int = option(
        16, "Labels that a classification can learn.", "a whole number from 2 to 65536", "16", ge=2, le=65536
    )
    snapshots: str | None = option(
        None, "The folder for snapshots, of which it keeps the last two.", "the name of a folder", "kept", min_length=1
    )
    snapshot_every: int = option(10_000, "Steps between two snapshots.", "a whole number of at least 1", "10000", ge=1)


class LearnConfig(OnlineOptions):
    """Options of `tidegate learn`: those of a learner, the columns to read and where to save."""

    target: str = option(..., "The column to predict.", "the name of a column", "load", min_length=1)
    time: str | None = option(
        None,
        "The column with the time of each row, which is shown and not read.",
        "the name of a column",
        "date",
        min_length=1,
    )
    id: str | None = option(
        None,
        "The column that says which series a row belongs to; each has a state of its own.",
        "the name of a column",
        "sensor",
        min_length=1,
    )
    features: Names = option(
        (),
        "The columns to read, with commas between them. Without it: all others.",
        "names of columns with commas between them",
        "price,rain",
    )
    decimal: Literal[".", ","] | None = a_decimal()
    every: int = option(1, "Rows from one printed line to the next.", "a whole number of at least 1", "100", ge=1)
    load: str | None = option(
        None, "Go on with what --save kept in this folder.", "the name of a folder", "runs/learned", min_length=1
    )
    save: str | None = option(
        None,
        "Keep what was learned in this folder, at the end of the stream or when stopped.",
        "the name of a folder",
        "runs/learned",
        min_length=1,
    )

    def options(self) -> OnlineOptions:
        """The options of the learner."""
        return OnlineOptions(**self.model_dump(include=set(OnlineOptions.model_fields)))
