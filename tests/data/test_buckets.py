"""Batches of similar length: every row once an epoch, little padding, the same batches after a resume."""

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.data import BucketBatches
from tidegate.errors import ArgumentError


@given(st.lists(st.integers(0, 50), min_size=1, max_size=70), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5))
def test_each_row_is_in_one_batch_of_an_epoch(lengths: list[int], size: int, pool: int, seed: int) -> None:
    batches = BucketBatches(lengths, size, seed=seed, pool=pool)
    for epoch in range(3):
        found = list(islice(batches, len(batches)))
        assert batches.epoch == epoch
        assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
        assert all(1 <= len(batch) <= size for batch in found)
        assert len(found) == sum(
            -(-min(pool * size, len(lengths) - k) // size) for k in range(0, len(lengths), pool * size)
        )


def padding(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """The share of padded steps."""
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    return float(1 - lengths.sum() / padded)


def test_little_is_padding() -> None:
    lengths = np.random.default_rng(3).geometric(0.02, size=4000)
    few, many = (BucketBatches(lengths, 32, pool=pool) for pool in (1, 50))
    shares = [padding(lengths, list(islice(batches, len(batches)))) for batches in (few, many)]
    assert shares[0] > 0.6
    assert shares[1] < 0.12


def test_the_order_is_random_and_follows_from_the_seed() -> None:
    lengths = np.arange(400) % 37
    orders = [[batch.tolist() for batch in islice(BucketBatches(lengths, 8, seed=seed), 120)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0][:50] != orders[0][50:100]  # of the next epoch
    longest = [int(lengths[batch].max()) for batch in orders[0][:50]]
    assert longest != sorted(longest)


@pytest.mark.parametrize("done", [0, 3, 12, 13, 14, 40])
def test_it_goes_on_where_it_was(done: int) -> None:
    lengths = np.arange(100)
    first, second = BucketBatches(lengths, 8, seed=4), BucketBatches(lengths, 8, seed=4)
    for _ in range(done):
        next(first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(30):
        assert np.array_equal(next(first), next(second))


@pytest.mark.parametrize(
    ("lengths", "size", "sentence"),
    [
        ([], 3, r"lengths must be whole numbers, one a row and at least one, got \[\]"),
        ([1.5], 3, r"lengths must be whole numbers, one a row and at least one, got \[1.5\]"),
        ([3, -2], 3, "lengths must not be negative, got -2 in row 1"),
        ([3], 0, "batch_size must be a whole number of 1 or more, got 0"),
    ],
)
def test_what_it_cannot_use(lengths: list[int], size: int, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        BucketBatches(lengths, size)
