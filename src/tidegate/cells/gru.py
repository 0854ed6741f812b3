"""Gated recurrent units."""

from tidegate.equations import cell, layer_norm, linear, sigmoid, tanh


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


@cell(states="h", source="Ba, Kiros & Hinton 2016, arXiv:1607.06450, eqs. 23-25: reset after the product")
def gru_layer_norm(x, h):
    from_x = layer_norm("nx", *[linear(f"{k}_x", x, bias=None) for k in "zr"])
    from_h = layer_norm("nh", *[linear(f"{k}_h", h, bias=None) for k in "zr"])
    z = sigmoid(from_h[0] + from_x[0])  # update gate: how much is written
    r = sigmoid(from_h[1] + from_x[1])  # reset gate
    back = layer_norm("mh", linear("n_h", h, bias=None))  # what the candidate sees of the old state
    n = tanh(layer_norm("mx", linear("n_x", x, bias=None)) + r * back)  # candidate
    h = (1.0 - z) * h + z * n  # hidden state
    return h
