"""Cells that are measured beside those that ship, as a user would bring them."""

from collections.abc import Mapping
from types import MappingProxyType

from tidegate.cells import CELLS
from tidegate.equations import Cell, cell, layer_norm, linear, sigmoid, tanh, weight


@cell(states="h", source="made for this comparison: nobody can have tuned a kernel for it")
def two_stages(x, h):
    """Three gates, then a candidate that reads what one of them lets through."""
    r = sigmoid(linear("r", x, h))  # how much of the old state the candidate sees
    u = sigmoid(linear("u", x, h))  # how much is written
    f = sigmoid(linear("f", x, h))  # how much stays
    n = tanh(linear("n", x, h=r * h))  # candidate, the second stage
    h = tanh(f * h + u * n)  # hidden state
    return h


@cell(states="h c", source="Ba, Kiros & Hinton 2016, arXiv:1607.06450, eqs. 20-22")
def lstm_layer_norm(x, h, c, *, forget_bias=1.0):
    """An LSTM whose products are normalised over their units.

    With a gain of 1 for what comes back, steps magnify differences: in a thousand of them nothing is left to compare.
    """
    from_x = layer_norm("nx", *[linear(f"{k}_x", x, bias=None) for k in "fiog"])
    from_h = layer_norm("nh", *[linear(f"{k}_h", h, bias=None) for k in "fiog"], gain=0.1)
    f = sigmoid(from_h[0] + from_x[0] + weight("b_f", init=forget_bias))  # forget gate
    i = sigmoid(from_h[1] + from_x[1] + weight("b_i"))  # input gate
    o = sigmoid(from_h[2] + from_x[2] + weight("b_o"))  # output gate
    g = tanh(from_h[3] + from_x[3] + weight("b_g"))  # candidate
    c = f * c + i * g  # cell
    h = o * tanh(layer_norm("nc", c))  # hidden state
    return h, c


_MEASURED = ("lstm_peephole", "lstm_coupled", "gru")
OWN: Mapping[str, Cell] = MappingProxyType(
    {name: CELLS[name] for name in _MEASURED} | {c.name: c for c in (lstm_layer_norm, two_stages)}
)
