"""Cells that are measured beside those that ship, as a user would bring them."""

from collections.abc import Mapping
from types import MappingProxyType

from tidegate.cells import CELLS
from tidegate.equations import Cell, cell, linear, sigmoid, tanh


@cell(states="h", source="made for this comparison: nobody can have tuned a kernel for it")
def two_stages(x, h):
    """Three gates, then a candidate that reads what one of them lets through."""
    r = sigmoid(linear("r", x, h))  # how much of the old state the candidate sees
    u = sigmoid(linear("u", x, h))  # how much is written
    f = sigmoid(linear("f", x, h))  # how much stays
    n = tanh(linear("n", x, h=r * h))  # candidate, the second stage
    h = tanh(f * h + u * n)  # hidden state
    return h


# With a gain of 1 for what comes back, steps magnify differences: in a thousand of them nothing is left to compare.
_NORMALISED = CELLS["lstm_layer_norm"](recurrent_gain=0.1)
_MEASURED = (CELLS["lstm_peephole"], CELLS["lstm_coupled"], CELLS["gru"], _NORMALISED, two_stages)
OWN: Mapping[str, Cell] = MappingProxyType({c.name: c for c in _MEASURED})
