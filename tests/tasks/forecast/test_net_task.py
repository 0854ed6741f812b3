"""The net's quantiles, its losses against brute force, and rolling origins against one run for each."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forecast_cases import LEVELS, prepared, waves
from tidegate.tasks.forecast.inputs import ANCHORS, ForecastInputs
from tidegate.tasks.forecast.net import ForecastNet
from tidegate.tasks.forecast.task import ForecastTask, rolling, training_origins

HORIZON, SEASON = 4, 6


def net_for(inputs: ForecastInputs, random: bool = True) -> ForecastNet:
    net = ForecastNet("gru", inputs.x.shape[1], HORIZON, LEVELS, hidden=5, layers=1)
    if random:
        with torch.no_grad():
            for weight in (net.head.weight, net.mixture, net.spread):
                weight.normal_()
    return net.eval()


def task() -> ForecastTask:
    values = waves()
    values[[60, 61, 190]] = np.nan
    _, splits, inputs = prepared(values, HORIZON, SEASON)
    return ForecastTask(net_for(inputs), inputs, splits, torch.tensor(LEVELS))


@given(st.integers(0, 10_000))
def test_quantiles_never_cross(seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    net = ForecastNet("elman", 2, 3, LEVELS, hidden=4, layers=1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(5 * torch.randn(weight.shape, generator=chance))
    outputs = torch.randn(6, 4, generator=chance)
    anchors = 10 * torch.randn(6, 3, len(ANCHORS), generator=chance)
    forecasts = net.forecast(outputs, anchors)
    assert forecasts.shape == (6, 3, len(LEVELS))
    assert bool((forecasts.diff(dim=-1) >= 0).all())


def test_the_start_is_the_best_anchor_with_the_spread_of_its_errors() -> None:
    """One anchor is right but for a known error; the others are far off."""
    errors = torch.randn(4000, HORIZON) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    targets = torch.randn(4000, HORIZON) * 50
    anchors = torch.randn(4000, HORIZON, len(ANCHORS)) * 50
    anchors[..., 2] = targets - errors
    net = ForecastNet("elman", 2, HORIZON, LEVELS, hidden=4, layers=1)
    net.start_from(anchors, targets, torch.tensor(LEVELS))
    found = net.forecast(torch.randn(4000, 4), anchors) - anchors[..., 2, None]
    expected = errors.quantile(torch.tensor(LEVELS), dim=0).T
    torch.testing.assert_close(found.mean(0), expected, rtol=0.05, atol=0.15)


def test_a_horizon_never_seen_starts_without_error() -> None:
    targets = torch.full((20, HORIZON), torch.nan)
    net = ForecastNet("elman", 2, HORIZON, LEVELS, hidden=4, layers=1)
    net.start_from(torch.zeros(20, HORIZON, len(ANCHORS)), targets, torch.tensor(LEVELS))
    assert bool(torch.isfinite(net.forecast(torch.zeros(1, 4), torch.zeros(1, HORIZON, len(ANCHORS)))).all())


def brute_force(task: ForecastTask, rows: torch.Tensor, outputs: torch.Tensor, stop: int) -> tuple[float, int]:
    total, count, recipe = 0.0, 0, task.inputs.recipe
    for step, row in enumerate(rows.tolist()):
        if step < recipe.warm or row < recipe.past:
            continue
        forecast = task.module.forecast(outputs[step], task.inputs.anchors(torch.tensor(row)))
        for k in range(HORIZON):
            later = row + 1 + k
            if later >= stop or bool(torch.isnan(task.inputs.truth[later])):
                continue
            miss = [float(task.inputs.truth[later] - task.inputs.filled[row] - q) for q in forecast[k]]
            total += sum(max(q * m, (q - 1) * m) for q, m in zip(LEVELS, miss, strict=True)) / len(LEVELS)
            count += 1
    return total, count


@torch.no_grad()
def test_the_loss_of_a_batch_by_brute_force() -> None:
    job = task()
    batch = job.draw(torch.Generator().manual_seed(2))
    outputs, _ = job.run(batch, 0, job.length(batch), None)
    total, count = job.score(batch, outputs, 0, job.length(batch))
    stop = job.splits[0].validation
    parts = [brute_force(job, batch.rows[:, b], outputs[:, b], stop) for b in range(batch.rows.shape[1])]
    assert int(count) == sum(part[1] for part in parts)
    assert float(total) == pytest.approx(sum(part[0] for part in parts), rel=1e-4)
    assert batch.rows.max() < stop


@torch.no_grad()
def test_losses_of_pieces_add_up() -> None:
    job = task()
    batch = job.draw(torch.Generator().manual_seed(2))
    whole = job.score(batch, job.run(batch, 0, 12, None)[0], 0, 12)
    first, state = job.run(batch, 0, 7, None)
    second, _ = job.run(batch, 7, 12, state)
    pieces = [job.score(batch, first, 0, 7), job.score(batch, second, 7, 12)]
    assert sum(float(total) for total, _ in pieces) == pytest.approx(float(whole[0]), rel=1e-5)
    assert sum(int(count) for _, count in pieces) == int(whole[1])
    assert int(job.score(batch, first[:6], 0, 6)[1]) == 0


@torch.no_grad()
@pytest.mark.parametrize(("first", "stop"), [(26, 27), (30, 49), (100, 241), (259, 260)])
def test_rolling_origins_are_runs_of_their_own(first: int, stop: int) -> None:
    job = task()
    recipe = job.inputs.recipe
    found = rolling(job.module, job.inputs, 0, first, stop)
    assert found.shape == (stop - first, HORIZON, len(LEVELS))
    stretch = recipe.context - recipe.warm
    for origin in range(first, stop):
        begin = max(0, origin - (origin - first) % stretch - recipe.warm)
        outputs, _ = job.module(job.inputs.x[begin : origin + 1, None])
        expected = job.module.forecast(outputs[-1, 0], job.inputs.anchors(torch.tensor(origin)))
        torch.testing.assert_close(found[origin - first], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_validation_looks_at_every_origin_of_its_part_and_no_further() -> None:
    job = task()
    cut = job.splits[0]
    losses = []
    origins = range(cut.validation - 1, cut.held_out - 1)
    forecasts = rolling(job.module, job.inputs, 0, origins.start, origins.stop)
    for origin, forecast in zip(origins, forecasts, strict=True):
        for k in range(HORIZON):
            later = origin + 1 + k
            if later < cut.held_out and not torch.isnan(job.inputs.truth[later]):
                miss = (job.inputs.truth[later] - job.inputs.filled[origin] - forecast[k]).numpy()
                losses.append(np.maximum(np.array(LEVELS) * miss, (np.array(LEVELS) - 1) * miss).mean())
    assert job.validate() == pytest.approx(np.mean(losses), rel=1e-4)


def test_training_origins_stay_in_the_training_part() -> None:
    job = task()
    rows, stops = training_origins(job.inputs, job.splits)
    assert rows.tolist() == list(range(job.inputs.recipe.past, job.splits[0].validation - 1))
    assert set(stops.tolist()) == {job.splits[0].validation}
    few, _ = training_origins(job.inputs, job.splits, most=10)
    assert len(few) == 10
    assert few.tolist() == sorted(set(few.tolist()))
