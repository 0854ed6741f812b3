"""Rules that learn at every step, on a chaotic series: how well they predict, and where their gradients point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from tidegate.cells import get
from tidegate.experiments.experiment import Configuration, Curve, Experiment, Measure, Outcome, Published
from tidegate.experiments.online_net import OnlineNet
from tidegate.gradients import KFRTRL, RTRL, UORO, Rule, online, rule_from_text

LANES = 8
PIECE = 200  # steps from reset to reset, whose mean loss is a point of the curve
LAST = 5  # points whose mean is the figure


@dataclass(frozen=True)
class Settings:
    """In one of `every` pieces the gradients are held against the exact ones, from which nothing is learned."""

    rule: str
    hidden: int = 64
    steps: int = 15_000
    rate: float = 1e-3
    every: int = 5


def run(settings: Settings, seed: int, _: Path | None) -> Outcome:
    """The mean squared error of the last five pieces, in variances of the series; `also` the mean cosine."""
    series = torch.from_numpy(standardised(henon(settings.steps + 1)).astype(np.float32)).unsqueeze(-1)
    net = OnlineNet(get("elman"), (1, settings.hidden, 1), made(settings.rule, seed), LANES)
    optimiser = torch.optim.Adam(net.weights, lr=settings.rate)
    means, cosines = [], []
    for number in range(settings.steps // PIECE):
        net.reset()
        exact = None if number % settings.every else Exact(net)
        begin, losses = number * PIECE, []
        for x, wanted in pairwise(series[begin : begin + PIECE + 1]):
            error = net.step(x) - wanted
            losses.append(error.square().mean().item())
            slopes = net.slopes(2 * error / LANES)
            if exact is not None:
                cosines.append(exact.cosine(x, 2 * error / LANES, slopes))
            for weight, slope in zip(net.weights, slopes, strict=True):
                weight.grad = slope
            optimiser.step()
        means.append(fmean(losses))
    curve = tuple((PIECE * (k + 1.0), float(f"{mean:.4g}")) for k, mean in enumerate(means))
    return Outcome(round(fmean(means[-LAST:]), 6), None, curve, {COSINE: round(fmean(cosines), 4)})


class Exact:
    """Exact real-time recurrent learning of the same layer, beside another rule from a reset on."""

    def __init__(self, net: OnlineNet) -> None:
        self.net, self.learner = net, online(net.layer, RTRL())
        self.memory = self.learner.begin(LANES)

    def cosine(self, x: Tensor, d: Tensor, slopes: list[Tensor]) -> float:
        """That between the exact gradient and the layer's part of another, after one more step."""
        with torch.no_grad():
            _, self.memory = self.learner.step(self.memory, x)
            exact = self.learner.gradient(self.memory, d @ self.net.readout.weight)
            ours, theirs = (torch.cat([g.flatten() for g in part]) for part in (slopes[: len(exact)], exact.values()))
            return torch.cosine_similarity(ours, theirs, dim=0).item()


def made(rule: str, seed: int) -> Rule:
    """The rule of this text; one that draws signs begins them with the seed."""
    return {"uoro": UORO(seed=seed), "kfrtrl": KFRTRL(seed=seed)}.get(rule) or rule_from_text(rule)


def henon(steps: int) -> np.ndarray:
    """x' = 1 - 1.4 x² + y, y' = 0.3 x in lanes `[T, 8]` that start at x = 0.1, 0.11, ... and y = 0."""
    x, y = 0.1 + 0.01 * np.arange(LANES), np.zeros(LANES)
    found = []
    for _ in range(steps):
        found.append(x)
        x, y = 1 - 1.4 * x * x + y, 0.3 * x
    return np.stack(found)


def standardised(series: np.ndarray) -> np.ndarray:
    """With mean 0 and variance 1 over all lanes."""
    return (series - series.mean()) / series.std()


COSINE = "mean cosine with the exact gradient"
