"""Inputs and anchors against loops, the same bits however a series is cut, and the promise that nothing looks ahead."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forecast_cases import prepared, recipe, two_series, waves
from tidegate.data import Panel, read_panel
from tidegate.errors import DataError
from tidegate.tasks.forecast.judging.split import split_all
from tidegate.tasks.forecast.model.features import SLOW_SEASONS, SeriesMemory, run_memory
from tidegate.tasks.forecast.model.inputs import ANCHORS, CYCLE_ANCHORS, ForecastInputs, SeriesPart, make_inputs
from tidegate.tasks.forecast.model.recipe import Standard, make_recipe

HORIZON, SEASON, BACK, CYCLE, ALPHA = 9, 4, 2, 12, 0.4


def walk(count: int = 60) -> np.ndarray:
    values = np.cumsum(np.random.randn(count))
    values[[20, 21, 44]] = np.nan
    return values


def panel_of(values: np.ndarray) -> Panel:
    return read_panel(pl.DataFrame({"y": values}).with_columns(pl.col("y").fill_nan(None)), "y")


def one_series(values: np.ndarray, cycle: int = CYCLE) -> ForecastInputs:
    return make_inputs(panel_of(values), recipe(HORIZON, SEASON, BACK, cycle=cycle, alpha=ALPHA))


def filled(values: np.ndarray) -> list[float]:
    known: list[float] = []
    for value in values:
        known.append(known[-1] if np.isnan(value) else value)
    return known


def smoothed(past: list[float], alpha: float) -> float:
    level = past[0]
    for value in past:
        level += alpha * (value - level)
    return level


def back(past: list[float], step: int, season: int, seasons: int) -> float:
    """The value at the same place of the season, `seasons` before the last one; the first value goes on for ever."""
    place = len(past) - 1 + step
    while place > len(past) - 1:
        place -= season
    return past[max(0, place - season * seasons)]


def expected_anchors(past: list[float], step: int) -> list[float]:
    here, n = past[-1], len(past)
    before = [past[max(0, n - 1 - SEASON * (k + 1))] for k in range(BACK)]
    last, mean = back(past, step, SEASON, 0), np.mean([back(past, step, SEASON, k) for k in range(BACK)])
    trend = np.polyfit(np.arange(n), past, 1)[0]
    theta = smoothed(past, ALPHA) + trend / 2 * (step - 1 + (1 - (1 - ALPHA) ** n) / ALPHA)
    cycle, cycle_before = back(past, step, CYCLE, 0), past[max(0, n - 1 - CYCLE)]
    return [
        here,
        last,
        last + here - before[0],
        mean,
        mean + here - np.mean(before),
        np.mean(past),
        smoothed(past, min(0.1, 2 / (SLOW_SEASONS * SEASON + 1))),
        smoothed(past, ALPHA),
        theta,
        here + step * (here - past[0]) / (n - 1),
        cycle,
        cycle + here - cycle_before,
    ]


def test_anchors_by_a_loop() -> None:
    values = walk()
    inputs = one_series(values)
    origins = torch.tensor([3, 8, 22, 59])
    found = inputs.anchors(inputs.offsets + origins)
    assert found.shape == (4, HORIZON, len(ANCHORS) + len(CYCLE_ANCHORS))
    for row, origin in zip(found, origins.tolist(), strict=True):
        past = filled(values)[: origin + 1]
        for step in range(1, HORIZON + 1):
            np.testing.assert_allclose(row[step - 1] + past[-1], expected_anchors(past, step), atol=2e-5)
    plain = one_series(values, cycle=0)
    assert torch.equal(plain.anchors(plain.offsets + origins), found[..., : len(ANCHORS)])


def test_inputs_by_a_loop() -> None:
    values = walk()
    inputs, known = one_series(values), filled(values)
    assert inputs.offsets.tolist() == [CYCLE]
    for k in range(len(values)):
        past = known[: k + 1]
        expected = [
            known[k] - known[max(0, k - 1)],
            known[k] - known[max(0, k - SEASON)],
            known[k] - smoothed(past, ALPHA),
            known[k] - smoothed(past, min(0.1, 2 / (SLOW_SEASONS * SEASON + 1))),
            float(np.isnan(values[k])),
            0.0,
            min((k + 1) / (4 * SEASON + 16), 1.0),
        ]
        np.testing.assert_allclose(inputs.x[CYCLE + k], np.arcsinh(expected), atol=1e-5)


def test_targets_by_a_loop() -> None:
    values = walk()
    inputs = one_series(values)
    origins, stops = torch.tensor([10, 19, 50, 59]), torch.tensor([60, 25, 52, 60])
    found = inputs.targets(CYCLE + origins, CYCLE + stops)
    for row, origin, stop in zip(found, origins.tolist(), stops.tolist(), strict=True):
        for step in range(1, HORIZON + 1):
            later = origin + step
            if later >= stop or np.isnan(values[later]):
                assert torch.isnan(row[step - 1])
            else:
                assert float(row[step - 1]) == pytest.approx(values[later] - filled(values)[origin], abs=1e-5)


@given(st.integers(1, 59), st.integers(0, 30))
def test_a_series_in_parts_gives_the_same_bits(cut: int, more: int) -> None:
    """What a part needs of all steps before it: its memory, and the rows that are looked back at."""
    values = walk()
    values[cut] = 1.0 if np.isnan(values[cut]) else values[cut]
    panel, whole = panel_of(values), one_series(values)
    series, memory = panel.series[0], SeriesMemory()
    run_memory(series.values[:cut], memory, ALPHA, SEASON)
    first = max(0, cut - CYCLE - more)
    while first and np.isnan(values[first]):
        first -= 1
    rest = replace(series, start=first, values=series.values[first:], covariates=series.covariates[first:])
    part = make_inputs(panel, whole.recipe, (SeriesPart(rest, cut - first, memory),))
    assert (part.offsets.tolist(), part.lengths.tolist()) == ([CYCLE], [60 - cut])
    for name in ("x", "filled", "truth", "summaries"):
        mine, theirs = getattr(part, name)[CYCLE : CYCLE + 60 - cut], getattr(whole, name)[CYCLE + cut : CYCLE + 60]
        assert torch.equal(mine.nan_to_num(7.0), theirs.nan_to_num(7.0)), name
    rows = torch.arange(60 - cut)
    assert torch.equal(part.anchors(CYCLE + rows), whole.anchors(CYCLE + cut + rows))


def test_nothing_looks_ahead() -> None:
    values, origin = waves(), 100
    changed = values.copy()
    changed[origin + 1 :] = 999.0
    _, _, inputs = prepared(values, 4, 6)
    other = make_inputs(panel_of(changed), inputs.recipe)
    rows = inputs.offsets + torch.arange(origin + 1)
    assert torch.equal(inputs.x[rows], other.x[rows])
    assert torch.equal(inputs.anchors(rows), other.anchors(rows))
    assert not torch.equal(inputs.x, other.x)


def test_series_are_blocks_scaled_by_their_own() -> None:
    panel, splits = split_all(read_panel(two_series(), "y", time="month", id="who", covariates=["rain"]), 3, 11)
    stops = [cut.validation for cut in splits]
    whole = make_inputs(panel, make_recipe(panel, stops, horizon=3, season=12, context=20))
    past = whole.recipe.past
    assert (whole.names, whole.lengths.tolist()) == (("b", "a"), [150, 130])
    assert whole.offsets.tolist() == [past, past + 150 + 3 + past]
    assert len(whole.x) == 280 + 2 * (past + 3) == len(whole.ahead)
    a, rows = panel.series[1], whole.offsets[1] + torch.arange(130)
    np.testing.assert_allclose(
        whole.truth[rows], whole.recipe.scales["a"].scaled(a.values, a.start), rtol=1e-5, atol=1e-5
    )
    assert torch.nonzero(whole.x[rows, 4])[:, 0].tolist() == [40, 41, 70]
    covariate, gap = whole.x[rows, -2], whole.x[rows, -1]
    assert torch.nonzero(gap)[:, 0].tolist() == [60, 70]
    assert float(covariate[60]) == float(covariate[59]) != float(covariate[61])


def test_the_calendar_ahead_is_that_of_the_steps_ahead() -> None:
    panel = read_panel(two_series(), "y", time="month", id="who")
    inputs = make_inputs(panel, make_recipe(panel, [100, 100], horizon=3, season=12, context=20))
    rows = inputs.offsets[:, None] + torch.tensor([50, 60])
    known = inputs.known(rows)
    assert known.shape == (2, 2, 3, 2)
    torch.testing.assert_close(known[:, :, 0].arcsinh(), inputs.x[rows + 1, 7:9])
    last = inputs.known(inputs.offsets + inputs.lengths - 1)
    assert bool((last.square().sum(-1) - 1).abs().max() < 1e-5)


def test_a_week_of_hours_is_looked_back_at() -> None:
    hours = pl.DataFrame({"y": waves(900)}).with_columns(
        t=pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 3, 1), "1h", eager=True).head(900)
    )
    panel = read_panel(hours, "y", time="t")
    found = [make_recipe(panel, [n], horizon=3, season=24, context=20) for n in (900, 600)]
    assert [(one.cycle, one.past) for one in found] == [(168, 168), (0, 96)]


def test_a_covariate_that_starts_with_a_gap_starts_at_its_mean() -> None:
    data = pl.DataFrame({"y": waves(30), "x": [None, None] + [7.0] * 28})
    panel = read_panel(data, "y", covariates=["x"])
    with_x = replace(recipe(2, 4), covariates=(Standard(5.0, 2.0),))
    inputs = make_inputs(panel, with_x)
    np.testing.assert_allclose(inputs.x[inputs.offsets[0] :][:4, -2].sinh(), [0, 0, 1, 1], atol=1e-6)


def test_a_value_out_of_all_proportion_is_refused() -> None:
    values = walk()
    values[50] = 1e60
    with pytest.raises(DataError) as caught:
        one_series(values)
    assert str(caught.value) == (
        "The series has the value 1e+60 at 50, which is 1e+60 times its usual change. Correct the value, or leave it "
        "empty."
    )
