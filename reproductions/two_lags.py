"""Two dependencies in a random stream: what a gradient that is cut off after five steps cannot learn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reproductions.experiment import Configuration, Curve, Experiment, Measure, Net, Outcome, Published
from reproductions.online_net import OnlineNet
from tidegate.cells import get
from tidegate.gradients import rule_from_text

NEAR, FAR = 3, 8
POINTS = 100  # of a curve, each the mean over as many steps
LAST = 10  # points whose mean is the figure


@dataclass(frozen=True)
class Settings:
    """`lanes` streams of `steps` steps side by side make one update a step; solved is what ends between two bounds."""

    rule: str
    hidden: int
    lanes: int = 1
    steps: int = 1_000_000
    rate: float = 0.003
    above: float = 0.0
    below: float = 0.47


def run(settings: Settings, seed: int, _: Path | None) -> Outcome:
    """The mean cross-entropy of the last tenth of the stream, in nats."""
    random = np.random.default_rng(seed)
    inputs, targets = (pairs(bits) for bits in stream(random, settings.steps, settings.lanes))
    net = OnlineNet(get("elman"), (2, settings.hidden, 2), rule_from_text(settings.rule), settings.lanes)
    losses = torch.zeros(settings.steps)
    for t in range(settings.steps):
        logs = torch.log_softmax(net.step(inputs[t]), -1)
        losses[t] = (logs * targets[t]).sum()
        gradients = net.gradients((logs.exp() - targets[t]) / settings.lanes)
        with torch.no_grad():
            torch._foreach_add_(net.weights, gradients, alpha=-settings.rate)
    means = (-losses / settings.lanes).reshape(POINTS, -1).mean(1).tolist()
    figure = fmean(means[-LAST:])
    curve = tuple((settings.steps * (k + 1) / POINTS, round(mean, 4)) for k, mean in enumerate(means))
    return Outcome(round(figure, 5), settings.above < figure < settings.below, curve)


def stream(random: np.random.Generator, steps: int, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits x and y `[steps, lanes]`; those that the first y depend on came before the stream begins."""
    x = random.integers(0, 2, size=(steps + FAR, lanes))
    near, far = x[FAR - NEAR : FAR - NEAR + steps], x[:steps]
    return x[FAR:], (random.random((steps, lanes)) < probability(near, far)).astype(int)


def probability(near: Any, far: Any) -> Any:
    """That y is 1, given x three and eight steps ago; linear, so means of them give that of the probability."""
    return 0.5 + 0.5 * near - 0.25 * far


def pairs(bits: np.ndarray) -> Tensor:
    """Each bit b as (b, 1 - b)."""
    return torch.from_numpy(np.stack([bits, 1 - bits], -1).astype(np.float32))


def floor(*known: int) -> float:
    """The cross-entropy of the best prediction of one who sees x at these lags only, in nats."""
    seen = [(0.0, 1.0) if lag in known else (0.5,) for lag in (NEAR, FAR)]
    return fmean(entropy(probability(near, far)) for near, far in product(*seen))


def entropy(p: float) -> float:
    """Of a bit that is 1 with this probability, in nats."""
    return -sum(q * math.log(q) for q in (p, 1 - p) if q)


NATS = Measure("cross-entropy of the last tenth, nats", ".4f")
WHOLE = Published(floor(NEAR, FAR), f"floor {floor(NEAR, FAR):.5f}; below 0.47", "derived")
CUT = Published(floor(NEAR), f"floor without t - 8 {floor(NEAR):.5f}; 0.50 to 0.53", "derived")
LARGE = 32  # units, with which a seed takes more than a minute
LENGTHS = {"one stream of 1,000,000 steps": (1, 1_000_000, 0.003), "10 streams of 100,000": (10, 100_000, 0.03)}


def configured(rule: str, hidden: int, name: str) -> list[Configuration]:
    """A rule with streams of both lengths."""
    above, below, said = (0.5, 0.53, CUT) if rule.startswith("truncated") else (0.0, 0.47, WHOLE)
    return [
        Configuration(f"{name}, {length}", Settings(rule, hidden, lanes, steps, rate, above, below), NATS, said, seeds)
        for length, (lanes, steps, rate) in LENGTHS.items()
        for seeds in (10 if lanes > 1 and hidden < LARGE else 3,)
    ]


TWO_LAGS = Experiment(
    name="two-lags",
    title="Two dependencies in a random stream",
    source="Pitis 2016 and Marschall, Cho & Savin 2020, arXiv:1907.02649",
    about=f"""\
The inputs are random bits x. A target y is 1 with probability 0.5 + 0.5 x(t - 3) - 0.25 x(t - 8). The lowest
cross-entropy in nats is {floor():.5f} without memory, {floor(NEAR):.5f} if x(t - 3) is remembered, {floor(FAR):.5f} if
x(t - 8) is, and {floor(NEAR, FAR):.5f} with both [derived]. A tanh RNN reads (x, 1 - x); a linear readout and a softmax
give the probability of (y, 1 - y). Every step is an update by plain gradient descent in one pass, with rate 0.003, or
0.03 for the mean of 10 streams. The figure is the mean over the last tenth of the pass. A seed is solved if it ends
within the bounds in the table. Truncated BPTT(5) runs five steps back from each step and never sees the input of eight
steps before; with more units an untrained network carries it along by itself.""",
    run=run,
    configurations=(
        *configured("rtrl", 16, "exact RTRL, H 16"),
        *configured("rtrl", 32, "exact RTRL, H 32"),
        *configured("truncated:1,5", 4, "truncated BPTT(5), H 4"),
    ),
    quick=(Configuration("exact RTRL, H 16, 10 streams of 5,000", Settings("rtrl", 16, 10, 5000, 0.03), NATS),),
    nets=(Net(get("elman"), "The tanh RNN:"),),
    notes="""\
Exact RTRL ends within 0.01 of the lowest value with both inputs remembered, and truncated BPTT(5) at the lowest value
with x(t - 3) alone.""",
    curve=Curve("steps", "cross-entropy, nats", log=False),
)
