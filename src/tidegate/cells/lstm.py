"""Long short-term memory: the cell of 1997 and later variants of its gates."""

from tidegate.equations import cell, exp, layer_norm, linear, log_sigmoid, maximum, sigmoid, tanh, weight


@cell(states="h c", source="Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, one cell a block")
def lstm_1997(x, h, c):
    i = sigmoid(linear("i", x, h))  # input gate
    o = sigmoid(linear("o", x, h))  # output gate
    g = 4.0 * sigmoid(linear("g", x, h)) - 2.0  # candidate, squashed to [-2, 2]
    c = c + i * g  # cell: the constant error carousel, without a forget gate
    h = o * (2.0 * sigmoid(c) - 1.0)  # output
    return h, c


@cell(states="h c", source="Gers, Schmidhuber & Cummins 2000, doi:10.1162/089976600300015015")
def lstm(x, h, c, *, forget_bias=1.0):
    i = sigmoid(linear("i", x, h))  # input gate
    f = sigmoid(linear("f", x, h, bias=forget_bias))  # forget gate, open at the start
    g = tanh(linear("g", x, h))  # candidate
    o = sigmoid(linear("o", x, h))  # output gate
    c = f * c + i * g  # cell
    h = o * tanh(c)  # output
    return h, c


@cell(states="h c", source="Gers, Schraudolph & Schmidhuber 2002, jmlr.org/papers/v3/gers02a.html")
def lstm_peephole(x, h, c, *, forget_bias=1.0):
    i = sigmoid(linear("i", x, h) + weight("p_i") * c)  # input gate, sees the old cell
    f = sigmoid(linear("f", x, h, bias=forget_bias) + weight("p_f") * c)  # forget gate, sees the old cell
    g = tanh(linear("g", x, h))  # candidate
    c = f * c + i * g  # cell
    o = sigmoid(linear("o", x, h) + weight("p_o") * c)  # output gate, sees the new cell
    h = o * tanh(c)  # output
    return h, c


@cell(states="h c", source="Greff et al. 2015, arXiv:1503.04069: CIFG, without peepholes")
def lstm_coupled(x, h, c, *, forget_bias=1.0):
    f = sigmoid(linear("f", x, h, bias=forget_bias))  # forget gate; the input gate is 1 - f
    g = tanh(linear("g", x, h))  # candidate
    o = sigmoid(linear("o", x, h))  # output gate
    c = f * c + (1.0 - f) * g  # cell
    h = o * tanh(c)  # output
    return h, c


def seen(net, name, c, wanted):
    """A gate's net input, with a peephole on the cell where one is wanted."""
    return net + weight(name) * c if wanted else net


@cell(states="h:P c", source="Sak, Senior & Beaufays 2014, arXiv:1402.1128, eqs. 7-12; as torch's proj_size by default")
def lstm_projection(x, h, c, *, forget_bias=1.0, peepholes=False):
    i = sigmoid(seen(linear("i", x, h), "p_i", c, peepholes))  # input gate
    f = sigmoid(seen(linear("f", x, h, bias=forget_bias), "p_f", c, peepholes))  # forget gate, open at the start
    g = tanh(linear("g", x, h))  # candidate
    c = f * c + i * g  # cell
    o = sigmoid(seen(linear("o", x, h), "p_o", c, peepholes))  # output gate
    h = linear("p", m=o * tanh(c), size="P", bias=None)  # recurrent projection
    return h, c


@cell(states="h c i f o", source="Greff et al. 2015, arXiv:1503.04069, full gate recurrence (FGR)")
def lstm_full_gate_recurrence(x, h, c, i, f, o, *, forget_bias=1.0):
    last = (i, f, o)
    i = sigmoid(linear("i", x, h, *last) + weight("p_i") * c)  # input gate, sees the old gates and the old cell
    f = sigmoid(linear("f", x, h, *last, bias=forget_bias) + weight("p_f") * c)  # forget gate, sees the same
    g = tanh(linear("g", x, h))  # candidate
    c = f * c + i * g  # cell
    o = sigmoid(linear("o", x, h, *last) + weight("p_o") * c)  # output gate, sees the old gates and the new cell
    h = o * tanh(c)  # output
    return h, c, i, f, o


@cell(states="h c", source="Ba, Kiros & Hinton 2016, arXiv:1607.06450, eqs. 20-22")
def lstm_layer_norm(x, h, c, *, forget_bias=1.0, recurrent_gain=1.0):
    from_x = layer_norm("nx", *[linear(f"{k}_x", x, bias=None) for k in "fiog"])
    from_h = layer_norm("nh", *[linear(f"{k}_h", h, bias=None) for k in "fiog"], gain=recurrent_gain)
    f = sigmoid(from_h[0] + from_x[0] + weight("b_f", init=forget_bias))  # forget gate, open at the start
    i = sigmoid(from_h[1] + from_x[1] + weight("b_i"))  # input gate
    o = sigmoid(from_h[2] + from_x[2] + weight("b_o"))  # output gate
    g = tanh(from_h[3] + from_x[3] + weight("b_g"))  # candidate
    c = f * c + i * g  # cell
    h = o * tanh(layer_norm("nc", c))  # output
    return h, c


@cell(states="h c", source="Krause, Murray, Renals & Lu 2017, arXiv:1609.07959, section 3 (mLSTM); biases added")
def lstm_multiplicative(x, h, c, *, forget_bias=1.0):
    m = linear("m_x", x, bias=None) * linear("m_h", h, bias=None)  # intermediate state: the input chooses a transition
    i = sigmoid(linear("i", x, m=m))  # input gate
    f = sigmoid(linear("f", x, m=m, bias=forget_bias))  # forget gate, open at the start
    g = tanh(linear("g", x, m=m))  # candidate
    o = sigmoid(linear("o", x, m=m))  # output gate
    c = f * c + i * g  # cell
    h = o * tanh(c)  # output
    return h, c


@cell(
    states="h c n | m=-1e9",
    source="Beck et al. 2024, arXiv:2405.04517, eqs. 8-17",
    symbols={"log_i": r"\tilde{i}", "log_f": r"\log f"},
)
def slstm(x, h, c, n, m, *, heads=4, forget="sigmoid"):
    z = tanh(linear("z", x, h, blocks={"h": heads}))  # candidate, the paper's cell input
    o = sigmoid(linear("o", x, h, blocks={"h": heads}))  # output gate
    log_i = linear("i", x, h, blocks={"h": heads})  # exponent of the input gate
    a_f = linear("f", x, h, blocks={"h": heads})  # net input of the forget gate
    log_f = log_sigmoid(a_f) if forget == "sigmoid" else a_f  # exponent of the forget gate
    kept = log_f + m  # exponent of what stays
    m = maximum(kept, log_i)  # stabiliser
    i = exp(log_i - m)  # input gate, stabilised
    f = exp(kept - m)  # forget gate, stabilised
    c = f * c + i * z  # cell
    n = f * n + i  # normaliser
    h = o * (c / n)  # output
    return h, c, n, m
