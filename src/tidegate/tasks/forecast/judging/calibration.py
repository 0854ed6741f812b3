"""Calibration: distances of the quantiles from the median are scaled until intervals hold what they promise.

Split conformal prediction (Vovk et al. 2005; as in Romano, Patterson & Candes 2019, arXiv:1905.03222) on the
validation part, for each step ahead: an interval between two quantiles is scaled by the quantile, at the interval's
nominal coverage, of how far the truth was from the median in units of the distance that the net gave.
"""

import numpy as np
import torch
from torch import Tensor

from tidegate.tasks.forecast.model.inputs import ForecastInputs
from tidegate.tasks.forecast.model.net import ForecastNet
from tidegate.tasks.forecast.model.rolling import forecasts_from, outputs_of
from tidegate.tasks.forecast.model.task import validation_origins

_POOLED = 20.0  # independent origins at which a step's or level's own factor counts as much as that of all together
_NARROWEST, _WIDEST = 0.25, 4.0


@torch.no_grad()
def calibrate(
    net: ForecastNet, inputs: ForecastInputs, spans: list[tuple[int, int]], levels: tuple[float, ...]
) -> None:
    """Set the net's widths from the validation parts; `spans` are as for `ForecastTask`."""
    rows, stops = validation_origins(inputs, spans)
    outputs, _ = outputs_of(net, inputs, stops)
    series = torch.searchsorted(inputs.offsets, rows, right=True) - 1
    net.widths.fill_(1.0)
    forecasts = forecasts_from(net, inputs, outputs, rows)
    targets = inputs.targets(rows, (inputs.offsets + stops)[series])
    blocks = sum(max(1, (stop - first) // inputs.recipe.horizon) for first, stop in spans if stop > first)
    net.widths.copy_(widths(forecasts, targets, levels, blocks))


def widths(forecasts: Tensor, targets: Tensor, levels: tuple[float, ...], blocks: int) -> Tensor:
    """Factors `[K, Q]` from quantiles `[N, K, Q]` and truths `[N, K]` of origins that are worth `blocks` independent
    ones; NaN is a missing truth. A level and its mirror image share a factor; with few origins, all steps and levels
    nearly do."""
    found, truth = forecasts.numpy().astype(float), targets.numpy().astype(float)
    middle = levels.index(0.5)
    out = np.ones(found.shape[1:])
    for k, level in enumerate(levels):
        if k != middle:
            mirror = next((j for j, other in enumerate(levels) if abs(level + other - 1) < 1e-9), k)
            low, high = sorted((k, mirror))
            below, above = (np.abs(found[..., j] - found[..., middle]) for j in (low, high))
            missed = truth - found[..., middle]
            ratio = np.abs(missed) / np.maximum(np.where(missed < 0, below, above), 1e-12)
            out[:, k] = _factors(ratio, abs(2 * level - 1), blocks)
    sides = [k for k in range(len(levels)) if k != middle]
    if sides:
        common = np.exp(np.log(out[:, sides]).mean(1, keepdims=True))
        out[:, sides] = out[:, sides] ** _own(blocks) * common ** (1 - _own(blocks))
    return torch.from_numpy(out.clip(_NARROWEST, _WIDEST)).float()


def _own(blocks: int) -> float:
    """How much the factor of one step or level counts beside that of all together."""
    return blocks / (blocks + _POOLED)


def _factors(ratio: np.ndarray, coverage: float, blocks: int) -> np.ndarray:
    level = min(1.0, coverage * (1 + 1 / blocks))  # the conformal quantile of a finite sample
    known = ratio[~np.isnan(ratio)]
    if not len(known):
        return np.ones(ratio.shape[1])
    pooled = max(float(np.quantile(known, level)), 1e-3)
    own = [np.quantile(column[~np.isnan(column)], level) if (~np.isnan(column)).any() else pooled for column in ratio.T]
    return np.maximum(own, 1e-3) ** _own(blocks) * pooled ** (1 - _own(blocks))
