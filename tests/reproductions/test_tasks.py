"""The data of the other experiments: sequences, targets and criteria."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from reproductions import adding, chaotic, copy_memory, distractors


def test_the_adding_problem() -> None:
    random, firsts = np.random.default_rng(1), []
    lengths = set()
    for _ in range(3000):
        pairs, target = adding.sequence(random, 40)
        values, marks = pairs.astype(float).T
        marked = np.flatnonzero(marks == 1.0)
        assert len(marked) == 2
        assert marked[0] < 10
        assert marked[1] < 19
        assert set(np.flatnonzero(marks == -1.0)) == {0, len(pairs) - 1} - set(marked)
        assert (np.abs(values) <= 1.0).all()
        assert target == pytest.approx(0.5 + sum(values[k] for k in marked) / 4)
        assert (values[0] == 0.0) == (0 in marked)
        lengths.add(len(pairs))
        firsts.append(0 in marked)
    assert lengths == set(range(40, 45))
    assert np.mean(firsts) == pytest.approx(0.1 + 0.9 / 18, abs=0.02)


def test_when_the_adding_problem_is_solved() -> None:
    recent = np.full(2000, 0.0099)
    assert adding.solved(recent)
    recent[7] = 0.0401
    assert not adding.solved(recent)
    assert not adding.solved(np.full(2000, 0.0101))


def test_curves_are_thinned_and_keep_their_end() -> None:
    curve = [(float(k), 1.0 / k) for k in range(1, 251)]
    kept = adding.thinned(curve)
    assert len(kept) == 84
    assert kept[-1] == curve[-1]
    assert set(kept) <= set(curve)
    assert adding.thinned([]) == ()


def test_distractors() -> None:
    random, further, seen = np.random.default_rng(2), [], set()
    for _ in range(3000):
        symbols, first = distractors.sequence(random, 7)
        assert (symbols[0], symbols[1], symbols[-1]) == (9, 7 + first, 10)
        assert set(symbols[2:-1]) <= set(range(7))
        seen |= set(symbols.tolist())
        further.append(len(symbols) - 10)
    assert seen == set(range(11))
    assert min(further) == 0
    assert np.mean(further) == pytest.approx(9.0, rel=0.06)
    assert np.mean([k == 0 for k in further]) == pytest.approx(0.1, abs=0.02)


def test_copy_memory() -> None:
    x, wanted = copy_memory.batch(np.random.default_rng(3), 30, 5)
    assert x.shape == wanted.shape == (50, 5)
    assert (x[10:39] == 0).all()
    assert (x[39] == 9).all()
    assert (x[40:] == 0).all()
    assert (wanted[:40] == 0).all()
    assert (wanted[40:] == x[:10]).all()
    assert set(x[:10].ravel()) == set(range(1, 9))


def test_one_without_memory_in_copy_memory() -> None:
    _, wanted = copy_memory.batch(np.random.default_rng(4), 100, 6)
    logits = torch.full((120, 6, 10), -1e9)
    logits[:110, :, 0] = 0.0
    logits[110:, :, 1:9] = 0.0
    loss = cross_entropy(logits.flatten(0, 1).double(), torch.from_numpy(wanted).flatten())
    assert loss.item() == pytest.approx(copy_memory.memoryless(100), rel=1e-12)
    assert copy_memory.memoryless(100) == pytest.approx(10 * math.log(8) / 120)
    assert round(copy_memory.memoryless(100), 5) == 0.17329


def test_mean_cosines_of_all_pieces_and_of_the_early_ones() -> None:
    whole, early = chaotic.COSINE, f"{chaotic.COSINE}, first 3,000 steps"
    assert chaotic.cosines({0: 0.2, 14: 0.4, 15: 0.9}) == {whole: 0.5, early: 0.3}
    assert chaotic.cosines({20: 0.7}) == {whole: 0.7}
    assert chaotic.cosines({}) == {}
