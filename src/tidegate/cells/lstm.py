"""Long short-term memory: the cell of 1997, and what the forget gate, peepholes and coupling made of it."""

from tidegate.equations import cell, linear, sigmoid, tanh, weight


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


@cell(states="h:P c", source="Sak, Senior & Beaufays 2014, arXiv:1402.1128, without peepholes; torch's proj_size")
def lstm_projection(x, h, c, *, forget_bias=1.0):
    i = sigmoid(linear("i", x, h))  # input gate
    f = sigmoid(linear("f", x, h, bias=forget_bias))  # forget gate, open at the start
    g = tanh(linear("g", x, h))  # candidate
    o = sigmoid(linear("o", x, h))  # output gate
    c = f * c + i * g  # cell
    h = linear("p", m=o * tanh(c), size="P", bias=None)  # recurrent projection
    return h, c
