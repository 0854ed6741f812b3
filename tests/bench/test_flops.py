"""Operations counted from graphs, against the formulas that papers give."""

import pytest

from tidegate.bench.cells import OWN
from tidegate.bench.flops import work
from tidegate.bench.limits import Limits
from tidegate.bench.shapes import Shape
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


def test_the_floor_is_the_products_or_with_one_row_the_reading_of_weights() -> None:
    count = work(CELLS["lstm"].graph, {"I": 32, "H": 64})
    size = 4 * 4 * 64 * 64
    limits = Limits(1e11, {size: 1e9})
    for what, passes in (("forward", 1), ("training", 2)):
        many, one = (limits.floor(count, Shape(10, B, 32, 64), what) for B in (8, 1))
        assert many == count.flops(Shape(10, 8, 32, 64), what) / 1e11
        assert one == 10 * passes * size / 1e9
