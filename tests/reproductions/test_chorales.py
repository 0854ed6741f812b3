"""The chorales: reading the file, the likelihood, and a short run."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from reproductions import chorales
from reproductions.chorales import Music, Settings
from tidegate.errors import DataError, MissingExtraError

KEYS = 88


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file like that of the chorales, with three, two and two pieces of different lengths."""
    io = pytest.importorskip("scipy.io")
    random = np.random.default_rng(1)
    parts = {}
    for part, lengths in (("traindata", (5, 9, 7)), ("validdata", (6, 4)), ("testdata", (8, 3))):
        cells = np.empty((1, len(lengths)), dtype=object)
        for k, length in enumerate(lengths):
            cells[0, k] = (random.random((length, KEYS)) < 0.05).astype(np.uint8)
        parts[part] = cells
    io.savemat(tmp_path / "JSB_Chorales.mat", parts)
    return tmp_path


def test_pieces(folder: Path) -> None:
    train, validation, test = chorales.load(folder / "JSB_Chorales.mat")
    assert [[len(piece) for piece in part] for part in (train, validation, test)] == [[5, 9, 7], [6, 4], [8, 3]]
    assert train[1].shape == (9, 1, KEYS)
    assert train[1].dtype == torch.float32
    random = np.random.default_rng(1)
    assert (train[0][:, 0].numpy() == (random.random((5, KEYS)) < 0.05)).all()


def test_another_file(folder: Path) -> None:
    said = (
        "is not the file of the chorales: it holds cell arrays traindata, validdata, testdata of matrices of 88 columns"
    )
    other = folder / "other.mat"
    other.write_bytes(b"something else, long enough to look like a header" * 5)
    with pytest.raises(DataError) as caught:
        chorales.load(other)
    assert str(caught.value) == f"{other} {said}"


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chorales, "loadmat", None)
    with pytest.raises(MissingExtraError) as caught:
        chorales.load(Path("music.mat"))
    assert str(caught.value) == "Reading music.mat needs the extra 'data': pip install 'tidegate[data]'"


def test_the_likelihood_of_even_chances() -> None:
    net = Music(Settings("gru", hidden=6))
    with torch.no_grad():
        net.out.weight.zero_()
        net.out.bias.zero_()
    pieces = [torch.bernoulli(torch.full((n, 1, KEYS), 0.1)) for n in (4, 9)]
    assert chorales.likelihood(net, pieces) == pytest.approx(KEYS * math.log(2), rel=1e-6)
    with torch.no_grad():
        net.out.bias.fill_(math.log(1 / 9))
    on, off = (sum(int((p[1:] == v).sum()) for p in pieces) for v in (1, 0))
    wanted = -(on * math.log(0.1) + off * math.log(0.9)) / 11
    assert chorales.likelihood(net, pieces) == pytest.approx(wanted, rel=1e-6)


def test_a_short_run(folder: Path) -> None:
    settings = Settings("gru", hidden=8, epochs=4, rate=0.01)
    outcomes = []
    for _ in range(2):
        torch.manual_seed(5)
        outcomes.append(chorales.run(settings, 5, folder))
    assert outcomes[0] == outcomes[1]
    values = [y for _, y in outcomes[0].curve]
    assert len(values) == 4
    assert values[-1] < values[0] < 70
    assert outcomes[0].also == {"validation": min(values)}
    assert outcomes[0].solved is None


def test_training_ends_when_validation_does_not_get_better(folder: Path) -> None:
    torch.manual_seed(5)
    outcome = chorales.run(Settings("elman", hidden=8, epochs=50, rate=0.0, patience=3), 5, folder)
    assert len(outcome.curve) == 4
