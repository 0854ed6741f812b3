"""Gers, Schmidhuber & Cummins 2000: strings one after another without a reset, with the nets and training of then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reproductions.cells import blocks_2000
from reproductions.embedded_reber import half_square
from reproductions.experiment import Configuration, Curve, Experiment, Measure, Net, Outcome, Published
from reproductions.net import Descent, LogisticNet
from reproductions.reber import SYMBOLS, Piece, Stream, embedded, right

HIDDEN, BLOCKS = 8, 4
TEST_STREAMS, TEST_STEPS, AT_ONCE = 10, 100_000, 1000
PERIOD = 100  # streams from one decay of the rate to the next
EACH = 1000  # strings from one test to the next


@dataclass(frozen=True)
class Settings:
    """`decay` is what the rate is multiplied by after every 100 streams."""

    forgets: bool
    decay: float = 1.0
    rate: float = 0.5
    width: float = 0.2
    limit: int = 100_000


def run(settings: Settings, seed: int, _: Path | None) -> Outcome:
    """Strings of training until ten streams of 100,000 symbols are predicted without an error.

    In training a stream ends with the string in which the net was wrong, and the next begins with a fresh state.
    """
    random = np.random.default_rng(seed)
    net = made(settings)
    descend = Descent(net, settings.rate)
    state, streams, before, curve = None, 0, 0, []
    for count in range(1, settings.limit + 1):
        symbols, legal = string(random)
        nets, state = net(symbols[:-1], state)
        descend(half_square(torch.sigmoid(nets), symbols[1:]))
        if right(nets.detach().numpy()[:, 0], legal).all():
            state = state.detach()
        else:
            state, streams = None, streams + 1
            descend.rate *= settings.decay if streams % PERIOD == 0 else 1.0
        if count % EACH == 0:
            curve.append((float(count), round(EACH / max(streams - before, 1), 3)))
            before = streams
            if perfect(net, random):
                return Outcome(count, True, tuple(curve))
    return Outcome(None, False, tuple(curve))


def made(settings: Settings) -> LogisticNet:
    """Four blocks of two cells; outputs see the cells and the input, and have a bias."""
    cell = blocks_2000(forgets=settings.forgets)
    kept = {"i.bias", "f.bias", "o.bias"}
    sizes = len(SYMBOLS), HIDDEN, len(SYMBOLS)
    return LogisticNet(cell, sizes, width=settings.width, kept=kept, bias=True, shortcut=True, G=BLOCKS)


def string(random: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """A string and the B of the next one, `[T + 1, 1]`, and what may follow each of its symbols, `[T, 7]`."""
    walk = embedded(random)
    symbols = torch.from_numpy(np.append(walk.symbols, SYMBOLS.index("B"))).unsqueeze(1)
    return symbols, np.concatenate([walk.legal, [[symbol == "B" for symbol in SYMBOLS]]])


def perfect(net: LogisticNet, random: np.random.Generator) -> bool:
    """Whether the net predicts ten new streams without an error."""
    streams, state = [Stream(random) for _ in range(TEST_STREAMS)], None
    for _ in range(TEST_STEPS // AT_ONCE):
        pieces: list[Piece] = [stream.take(AT_ONCE) for stream in streams]
        with torch.no_grad():
            nets, state = net(torch.from_numpy(np.stack([p.symbols for p in pieces], 1)), state)
        if not right(nets.numpy(), np.stack([p.legal for p in pieces], 1)).all():
            return False
    return True


STRINGS = Measure("strings until perfect")

CONTINUAL_REBER_2000 = Experiment(
    name="continual-reber-2000",
    title="Continual embedded Reber grammar, as in 2000",
    source="Gers, Schmidhuber & Cummins 2000",
    about="""\
The same streams, with the network and training of the paper: 4 blocks of 2 cells, SGD 0.5, and in one row the rate is
multiplied by 0.99 after every 100 streams. In training, a stream ends where the network is wrong. A seed is solved when
ten new streams are predicted without an error: ours have 100,000 symbols, those of the paper a million. The paper
updates at every step with a truncated gradient; we update after each string, with the gradient through that string and
the state carried on. At most 100,000 strings.""",
    run=run,
    configurations=(
        Configuration("without forget gates", Settings(False), STRINGS, Published(None, "0 of 100"), 3),
        Configuration("with forget gates, 424 weights", Settings(True), STRINGS, Published(None, "18 of 100"), 10),
        Configuration(
            "with forget gates, rate x 0.99", Settings(True, decay=0.99), STRINGS, Published(None, "62 of 100"), 10
        ),
    ),
    quick=(Configuration("with forget gates, 5,000 strings", Settings(True, limit=5000), STRINGS),),
    nets=(Net(blocks_2000, "Blocks with forget gates; outputs are `sigmoid(W h + V x + b)`."),),
    notes="""\
With forget gates more networks succeed than in the paper. Ours are tested every 1,000 strings on a tenth of the
symbols, and the first passed test counts; they also use the gradient through the whole string. Without forget gates
none succeeds, as in the paper.""",
    curve=Curve("strings", "strings of a stream before an error"),
)
