"""Calibration: intervals hold what they promise on data like that of the calibration."""

import numpy as np
import pytest
import torch

from forecast_cases import LEVELS, prepared, small_net, waves
from tidegate.tasks.forecast.judging.calibration import calibrate, widths

NORMAL = torch.tensor([-1.2816, -0.6745, 0.0, 0.6745, 1.2816])


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_widths_make_intervals_hold_their_share(spread: float) -> None:
    """Quantiles of a normal distribution that is `spread` times as wide as they say; wider at the second step."""
    truth = torch.randn(4000, 2) * spread * torch.tensor([1.0, 1.5])
    found = widths(NORMAL.expand(4000, 2, 5), truth, LEVELS, blocks=4000)
    np.testing.assert_allclose(found[:, [0, 1, 3, 4]], spread * np.array([[1.0] * 4, [1.5] * 4]), rtol=0.12)
    assert found[:, 2].tolist() == [1.0, 1.0]
    inside = (truth.abs() <= found[:, 4] * NORMAL[4]).float().mean(0)
    np.testing.assert_allclose(inside, 0.8, atol=0.03)


def test_a_sample_of_few_independent_origins_gets_wider_intervals() -> None:
    truth = torch.randn(400, 1)
    forecasts = NORMAL.expand(400, 1, 5)
    few, many = (widths(forecasts, truth, LEVELS, blocks) for blocks in (8, 400))
    assert float(few[0, 4]) > 1.1 * float(many[0, 4])


def test_a_step_of_its_own_counts_only_with_many_origins() -> None:
    """With few origins all steps share a factor; missing truths count nowhere."""
    truth = torch.randn(300, 2) * torch.tensor([1.0, 3.0])
    truth[::7] = torch.nan
    few, many = (widths(NORMAL.expand(300, 2, 5), truth, LEVELS, blocks) for blocks in (2, 3000))
    assert float(few[1, 0] / few[0, 0]) < 1.25
    assert float(many[1, 0] / many[0, 0]) > 2.5
    gone = torch.full((5, 2), torch.nan)
    assert torch.equal(widths(NORMAL.expand(5, 2, 5), gone, LEVELS, 5), torch.ones(2, 5))


def test_a_level_without_its_mirror_image_is_scaled_alone() -> None:
    levels = (0.2, 0.5, 0.9)
    forecasts = torch.tensor([-0.84, 0.0, 1.28]).expand(3000, 1, 3)
    found = widths(forecasts, 2 * torch.randn(3000, 1), levels, blocks=3000)
    np.testing.assert_allclose(found[0], [2.0, 1.0, 2.0], rtol=0.1)


def test_calibrating_a_net_looks_at_its_validation_part_alone() -> None:
    _, (cut,), inputs = prepared(waves(), 4, 6)
    net, offset = small_net(inputs), int(inputs.offsets)
    calibrate(net, inputs, [(cut.validation, cut.held_out)], LEVELS)
    first = net.widths.clone()
    inputs.truth[offset + cut.held_out :] = 1e6
    inputs.truth[: offset + cut.validation] = -1e6
    calibrate(net, inputs, [(cut.validation, cut.held_out)], LEVELS)
    assert torch.equal(net.widths, first)
    assert not torch.equal(first, torch.ones_like(first))
