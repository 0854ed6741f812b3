"""Cells that only experiments need: the nets of 1997 and 2000, blocks of H / G cells that share their gates; and a
linear recurrent unit that is small enough to do by hand."""

from tidegate.equations import cell, linear, matrix, ramp, sigmoid, spread, stop, weight


@cell(
    states="h c i:G o:G",
    source="Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, section 4 and eqs. 3-5",
)
def blocks_1997(x, h, c, i, o, *, cell_bias=None, input_bias=None, output_bias=ramp(-1, -1), truncated=False):
    if truncated:
        h, i, o = stop(h), stop(i), stop(o)
    a_i = linear("i", x, h=h, i=i, o=o, size="G", bias=input_bias)
    a_o = linear("o", x, h=h, i=i, o=o, size="G", bias=output_bias)
    g = 4 * sigmoid(linear("g", x, h=h, i=i, o=o, bias=cell_bias)) - 2  # squashed input, in [-2, 2]
    i = sigmoid(a_i)  # input gate of each block
    o = sigmoid(a_o)  # output gate of each block
    c = c + spread(i) * g  # internal state
    h = spread(o) * (2 * sigmoid(c) - 1)  # cell output, in [-1, 1]
    return h, c, i, o


@cell(
    states="h c",
    source="Gers, Schmidhuber & Cummins 2000, doi:10.1162/089976600300015015, sections 2-4",
)
def blocks_2000(x, h, c, *, gate_bias=ramp(-0.5, -0.5), forget_bias=ramp(0.5, 0.5), forgets=True, truncated=False):
    if truncated:
        h = stop(h)
    i = sigmoid(linear("i", x, h=h, size="G", bias=gate_bias))  # input gate of each block
    f = spread(sigmoid(linear("f", x, h=h, size="G", bias=forget_bias))) if forgets else 1.0  # forget gate
    o = sigmoid(linear("o", x, h=h, size="G", bias=gate_bias))  # output gate of each block
    g = 4 * sigmoid(linear("g", x, h=h, bias=None)) - 2  # squashed input, in [-2, 2]
    c = f * c + spread(i) * g  # internal state
    h = spread(o) * (2 * sigmoid(c) - 1)  # cell output, in [-1, 1]
    return h, c


@cell(states="re im", output="y", source="Zucchetti et al. 2023, arXiv:2305.15947, the linear recurrent unit")
def scalar_lru(x, re, im):
    l_re, l_im, gamma = weight("l_re"), weight("l_im"), weight("gamma")  # lambda; the input's normalisation
    b_x, b_i = matrix("b_re", cols="I") @ x, matrix("b_im", cols="I") @ x
    old_re, old_im = re, im
    re = l_re * old_re - l_im * old_im + gamma * b_x
    im = l_re * old_im + l_im * old_re + gamma * b_i
    y = matrix("c_re") @ re - matrix("c_im") @ im
    return y, re, im
