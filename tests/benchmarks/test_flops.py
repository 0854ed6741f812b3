"""Operations counted from graphs, against the formulas that papers give."""

from dataclasses import replace

import pytest

from benchmark_rows import row, times
from benchmarks.cells import OWN
from benchmarks.flops import work
from benchmarks.limits import Limits, measured
from benchmarks.run import with_best_limit
from benchmarks.shapes import Shape
from tidegate.cells import CELLS
from tidegate.equations import Cell, cell, linear, mean, sigmoid, tanh, weight

SHAPE = Shape(100, 3, 7, 37)
SIZES = {"I": SHAPE.I, "H": SHAPE.H}


@pytest.mark.parametrize(
    ("found", "gates"),
    [
        (CELLS["elman"], 1),
        (CELLS["lstm"], 4),
        (CELLS["gru_reset_after"], 3),
        (OWN["gru"], 3),
        (OWN["lstm_peephole"], 4),
        (OWN["lstm_coupled"], 3),
        (OWN["lstm_layer_norm"], 4),
        (OWN["two_stages"], 4),
    ],
    ids=lambda value: value.name if isinstance(value, Cell) else str(value),
)
def test_products_are_two_operations_a_weight(found: Cell, gates: int) -> None:
    count = work(found.graph, SIZES)
    assert count.flops(SHAPE, "forward") == 2 * gates * 100 * 3 * (7 + 37) * 37
    assert count.flops(SHAPE, "training") == 6 * gates * 100 * 3 * (7 + 37) * 37
    assert count.weight_bytes("forward") == 4 * gates * 37 * 37
    assert count.weight_bytes("training") == 8 * gates * 37 * 37


@cell(states="h c", source="a test")
def little(x, h, c):
    a = linear("a", x, h)  # 1 to add the products, 1 for the bias
    b = linear("b", c=c, bias=None, blocks=4)
    h = tanh(a) * sigmoid(a)  # 15 + 15 + 1
    c = b + mean(h) * weight("p")  # 1 for each unit that the mean reads, 1 + 1
    return h, c


def test_other_operations_are_counted_by_their_cost() -> None:
    count = work(little.graph, {"I": 3, "H": 8})
    assert count.products == 2 * 8 * (3 + 8) + 2 * 8 * 8 // 4
    assert count.others == 8 * (1 + 1 + 15 + 15 + 1 + 1 + 1 + 1)
    assert count.recurrent == 8 * 8 + 8 * 8 // 4


def test_the_floor_is_the_products_or_with_one_row_the_reading_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    count = work(CELLS["lstm"].graph, {"I": 32, "H": 64})
    size = 4 * 4 * 64 * 64
    monkeypatch.setattr("benchmarks.limits.bandwidth", {size: 1e9}.__getitem__)
    limits = Limits(1e11)
    for what, passes in (("forward", 1), ("training", 2)):
        many, one = (limits.reading_time(count, Shape(10, B, 32, 64), what) for B in (8, 1))
        assert many is None
        assert one == 10 * passes * size / 1e9
    flops = count.flops(Shape(10, 1, 32, 64), "forward")
    assert row(flops=flops, limit=1e11, reading=one).floor == one
    assert row(flops=flops, limit=flops / (2 * one), reading=one).floor == 2 * one
    assert row(flops=flops, limit=1e11).floor == flops / 1e11
    assert row().floor is None


def test_limits_only_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([2e9, 4e9, 3e9])
    monkeypatch.setattr("benchmarks.limits.compute", lambda: next(speeds))
    limits = measured()
    found = [limits.flops]
    for _ in range(2):
        limits.again()
        found.append(limits.flops)
    assert found == [2e9, 4e9, 4e9]


def test_the_fastest_that_was_seen_is_the_limit_of_every_row() -> None:
    slow, fast = (row(flops=10**9, limit=limit, theirs=times(0.004)) for limit in (1e11, 2e11))
    assert with_best_limit([slow, fast, row()], 1.5e11) == (2.5e11, [replace(fast, limit=2.5e11)] * 2 + [row()])
    assert with_best_limit([slow, fast], 3e11)[0] == 3e11
