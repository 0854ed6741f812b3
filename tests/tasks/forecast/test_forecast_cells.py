"""Which cells can forecast: those that need one input of size I and a hidden size, whatever their states and output."""

import pytest

from forecast_cases import LEVELS
from tidegate.equations import cell, concat, linear, sigmoid, tanh
from tidegate.errors import ArgumentError
from tidegate.tasks.forecast.model.net import ForecastNet


@cell(states="h", inputs="x a:1", source="a test")
def with_two_inputs(x, a, h):
    h = tanh(linear("h", x, h) + a)
    return h


@cell(states="h", inputs="x:H", source="a test")
def unit_by_unit(x, h):
    h = tanh(linear("h", h) + x)
    return h


@cell(states="h:P c", source="a test")
def of_two_sizes(x, h, c):
    c = tanh(linear("c", x, h)) + 0.5 * c
    h = linear("p", c=c, size="P")
    return h, c


@cell(states="h*2 | n:1", output="y", source="a test")
def wide(x, h, n):
    first = tanh(linear("a", x, h0=h[0]))
    second = sigmoid(linear("b", a=first)) * h[1]
    y = concat(first, second)
    return y, [first, second], (n + 1.0) % 5.0


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (
            with_two_inputs,
            "cell 'with_two_inputs' cannot forecast: a forecaster gives it one input of size I, and it reads x, a of "
            "I, 1; choose or write a cell with inputs='x'",
        ),
        (
            unit_by_unit,
            "cell 'unit_by_unit' cannot forecast: a forecaster gives it one input of size I, and it reads x of H; "
            "choose or write a cell with inputs='x'",
        ),
        (
            of_two_sizes,
            "cell 'of_two_sizes' cannot forecast: besides H and I it has the size P, which a forecaster does not "
            "choose; choose or write a cell without it",
        ),
    ],
)
def test_cells_that_cannot(refused, said) -> None:
    with pytest.raises(ArgumentError) as raised:
        ForecastNet(refused, (6, 0), 10, 4, LEVELS, hidden=5, layers=1)
    assert str(raised.value) == said


def test_an_output_wider_than_the_hidden_size() -> None:
    assert ForecastNet(wide, (6, 0), 10, 4, LEVELS, hidden=5, layers=2).head.in_features == 10
