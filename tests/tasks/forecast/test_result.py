"""A forecast as CSV: few digits, and nothing that a spreadsheet would run."""

import io
import math

import numpy as np
import polars as pl

from tidegate.data import Grid
from tidegate.tasks.forecast import Forecast

NAMES = ("=1+1", "@sum(A1)", "-1", "+2.5", "-x", "plain", "é,;")


def forecast(values: list[float]) -> Forecast:
    times = np.arange(len(NAMES))[:, None]
    quantiles = np.array(values * len(NAMES))[: len(NAMES), None, None]
    return Forecast(NAMES, times, (0.5,), quantiles, "y", "=step", "+id", Grid("step", 1, 0))


def test_names_that_a_spreadsheet_would_run_get_an_apostrophe_and_numbers_stay() -> None:
    found = pl.read_csv(io.StringIO(forecast([1.0]).to_csv()), infer_schema=False)
    assert found.columns == ["'+id", "'=step", "q0.5"]
    assert found["'+id"].to_list() == ["'=1+1", "'@sum(A1)", "-1", "+2.5", "'-x", "plain", "é,;"]
    assert forecast([1.0]).to_frame()["+id"].to_list() == list(NAMES)


def test_numbers_have_nine_digits() -> None:
    values = [math.pi, 1e6 * math.pi, 1 / 3, -1e-7 / 3, 2.0, 0.0, 123456789.123]
    lines = forecast(values).to_csv().splitlines()[1:]
    found = [line.rpartition(",")[2] for line in lines]
    assert found[:3] == ["3.14159265", "3141592.65", "0.333333333"]
    assert all(len(text.lstrip("-").partition("e")[0].replace(".", "").strip("0")) <= 9 for text in found)
    np.testing.assert_allclose([float(line.rpartition(",")[2]) for line in lines], values, rtol=1e-8)


def hours(zone: str | None) -> Forecast:
    grid = Grid("us", 3_600_000_000, int(np.datetime64("2024-06-17T14", "us").astype(int)), zone=zone)
    return Forecast(("",), grid.times(np.arange(2))[None], (0.5,), np.ones((1, 2, 1)), "y", "time", None, grid)


def test_times_have_their_zone_in_csv_json_and_frame() -> None:
    found = hours("+02:00")
    texts = ["2024-06-17T16:00:00+02:00", "2024-06-17T17:00:00+02:00"]
    assert found.to_csv().splitlines()[1:] == [f"{text},1.0" for text in texts]
    assert [record["time"] for record in found.to_json()] == texts
    assert [time.isoformat() for time in found.to_frame()["time"]] == texts
    assert hours("+05:30").to_frame()["time"][0].isoformat() == "2024-06-17T14:00:00+00:00"
    assert hours(None).to_csv().splitlines()[1] == "2024-06-17 14:00:00,1.0"
    assert hours(None).to_json()[0]["time"] == "2024-06-17T14:00:00"


def test_names_that_collide_get_an_underscore() -> None:
    grid = Grid("step", 1, 0)
    found = Forecast(("a",), np.arange(2)[None], (0.5,), np.ones((1, 2, 1)), "y", "step", "step", grid).to_frame()
    assert found.columns == ["step", "step_", "q0.5"]
    assert (found["step"].to_list(), found["step_"].to_list()) == (["a", "a"], [0, 1])
    found = Forecast(("a",), np.arange(2)[None], (0.5,), np.ones((1, 2, 1)), "y", "step", "q0.5", grid).to_frame()
    assert found.columns == ["q0.5", "step", "q0.5_"]
