"""Runs in blocks of steps against one run over all of them."""

import pytest
import torch

from tidegate.equations import cell, linear, sigmoid, tanh
from tidegate.nn import native
from tidegate.nn.blocks import Blocks
from tidegate.nn.sequence import Sequence

T, SIZES = 11, {"I": 3, "H": 5, "S": 2}


@cell(states="h c", inputs="x who:S@sequence each:I", source="a test: several kinds of inputs")
def mixed(x, who, each, h, c):
    c = sigmoid(linear("f", x, h, who)) * c + tanh(linear("g", each, h))
    h = tanh(c)
    return h, c


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("steps", [1, 4, 11])
@pytest.mark.parametrize("on_kernels", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_are_one_run(rows: int, steps: int, on_kernels: bool, dtype: torch.dtype) -> None:
    run = Sequence(mixed.graph, SIZES)
    shapes = {"f.x": "HI", "f.h": "HH", "f.who": "HS", "f.bias": "H", "g.each": "HI", "g.h": "HH", "g.bias": "H"}
    weights = {n: torch.randn([SIZES[k] for k in shape], dtype=dtype) for n, shape in shapes.items()}
    x = torch.randn(T, rows, 7, dtype=dtype)[..., 2:5]  # a part of something wider
    each = torch.randn(steps, rows, 3, dtype=dtype)
    again = each.repeat(-(-T // steps), 1, 1)[:T]
    who, begin = torch.randn(rows, 2, dtype=dtype), {n: torch.randn(rows, 5, dtype=dtype) for n in "hc"}
    right, ends = run(weights, {"x": x, "who": who, "each": again}, dict(begin), begin)
    state, found = {n: s.clone() for n, s in begin.items()}, torch.empty(T, rows, 5, dtype=dtype)
    blocks = Blocks(run, steps, {"each"})
    if on_kernels:
        course = blocks(weights, {"x": x, "who": who, "each": each}, state, found)
    else:
        with native.disabled():
            course = blocks(weights, {"x": x, "who": who, "each": each}, state, found)
    for start in range(0, T, steps):
        course(start, min(start + steps, T))
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(state, ends)
