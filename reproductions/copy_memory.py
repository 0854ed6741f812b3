"""Tallec & Ollivier 2018: copy memory, and what chrono initialisation does for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from reproductions.experiment import Configuration, Curve, Experiment, Measure, Net, Outcome, Published
from reproductions.net import LogisticNet
from tidegate.cells import get
from tidegate.nn import init

KINDS, COPIED, BLANK, SIGN = 8, 10, 0, 9  # symbols 1 to 8 are to be copied, after the sign
SOLVED, EACH = 0.05, 50


@dataclass(frozen=True)
class Settings:
    """`chrono` draws the biases of forget and input gates for lags up to all steps; otherwise the forget bias is 1."""

    chrono: bool
    lag: int = 100
    batches: int = 5000
    rows: int = 32
    hidden: int = 128
    rate: float = 1e-3
    smoothing: float = 0.9


def run(settings: Settings, seed: int, _: Path | None) -> Outcome:
    """The mean cross-entropy of the last 50 batches, in nats a step."""
    random = np.random.default_rng(seed)
    steps = settings.lag + 2 * COPIED
    start = ("torch_uniform", init.Chrono(steps) if settings.chrono else init.ForgetBias(1.0))
    net = LogisticNet(get("lstm"), (SIGN + 1, settings.hidden, SIGN + 1), bias=True, init=start)
    optimiser = torch.optim.RMSprop(net.parameters(), lr=settings.rate, alpha=settings.smoothing)
    losses, curve = [], []
    for count in range(1, settings.batches + 1):
        x, wanted = map(torch.from_numpy, batch(random, settings.lag, settings.rows))
        loss = cross_entropy(net(x)[0].flatten(0, 1), wanted.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if count % EACH == 0:
            curve.append((float(count), float(f"{np.mean(losses[-EACH:]):.4g}")))
    return Outcome(curve[-1][1], curve[-1][1] < SOLVED, tuple(curve))


def batch(random: np.random.Generator, lag: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, `[lag + 20, rows]`: ten symbols, blanks, the sign, ten blanks; blanks, then the ten."""
    x = np.full((lag + 2 * COPIED, rows), BLANK, dtype=np.int64)
    wanted = x.copy()
    x[:COPIED] = wanted[-COPIED:] = random.integers(1, KINDS + 1, size=(COPIED, rows))
    x[-COPIED - 1] = SIGN
    return x, wanted


def memoryless(lag: int) -> float:
    """The cross-entropy of one who knows when to answer, and guesses."""
    return COPIED * math.log(KINDS) / (lag + 2 * COPIED)


NATS = Measure("mean cross-entropy at the end", ".4f")

COPY_MEMORY = Experiment(
    name="copy-memory",
    title="Copy memory and chrono initialisation",
    source="Tallec & Ollivier 2018, arXiv:1804.11188",
    about=f"""\
Ten symbols out of 8, 99 blanks, a sign, ten blanks; after the sign the ten symbols must be repeated. Waiting and then
guessing gives a cross-entropy of 10 ln 8 / 120 = {memoryless(100):.5f} nats per step [derived]. LSTM of 128 units,
batches of 32, RMSprop 1e-3 (alpha 0.9), 5,000 batches; the figure is the mean of the last 50, and a seed is solved if
it is below 0.05. Chrono draws the bias of the forget gate as log u, u uniform on [1, 119], and gives the input gate the
negative; everything else starts as torch's LSTM.""",
    run=run,
    configurations=(
        Configuration("chrono", Settings(True), NATS, Published(None, "below 0.05"), 3),
        Configuration(
            "forget bias 1", Settings(False), NATS, Published(memoryless(100), "0.1733, without memory", "derived"), 3
        ),
    ),
    quick=(Configuration("chrono, T 20, 64 units, 500 batches", Settings(True, lag=20, batches=500, hidden=64), NATS),),
    nets=(Net(get("lstm"), "The LSTM:"),),
    notes="""\
No seed reaches 0.05 within 5,000 batches. All networks improve on the loss without memory and still improve at the end;
an advantage of chrono does not show by then. Single trials of other interpretations did not change that: with gradients
clipped to norm 1 chrono was at 0.146 after 4,000 batches, and with Glorot's matrices, or with biases for lags up to
150, it was as far as this after 1,500.""",
    curve=Curve("batches", "cross-entropy, nats a step"),
)
