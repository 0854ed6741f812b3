"""Polyphonic music: the next frame of Bach's chorales, as Bai, Kolter & Koltun 2018 compare nets on it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from reproductions.experiment import Configuration, Curve, Experiment, Measure, Outcome, Published
from reproductions.net import Adam
from tidegate.errors import DataError, MissingExtraError
from tidegate.nn import Recurrent

try:
    from scipy.io import loadmat
except ImportError:  # pragma: no cover - seen only where the extra is not installed
    loadmat = None

FILE = "JSB_Chorales.mat"
KEYS = 88
PARTS = ("traindata", "validdata", "testdata")


@dataclass(frozen=True)
class Settings:
    """Training ends when `patience` epochs in a row have not made the validation better."""

    cell: str
    hidden: int = 200
    rate: float = 1e-3
    dropout: float = 0.4
    clip: float = 1.0
    epochs: int = 100
    patience: int = 10


class Music(nn.Module):
    """A layer between two dropouts, and a logit for each key."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.layer = Recurrent(settings.cell, KEYS, settings.hidden)
        self.drop = nn.Dropout(settings.dropout)
        self.out = nn.Linear(settings.hidden, KEYS)

    def forward(self, frames: Tensor) -> Tensor:
        """`[T, B, 88]` to logits of the same shape."""
        logits: Tensor = self.out(self.drop(self.layer(self.drop(frames))[0]))
        return logits


def run(settings: Settings, seed: int, data: Path | None) -> Outcome:
    """The test's negative log-likelihood of the epoch that is best on validation."""
    assert data is not None
    train, validation, test = load(data / FILE)
    random = np.random.default_rng(seed)
    net = Music(settings)
    update = Adam(net, settings.rate, settings.clip)
    best, kept, curve, since = float("inf"), net.state_dict(), [], 0
    for epoch in range(1, settings.epochs + 1):
        net.train()
        for k in random.permutation(len(train)):
            update(loss(net, train[k]) / (len(train[k]) - 1))
        found = likelihood(net, validation)
        curve.append((float(epoch), round(found, 4)))
        since += 1
        if found < best:
            best, kept, since = found, copy.deepcopy(net.state_dict()), 0
        if since == settings.patience:
            break
    net.load_state_dict(kept)
    return Outcome(round(likelihood(net, test), 4), curve=tuple(curve), also={"validation": round(best, 4)})


def load(path: Path) -> list[list[Tensor]]:
    """Sequences `[T, 1, 88]` to train on, to validate and to test. Raises DataError for another file."""
    if loadmat is None:
        raise MissingExtraError("data", f"Reading {path.name}")
    try:
        parts = loadmat(path)
        return [[frames(piece) for piece in parts[part].flat] for part in PARTS]
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{path} is not the file of the chorales: it holds cell arrays {', '.join(PARTS)} of matrices of 88 columns"
        ) from None


def frames(piece: np.ndarray) -> Tensor:
    """A matrix of zeros and ones as a batch of one."""
    if piece.ndim != 2 or piece.shape[1] != KEYS:
        raise ValueError
    return torch.from_numpy(piece.astype(np.float32)).unsqueeze(1)


def loss(net: Music, piece: Tensor) -> Tensor:
    """The negative log-likelihood of all frames but the first, in nats, summed over frames and keys."""
    return binary_cross_entropy_with_logits(net(piece[:-1]), piece[1:], reduction="sum")


def likelihood(net: Music, pieces: Sequence[Tensor]) -> float:
    """The same a frame, over all pieces together, without dropout."""
    net.eval()
    with torch.no_grad():
        total = sum(loss(net, piece).item() for piece in pieces)
    return total / sum(len(piece) - 1 for piece in pieces)


NATS = Measure("test NLL, nats a frame", ".3f")

CHORALES = Experiment(
    name="chorales",
    title="Polyphonic music: JSB chorales",
    source="Bai, Kolter & Koltun 2018, arXiv:1803.01271",
    about="""\
Chorales of Bach as frames of 88 keys; the task is to predict the next frame. The figure is the negative log-likelihood
of the test frames, summed over keys. One layer of 200 units between two dropouts of 0.4, one piece per update, Adam
1e-3, gradients clipped to norm 1; the epoch is chosen on validation data. A TCN reaches 8.10 in the same paper.""",
    run=run,
    configurations=tuple(
        Configuration(name, Settings(cell), NATS, Published(figure, f"{figure:.2f}"), seeds)
        for name, cell, figure, seeds in (
            ("LSTM", "lstm", 8.45, 3),
            ("GRU", "gru", 8.43, 10),
            ("tanh RNN", "elman", 8.91, 10),
        )
    ),
    quick=(Configuration("GRU of 64 units, 2 epochs", Settings("gru", hidden=64, epochs=2), NATS),),
    curve=Curve("epochs", "validation NLL, nats a frame", log=False),
    files=(FILE,),
    package="scipy",
)
