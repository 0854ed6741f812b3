"""Properties that hold of any cell, tried on random ones."""

import json
import sys

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import SIZES, cells, random_arrays, rates_are_sound
from tidegate.equations import Cell
from tidegate.equations.verify import verify, verify_reads
from tidegate.reference import numpy_ops, step, torch_ops

FEW = settings(max_examples=60)


def tensors(arrays):
    return {k: torch.from_numpy(v.copy()) for k, v in arrays.items()}


@FEW
@given(cells())
def test_json_gives_the_same_cell(made):
    data = json.loads(json.dumps(made.to_json(), allow_nan=False))
    again = Cell.from_json(data)
    assert again.to_json() == made.to_json() == data
    assert again.print() == made.print()
    verify(again.graph)
    verify_reads(again.graph)


@FEW
@given(cells())
def test_rates_and_print(made):
    assert rates_are_sound(made.graph)
    lines = made.print().splitlines()
    assert lines[0] == "cell random_cell"
    for label in made.graph.named:
        assert sum(line.startswith(f"  {label}: ") for line in lines) == 1


@FEW
@given(cells(), st.integers(0, 10**6))
def test_numpy_is_torch(made, seed):
    arrays = random_arrays(made.graph, seed, 2, 3)
    y, new = step(made.graph, *arrays, numpy_ops, SIZES)
    y_torch, new_torch = step(made.graph, *map(tensors, arrays), torch_ops, SIZES)
    for ours, theirs in [(y, y_torch), *((new[k], new_torch[k]) for k in new)]:
        assert ours.shape == tuple(theirs.shape)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-11, atol=1e-13)


@FEW
@given(cells(), st.integers(0, 10**6))
def test_the_read_cell_computes_the_same_bits(made, seed):
    arrays = random_arrays(made.graph, seed, 3)
    first, second = (step(c.graph, *arrays, numpy_ops, SIZES) for c in (made, Cell.from_json(made.to_json())))
    assert np.array_equal(first[0], second[0])
    assert all(np.array_equal(first[1][k], second[1][k]) for k in first[1])


@FEW
@given(cells(), st.integers(0, 10**6))
def test_a_row_does_not_depend_on_its_company(made, seed):
    """A NaN in one row stays there."""
    weights, inputs, states = random_arrays(made.graph, seed, 3)
    alone = step(made.graph, weights, inputs, states, numpy_ops, SIZES)[0]
    inputs["x"] = inputs["x"].copy()
    inputs["x"][1] = np.nan
    company = step(made.graph, weights, inputs, states, numpy_ops, SIZES)[0]
    np.testing.assert_allclose(company[[0, 2]], alone[[0, 2]], rtol=1e-12, atol=1e-14)


def test_reading_leaves_no_profiler_behind():
    before = sys.getprofile()
    cells().example  # noqa: B018 - the strategy is made, no cell is drawn
    assert sys.getprofile() is before
