"""The net's quantiles, lanes through series, losses against brute force, and one run for every origin."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forecast_cases import LEVELS, prepared, small_net, waves
from tidegate.data import read_panel
from tidegate.tasks.forecast.model.inputs import ForecastInputs, make_inputs
from tidegate.tasks.forecast.model.net import ForecastNet
from tidegate.tasks.forecast.model.recipe import make_recipe
from tidegate.tasks.forecast.model.rolling import forecasts_from, in_units, outputs_of
from tidegate.tasks.forecast.model.task import ForecastTask, SeriesLanes, Steps, training_origins, validation_origins

HORIZON, SEASON, KINDS = 4, 6, 10


def task() -> ForecastTask:
    values = waves()
    values[[60, 61, 190]] = np.nan
    _, (cut,), inputs = prepared(values, HORIZON, SEASON)
    net = small_net(inputs, "gru")
    return ForecastTask(net, inputs, [(cut.validation, cut.held_out)], torch.tensor(LEVELS))


def several(lengths: tuple[int, ...] = (40, 7, 23), context: int = 12) -> ForecastInputs:
    frames = [pl.DataFrame({"who": f"s{k}", "y": waves(n, seed=k)}) for k, n in enumerate(lengths)]
    panel = read_panel(pl.concat(frames), "y", id="who")
    return make_inputs(panel, make_recipe(panel, list(lengths), horizon=HORIZON, season=3, context=context))


def made_net(known: int = 0) -> ForecastNet:
    return ForecastNet("elman", (2, known), KINDS, HORIZON, LEVELS, hidden=4, layers=1)


@given(st.integers(0, 10_000))
def test_quantiles_never_cross(seed: int) -> None:
    """Whatever the weights, and whatever calibration made of the widths."""
    chance = torch.Generator().manual_seed(seed)
    net = made_net(known=3)
    with torch.no_grad():
        for weight in (*net.parameters(), net.widths):
            weight.copy_(5 * torch.randn(weight.shape, generator=chance))
        net.widths.abs_()
    outputs, known = torch.randn(6, 4, generator=chance), torch.randn(6, HORIZON, 3, generator=chance)
    anchors = 10 * torch.randn(6, HORIZON, KINDS, generator=chance)
    forecasts = net.forecast(outputs, anchors, known)
    assert forecasts.shape == (6, HORIZON, len(LEVELS))
    assert bool((forecasts.diff(dim=-1) >= 0).all())


def test_widths_scale_the_distances_from_the_median() -> None:
    net = made_net()
    none, anchors = torch.zeros(1, HORIZON, 0), torch.randn(1, HORIZON, KINDS)
    before = net.forecast(torch.zeros(1, 4), anchors, none)
    net.widths.copy_(torch.tensor([3.0, 2.0, 1.0, 2.0, 3.0]).expand(HORIZON, 5))
    after = net.forecast(torch.zeros(1, 4), anchors, none)
    moved = (before - before[..., 2:3]) * net.widths
    torch.testing.assert_close(after, before[..., 2:3] + moved)


def test_what_is_known_in_advance_moves_its_own_step_alone() -> None:
    net = made_net(known=1)
    assert net.future is not None
    with torch.no_grad():
        net.future.correction.weight.normal_()
    known = torch.zeros(1, HORIZON, 1)
    outputs, anchors = torch.randn(1, 4), torch.zeros(1, HORIZON, KINDS)
    before = net.forecast(outputs, anchors, known)
    known[0, 2] = 1.0
    moved = (net.forecast(outputs, anchors, known) - before)[0]
    assert bool((moved[[0, 1, 3]] == 0).all())
    assert bool((moved[2].abs() > 1e-3).all())


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_the_start_is_the_best_anchor_with_the_spread_of_its_errors(size: float) -> None:
    """One anchor is right but for a known error; the others are far off. Wide gaps must not overflow."""
    errors = size * torch.randn(4000, HORIZON) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    targets = size * torch.randn(4000, HORIZON) * 50
    anchors = size * torch.randn(4000, HORIZON, KINDS) * 50
    anchors[..., 2] = targets - errors
    net = made_net()
    net.start_from(anchors, targets, torch.tensor(LEVELS))
    found = net.forecast(torch.randn(4000, 4), anchors, torch.zeros(4000, HORIZON, 0)) - anchors[..., 2, None]
    expected = errors.quantile(torch.tensor(LEVELS), dim=0).T
    torch.testing.assert_close(found.mean(0) / size, expected / size, rtol=0.05, atol=0.15)


def test_a_horizon_never_seen_starts_without_error() -> None:
    net = made_net()
    net.start_from(torch.zeros(20, HORIZON, KINDS), torch.full((20, HORIZON), torch.nan), torch.tensor(LEVELS))
    found = net.forecast(torch.zeros(1, 4), torch.zeros(1, HORIZON, KINDS), torch.zeros(1, HORIZON, 0))
    assert bool(torch.isfinite(found).all())


def test_lanes_go_through_stretches_to_their_ends() -> None:
    """Rows follow each other in a lane until a stretch ends; fresh starts are marked, and warm up inside a series."""
    inputs, stops = several(), [30, 7, 23]
    lanes, generator = SeriesLanes(inputs, stops), torch.Generator().manual_seed(1)
    lanes.warm = 5
    starts = {int(offset): k for k, offset in enumerate(inputs.offsets)}
    series, begin, seen = [-1] * 32, [0] * 32, set()
    for _ in range(6):
        batch = lanes.draw(generator)
        for lane in range(32):
            for step in range(len(batch.rows)):
                row = int(batch.rows[step, lane])
                if batch.fresh[step, lane]:
                    series[lane] = max(k for offset, k in starts.items() if offset <= row)
                    begin[lane] = row - int(inputs.offsets[series[lane]])
                    seen.add((series[lane], begin[lane] == 0))
                elif step:
                    assert row == int(batch.rows[step - 1, lane]) + 1
                place = row - int(inputs.offsets[series[lane]])
                assert place < stops[series[lane]]
                assert int(batch.stops[step, lane]) == int(inputs.offsets[series[lane]]) + stops[series[lane]]
                least = 2 if begin[lane] == 0 else max(2, begin[lane] + 5)
                assert bool(batch.scored[step, lane]) == (place >= least)
    assert seen == {(k, at_start) for k in (0, 2) for at_start in (True, False)} | {(1, True)}


@torch.no_grad()
def test_the_state_is_carried_from_batch_to_batch_and_reset_at_a_fresh_start() -> None:
    job = task()
    generator = torch.Generator().manual_seed(3)
    rows, fresh, outputs = [], [], []
    for _ in range(4):
        batch = job.draw(generator)
        out, _ = job.run(batch, 0, job.length(batch), None)
        rows, fresh, outputs = [*rows, *batch.rows], [*fresh, *batch.fresh], [*outputs, *out]
    lane = 5
    begins = [k for k, flags in enumerate(fresh) if flags[lane]]
    for first, stop in zip(begins, [*begins[1:], len(rows)], strict=True):
        x = torch.stack([job.inputs.x[rows[k][lane]] for k in range(first, stop)])
        alone, _ = job.module(x[:, None])
        torch.testing.assert_close(torch.stack([outputs[k][lane] for k in range(first, stop)]), alone[:, 0])


@torch.no_grad()
def test_lanes_go_on_from_what_a_checkpoint_holds_and_start_afresh_after_a_batch_that_was_left() -> None:
    job, generator = task(), torch.Generator().manual_seed(3)
    for _ in range(3):
        batch = job.draw(generator)
        job.run(batch, 0, 12, None)
    kept, random = job.state_dict(), generator.get_state()
    expected = job.run(job.draw(generator), 0, 12, None)[0]
    other = task()
    other.load_state_dict(kept)
    generator.set_state(random)
    batch = other.draw(generator)
    assert torch.equal(other.run(batch, 0, 12, None)[0], expected)
    left = other.draw(generator)
    after = other.draw(generator)
    assert left.number == after.number - 1
    alone, _ = other.module(other.inputs.x[after.rows], reset=after.fresh)
    assert torch.equal(other.run(after, 0, 12, None)[0], alone)


def brute_force(task: ForecastTask, batch: Steps, outputs: torch.Tensor, lane: int) -> tuple[float, int]:
    total, count, inputs = 0.0, 0, task.inputs
    for step, row in enumerate(batch.rows[:, lane].tolist()):
        if not batch.scored[step, lane]:
            continue
        at = torch.tensor(row)
        forecast = task.module.forecast(outputs[step, lane], inputs.anchors(at), inputs.known(at))
        for k in range(HORIZON):
            later = row + 1 + k
            if later >= batch.stops[step, lane] or bool(torch.isnan(inputs.truth[later])):
                continue
            miss = [float(inputs.truth[later] - inputs.filled[row] - q) for q in forecast[k]]
            total += sum(max(q * m, (q - 1) * m) for q, m in zip(LEVELS, miss, strict=True)) / len(LEVELS)
            count += 1
    return total, count


@torch.no_grad()
def test_the_loss_of_a_batch_by_brute_force_and_in_pieces() -> None:
    job = task()
    batch = job.draw(torch.Generator().manual_seed(2))
    outputs, _ = job.run(batch, 0, job.length(batch), None)
    total, count = job.score(batch, outputs, 0, job.length(batch))
    parts = [brute_force(job, batch, outputs, lane) for lane in range(batch.rows.shape[1])]
    assert int(count) == sum(part[1] for part in parts) > 100
    assert float(total) == pytest.approx(sum(part[0] for part in parts), rel=1e-4)
    first, state = job.run(batch, 0, 7, None)
    second, _ = job.run(batch, 7, 12, state)
    pieces = [job.score(batch, first, 0, 7), job.score(batch, second, 7, 12)]
    assert sum(float(piece) for piece, _ in pieces) == pytest.approx(float(total), rel=1e-5)
    assert sum(int(counted) for _, counted in pieces) == int(count)


@torch.no_grad()
def test_one_run_of_series_of_any_lengths_gives_each_what_it_gets_alone() -> None:
    inputs = several((40, 7, 23, 1))
    net = small_net(inputs, "lstm")
    stops = torch.tensor([40, 5, 0, 1])
    outputs, states = outputs_of(net, inputs, stops)
    for k, (offset, stop) in enumerate(zip(inputs.offsets.tolist(), stops.tolist(), strict=True)):
        alone, state = net(inputs.x[offset : offset + stop, None])
        assert torch.equal(outputs[offset : offset + stop], alone[:, 0])
        assert all(torch.equal(states[k][name], state[name]) for name in ("h", "c"))
    rest, ends = outputs_of(
        net,
        replace(inputs, offsets=inputs.offsets + 4, lengths=inputs.lengths.clamp(min=4) - 4),
        states=[outputs_of(net, inputs, torch.full((4,), 4).minimum(inputs.lengths))[1][k] for k in range(4)],
    )
    whole, finals = outputs_of(net, inputs)
    assert torch.equal(
        rest[inputs.offsets[0] + 4 : inputs.offsets[0] + 40], whole[inputs.offsets[0] + 4 : inputs.offsets[0] + 40]
    )
    assert torch.equal(ends[2]["h"], finals[2]["h"])


@torch.no_grad()
def test_forecasts_in_the_units_of_the_series() -> None:
    values = 40 * np.exp(0.01 * waves())
    panel, _, inputs = prepared(values, HORIZON, SEASON)
    net, series = small_net(inputs), panel.series[0]
    outputs, _ = outputs_of(net, inputs)
    origins = np.array([30, 100, 259])
    found = in_units(net, inputs, outputs, 0, series, origins)
    scale = inputs.recipe.scale(series)
    for quantiles, origin in zip(found, origins, strict=True):
        row = inputs.offsets + int(origin)
        scaled = forecasts_from(net, inputs, outputs, row)[0].numpy().astype(float) + float(inputs.filled[row])
        for k in range(HORIZON):
            raw = scaled[k] * scale.unit + scale.centre
            raw = raw + (scale.pattern[(int(origin) + 1 + k) % SEASON] if scale.pattern else 0.0)
            np.testing.assert_allclose(quantiles[k], np.exp(raw) if scale.log else raw, rtol=1e-9)


@torch.no_grad()
def test_validation_checks_every_origin_of_its_part_and_no_further() -> None:
    job = task()
    _, (cut,), _ = prepared(waves(), HORIZON, SEASON)
    losses, offset = [], int(job.inputs.offsets)
    outputs, _ = outputs_of(job.module, job.inputs)
    for origin in range(cut.validation - 1, cut.held_out - 1):
        [forecast] = forecasts_from(job.module, job.inputs, outputs, torch.tensor([offset + origin]))
        for k in range(HORIZON):
            later = offset + origin + 1 + k
            if later < offset + cut.held_out and not torch.isnan(job.inputs.truth[later]):
                miss = (job.inputs.truth[later] - job.inputs.filled[offset + origin] - forecast[k]).numpy()
                losses.append(np.maximum(np.array(LEVELS) * miss, (np.array(LEVELS) - 1) * miss).mean())
    assert job.validate() == pytest.approx(np.mean(losses), rel=1e-4)


def test_origins_stay_in_their_parts() -> None:
    inputs = several()
    rows, stops = training_origins(inputs, [30, 7, 2])
    begin = inputs.offsets.tolist()
    assert rows.tolist() == [*range(begin[0] + 2, begin[0] + 29), *range(begin[1] + 2, begin[1] + 6)]
    assert stops.tolist() == [begin[0] + 30] * 27 + [begin[1] + 7] * 4
    few, _ = training_origins(inputs, [30, 7, 2], most=10)
    assert len(few) == 10
    assert few.tolist() == sorted(set(few.tolist()))
    rows, stops = validation_origins(inputs, [(20, 30), (7, 7), (23, 23)])
    assert rows.tolist() == list(range(begin[0] + 19, begin[0] + 29))
    assert stops.tolist() == [30, 7, 23]
    assert not len(validation_origins(inputs, [(40, 40), (7, 7), (23, 23)])[0])
