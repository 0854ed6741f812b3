"""Whatever a specification says, it is refused when it is loaded, or the model predicts finite numbers."""

import contextlib
import copy
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import tidegate as tg
from golden.kept import make
from tidegate.errors import ModelFileError
from tidegate.files import read_model, write_model

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = sorted(path.parent for path in GOLDEN.glob("*/*/*/model.json"))
FORECASTER = GOLDEN / "kept" / "0.1.0" / "forecaster"
LOST = "this field is absent"
BAD = [
    LOST, None, True, False, -1, 0, 1, 2, 7, 10**9, 10**30, -5, 0.5, -1e308, 1e308, 1e-320, "x", "", "1", "../x",
    "\ud800", [], [1], [[]], {}, {"a": 1}, "rtrl:1000000000", "truncated:1,1000000000", "snap:1000000000", "month",
]  # fmt: skip


@pytest.fixture(scope="session")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a forecaster of this version."""
    folder = tmp_path_factory.mktemp("forecaster") / "model"
    options = {
        "season": 6,
        "hidden_size": 4,
        "context": 12,
        "quantiles": "0.1,0.5,0.9",
        "seed": 1,
        "updates": 30,
        "keep_net": True,
    }
    data = pl.DataFrame({"y": make.series(), "x": np.cos(make.series())})
    tg.save(tg.Forecaster(3, **options).fit(data, "y", covariates=["x"]), folder)
    return folder


def places(data: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path into nested data, of long lists the first and the last; cells are tried in tests/test_models.py."""
    items = list(data.items()) if isinstance(data, dict) else list(enumerate(data)) if isinstance(data, list) else []
    for key, value in items if len(items) <= 20 else [items[0], items[-1]]:
        if key != "cell":
            yield (*here, key)
            yield from places(value, (*here, key))


def changed(spec: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    spec = copy.deepcopy(spec)
    parent: Any = spec
    for key in place[:-1]:
        parent = parent[key]
    if value == LOST:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return spec


def predicts(model: Any) -> None:
    """The model predicts finite numbers, and what it is goes into a file again."""
    if isinstance(model, tg.Forecaster):
        forecast = model.predict()
        assert np.isfinite(forecast.quantiles).all()
        assert len(forecast.to_json()) == len(forecast.to_csv().splitlines()) - 1
        model.to_spec()
    elif isinstance(model, tg.OnlineLearner):
        for _ in range(2):
            guess = model.predict_one({"a": 0.1, "b": 0.2}, "k")
            assert guess is None or isinstance(guess, str) or math.isfinite(guess)
            model.learn_one({"a": 0.1, "b": 0.2}, "red" if model.task == "classification" else 1.0, "k")
        assert model.options.snapshots is None
        model.snapshot()
    else:
        kind = next(model.parameters()).dtype
        assert model.eval()(torch.zeros(3, 2, 3, dtype=kind))[0].isfinite().all()


def tried(folder: Path, here: Path, count: int) -> None:
    """Load the model with one field changed, and with the hash of that, so many times."""
    found, chance = read_model(folder), random.Random(0)
    every = [(place, value) for place in places(found.manifest["spec"]) for value in BAD]
    for place, value in chance.sample(every, min(count, len(every))):
        spec = changed(found.manifest["spec"], place, value)
        write_model(here, found.manifest["kind"], "0", json.loads(json.dumps(spec)), found.weights)
        model = None
        with contextlib.suppress(ModelFileError):
            model = tg.load(here)
        if model is not None:
            predicts(model)


@pytest.mark.filterwarnings("ignore::tidegate.TidegateNotice")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_specification_is_refused_or_predicts(folder: Path, tmp_path: Path) -> None:
    tried(folder, tmp_path, 80 if folder == FORECASTER else 25)


@pytest.mark.filterwarnings("ignore::tidegate.TidegateNotice")
def test_a_forecaster_of_this_version_is_refused_or_predicts(forecaster: Path, tmp_path: Path) -> None:
    tried(forecaster, tmp_path, 80)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_field_of_a_forecaster_of_this_version_is_refused_or_predicts(forecaster: Path, tmp_path: Path) -> None:
    tried(forecaster, tmp_path, 4000)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_field_of_a_specification_is_refused_or_predicts(folder: Path, tmp_path: Path) -> None:
    tried(folder, tmp_path, 4000)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("options.horizon", "3", "spec.options.horizon must be a valid integer, got '3'"),
        ("options.horizon", True, "spec.options.horizon must be a valid integer, got True"),
        ("options.quantiles", [0.1, 0.9], "spec.options.quantiles is not valid, got [0.1, 0.9]"),
        ("options.other", 1, "spec.options.other is not known, got 1"),
        ("version", 3, "spec.version must be 2, got 3"),
        ("columns.0", None, "spec.columns.0 must be a valid string, got None"),
        ("recipe.context", 10**9, "recipe looks back at too many steps"),
        ("recipe.context", 1, "spec.recipe.context must be greater than or equal to 2, got 1"),
        ("recipe.back", 10**9, "recipe looks back at too many steps"),
        ("recipe.season", 10**9, "recipe looks back at too many steps"),
        ("recipe.season", 10**30, f"spec.recipe.season must be less than or equal to 2147483648, got 1{'0' * 30}"),
        ("recipe.season", "6", "spec.recipe.season must be a valid integer, got '6'"),
        ("recipe.cycle", -1, "spec.recipe.cycle must be greater than or equal to 0, got -1"),
        ("recipe.horizon", 4, "recipe.horizon and options.horizon differ"),
        ("recipe.scales", {"other": {"centre": 0.0, "unit": 1.0}}, "recipe.scales and tail.series differ"),
        ("recipe.scales..pattern", [1.0], "a pattern is not one season"),
        ("recipe.scales..log", True, "a logarithm needs a floor above 0"),
        ("recipe.scales..alpha", 0.0, "spec.recipe.scales..alpha must be greater than 0, got 0.0"),
        ("recipe.scales..unit", 0.0, "spec.recipe.scales..unit must be greater than 0, got 0.0"),
        (
            "recipe.scales..unit", 1e-40,
            "The series has the value 13.6 at 36, which is 1e+40 times its usual change. Correct the value, or leave "
            "it empty.",
        ),
        ("recipe.covariates", [], "numbers of covariates differ"),
        ("tail.series.0.lead", 40, "tail.series has no step after its lead"),
        ("tail.series.0.rows", 9, "tail.values must be [9] of torch.float64, got [24] of torch.float64"),
        ("tail.series.0.memory.0", "x", "spec.tail.series.0.memory.0 must be a valid number, got 'x'"),
        ("instead", "other", "instead must not be 'other'"),
        ("tail.grid.step", 10**18, "tail.grid gives times out of range"),
        ("tail.grid.step", -1, "tail.grid gives times out of range"),
        ("tail.grid.origin", -(10**30), "tail.grid gives times out of range"),
        ("tail.grid.unit", "year", "spec.tail.grid.unit must be 'step', 'us', 'month' or 'weekday', got 'year'"),
        ("tail.series.0.start", 2**62, "tail.grid gives times out of range"),
        ("evaluation.best_baseline", "other", "evaluation has not all methods, scores, horizons or levels"),
        ("evaluation.scores.net.mae", "low", "spec.evaluation.scores.net.mae must be a valid number, got 'low'"),
        ("history.checks", [], "history has no best check"),
        ("story.places.1", 36, "story has parts of different lengths, or out of range"),
        ("story.values", [1.0], "story has parts of different lengths, or out of range"),
    ],
)  # fmt: skip
def test_a_forecaster_whose_numbers_cannot_be(
    place: str, value: Any, fault: str, forecaster: Path, tmp_path: Path
) -> None:
    found = read_model(forecaster)
    path = tuple(int(key) if key.isdecimal() else key for key in place.split("."))
    write_model(tmp_path, "forecaster", "0", changed(found.manifest["spec"], path, value), found.weights)
    with pytest.raises(ModelFileError) as caught:
        tg.load(tmp_path)
    assert str(caught.value) == f"{tmp_path} is damaged: {fault}"


