"""Gated recurrent units."""

from tidegate.equations import cell, linear, sigmoid, tanh


@cell(states="h", source="Cho et al. 2014, arXiv:1406.1078v3, eqs 5-8: the reset gate acts before the product")
def gru(x, h):
    r = sigmoid(linear("r", x, h))  # reset gate
    z = sigmoid(linear("z", x, h))  # update gate: how much of the old state stays
    n = tanh(linear("n", x, h=r * h))  # candidate
    h = z * h + (1.0 - z) * n  # hidden state
    return h


@cell(
    states="h", source="Cho et al. 2014, arXiv:1406.1078v1, as in torch.nn.GRU: the reset gate acts after the product"
)
def gru_reset_after(x, h):
    r = sigmoid(linear("r", x, h))  # reset gate
    z = sigmoid(linear("z", x, h))  # update gate: how much of the old state stays
    n = tanh(linear("n", x) + r * linear("m", h))  # candidate
    h = (1.0 - z) * n + z * h  # hidden state
    return h
