"""Batches of sequences of similar length, so that little of a batch is padding."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from tidegate.equations.values import whole
from tidegate.errors import ArgumentError

POOL = 50  # batches that are sorted by length together


class BucketBatches:
    """Batches of row numbers, without end; the rows of a batch have similar lengths.

        batches = BucketBatches([len(text) for text in texts], 32, seed=1)
        rows = next(batches)                                   # int64 [B], B <= 32

    Each epoch shuffles all rows anew, sorts pools of `pool` batches by length, cuts them into batches and shuffles
    these, so that each row is in one batch of an epoch. The order follows from the seed and the number of the epoch
    alone: `state_dict()` is two numbers, and after `load_state_dict` the same batches follow. A larger pool has less
    padding, and batches that are less random. Raises ArgumentError for no lengths, negative ones, or a size below 1.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, batch_size: int, *, seed: int = 0, pool: int = POOL
    ) -> None:
        self.lengths = np.asarray(lengths)
        if self.lengths.ndim != 1 or not len(self.lengths) or self.lengths.dtype.kind not in "iu":
            raise ArgumentError(f"lengths must be whole numbers, one a row and at least one, got {lengths!r:.80}")
        if self.lengths.min() < 0:
            raise ArgumentError(
                f"lengths must not be negative, got {self.lengths.min()} in row {self.lengths.argmin()}"
            )
        self.batch_size, self.pool = _count("batch_size", batch_size), _count("pool", pool)
        self.seed = seed
        self.epoch, self.position = 0, 0
        self._order = self._batches()

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self._order)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> np.ndarray:
        """The rows of the next batch, int64 `[B]`; after the last of an epoch follows the first of the next."""
        if self.position == len(self._order):
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self._batches()
        self.position += 1
        return self._order[self.position - 1]

    def state_dict(self) -> dict[str, Any]:
        """The position: the number of the epoch, and of the next batch in it."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position that `state_dict` gave, for the same lengths, sizes and seed."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self._batches()

    def _batches(self) -> list[np.ndarray]:
        """All batches of this epoch, in order."""
        generator = np.random.default_rng([self.seed, self.epoch])
        rows, width = generator.permutation(len(self.lengths)), self.pool * self.batch_size
        pools = (rows[start : start + width] for start in range(0, len(rows), width))
        sorted_pools = [pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools]
        batches = [
            pool[start : start + self.batch_size]
            for pool in sorted_pools
            for start in range(0, len(pool), self.batch_size)
        ]
        return [batches[number] for number in generator.permutation(len(batches))]


def _count(name: str, value: object) -> int:
    number = whole(value)
    if number is None or number < 1:
        raise ArgumentError(f"{name} must be a whole number of 1 or more, got {value!r}")
    return number