@pytest.mark.parametrize(
    ("name", "tensor", "fault"),
    [
        ("net.spread", torch.zeros(2, 2), "tensor 'spread' must be torch.float32 (3, 3), got torch.float32 (2, 2)"),
        ("net.spread", None, "tensor 'spread' must be torch.float32 (3, 3), got none"),
        ("net.spread", torch.zeros(3, 3).double(), "tensor 'spread' must be torch.float32 (3, 3), got torch.float64 "
         "(3, 3)"),
        ("tail.values", torch.zeros(24, 1).double(), "tail.values must be [24] of torch.float64, got [24, 1] of "
         "torch.float64"),
        ("tail.values", torch.zeros(24), "tail.values must be [24] of torch.float64, got [24] of torch.float32"),
        ("tail.covariates", torch.zeros(9, 1).double(), "tail.covariates must be [24, 1] of torch.float64, got [9, 1] "
         "of torch.float64"),
        ("tail.values", torch.full((24,), torch.nan).double(), "tail must begin with known values"),
        ("tail.state.0.0.h", torch.zeros(2, 4), "tail.state.0.0.h must be [1, 4] of torch.float32, got [2, 4] of "
         "torch.float32"),
        ("tail.state.0.0.c", None, "tail.state.0.0.c must be [1, 4] of torch.float32, got none"),
        ("other", torch.zeros(1), "tensor 'other' belongs to no part of the model"),
    ],
)  # fmt: skip
def test_a_forecaster_whose_tensors_cannot_be(
    name: str, tensor: torch.Tensor | None, fault: str, forecaster: Path
) -> None:
    spec, tensors = tg.load(forecaster).to_spec()
    tensors = {key: value for key, value in tensors.items() if key != name}
    tensors |= {} if tensor is None else {name: tensor}
    with pytest.raises(ModelFileError) as caught:
        tg.Forecaster.from_spec(json.loads(json.dumps(spec)), tensors)
    assert str(caught.value) == fault


def test_what_this_version_writes_is_what_it_reads(forecaster: Path, tmp_path: Path) -> None:
    model = tg.load(forecaster)
    tg.save(model, tmp_path)
    assert make.quantiles(tg.load(tmp_path)) == make.quantiles(model)
    assert read_model(tmp_path).manifest["spec"] == json.loads(json.dumps(model.to_spec()[0]))
