"""The blocks of sums over steps: where a sequence may be cut, they are those of its parts."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.native.compile.arguments import CallShape
from tidegate.native.compile.gemm import GRADIENT_BLOCK
from tidegate.native.run.row_order import BLOCK_STEPS, RowOrder, ragged, whole

Place = tuple[int, int]


def table(lengths: list[int], steps: int, threads: int = 1) -> RowOrder:
    return ragged(np.array(lengths, np.int64), CallShape(steps, len(lengths), threads, False, {}, 8), backwards=False)


def blocks(tables: RowOrder, steps: int) -> list[list[Place]]:
    """The step and row of each number in each block."""
    places = tables.place.reshape(steps, -1)
    every = [places[divmod(int(k), places.shape[1])] for k in tables.valid]
    return [[divmod(int(p), places.shape[1]) for p in every[first : first + n]] for first, n in tables.blocks]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), st.integers(1, 3))
def test_the_blocks_of_the_parts_are_those_of_the_whole(lengths: list[int], threads: int) -> None:
    found = []
    for start, stop in reversed([*pairwise([0, BLOCK_STEPS, 3 * BLOCK_STEPS, 100])]):
        part = table([min(max(n - start, 0), stop - start) for n in lengths], stop - start)
        found += [[(t + start, row) for t, row in block] for block in blocks(part, stop - start)]
    assert found == blocks(table(lengths, 100, threads), 100)


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 100])
@pytest.mark.parametrize("steps", [1, 32, 33, 70])
def test_rows_of_one_length_are_blocked_as_if_lengths_said_so(steps: int, batch: int) -> None:
    tables = whole(steps, batch, backwards=False)
    assert blocks(tables, steps) == blocks(table([steps] * batch, steps), steps)
    assert sorted(place for block in blocks(tables, steps) for place in block) == [*np.ndindex(steps, batch)]
    assert tables.blocks[:, 1].max() <= GRADIENT_BLOCK


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])
def test_nothing_has_no_blocks(steps: int, batch: int) -> None:
    assert whole(steps, batch, backwards=False).blocks.shape == (0, 2)
    assert table([0, 0], 40).blocks.shape == (0, 2)
