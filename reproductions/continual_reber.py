"""Gers, Schmidhuber & Cummins 2000, in short: strings one after another without a reset, with today's training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from reproductions.experiment import Configuration, Curve, Experiment, Measure, Net, Outcome, Published
from reproductions.net import Adam, LogisticNet
from reproductions.reber import SYMBOLS, Piece, Stream
from tidegate.cells import get
from tidegate.cells.transforms import variant

TESTED = 100  # chunks at the end, after training
FORGETS = get("lstm")
KEEPS = variant(FORGETS, "lstm_that_keeps", "the LSTM without its forget gate", f=1.0)


@dataclass(frozen=True)
class Settings:
    """`forgets` says whether there are forget gates."""

    forgets: bool
    chunks: int = 2000
    steps: int = 75
    hidden: int = 12
    rate: float = 0.01
    clip: float = 5.0


def run(settings: Settings, seed: int, _: Path | None) -> Outcome:
    """The share of outer symbols that are right on a stream after training."""
    stream = Stream(np.random.default_rng(seed))
    sizes = len(SYMBOLS), settings.hidden, len(SYMBOLS)
    net = LogisticNet(FORGETS if settings.forgets else KEEPS, sizes, bias=True)
    update, state, curve, rights = Adam(net, settings.rate, settings.clip), None, [], []
    for count in range(1, settings.chunks + TESTED + 1):
        piece = stream.take(settings.steps)
        nets, state = net(torch.from_numpy(piece.symbols).unsqueeze(1), state)
        state = state.detach()
        rights.append(outer_right(nets.detach().numpy()[:, 0], piece))
        if count <= settings.chunks:
            update(cross_entropy(nets.flatten(0, 1), torch.from_numpy(piece.following)))
            if count % TESTED == 0:
                curve.append((float(count), round(float(np.concatenate(rights[-TESTED:]).mean()), 4)))
    return Outcome(round(float(np.concatenate(rights[-TESTED:]).mean()), 4), curve=tuple(curve))


def outer_right(nets: np.ndarray, piece: Piece) -> np.ndarray:
    """For each outer symbol that returns, whether it is more active than the other one of T and P."""
    both = nets[piece.outer][:, [SYMBOLS.index(symbol) for symbol in "TP"]]
    found: np.ndarray = (both[:, 0] > both[:, 1]) == (piece.following[piece.outer] == SYMBOLS.index("T"))
    return found


SHARE = Measure("share of outer symbols that are right", ".3f")

CONTINUAL_REBER = Experiment(
    name="continual-reber",
    title="Continual embedded Reber grammar, in short",
    source="Gers, Schmidhuber & Cummins 2000, with today's training",
    about="""\
Embedded Reber strings one after another, without marked ends: the state is never reset. 12 cells, softmax, Adam 0.01,
clip 5, 2,000 chunks of 75 steps with the state carried on. The figure is the share of strings, in the next 100 chunks,
for which the returning outer symbol is more likely than the other one; guessing gives 0.5. Without a forget gate a cell
never loses what it has stored.""",
    run=run,
    configurations=(
        Configuration("LSTM with forget gates", Settings(True), SHARE, Published(0.997, "0.997", "second")),
        Configuration("LSTM without", Settings(False), SHARE, Published(0.55, "0.55", "second")),
    ),
    quick=(Configuration("LSTM with forget gates, 1,000 chunks", Settings(True, chunks=1000), SHARE),),
    nets=(Net(KEEPS, "The LSTM whose forget gate is 1:"),),
    curve=Curve("chunks", "share of outer symbols right", log=False),
)
