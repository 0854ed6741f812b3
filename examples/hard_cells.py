"""Published cells that test the equation language: each needs something that a plain LSTM does not.

Every cell follows its paper, and the comment at the end of a line is the paper's name for the value. Biases that a
paper omits from its formulas for brevity are kept where the cell needs them, with a comment.
"""

from tidegate.equations import (
    cell,
    concat,
    exp,
    eye,
    floor,
    linear,
    matrix,
    minimum,
    position,
    ramp,
    sigmoid,
    spread,
    tanh,
    uniform,
    weight,
    where,
)

# Gated recurrent units


@cell(
    states="h",
    inputs="x a:1",
    source="Zhou et al. 2019, arXiv:1809.03672, GRU with attentional update gate (AUGRU)",
)
def augru(x, a, h):
    r = sigmoid(linear("r", x, h))  # reset gate
    u = a * sigmoid(linear("u", x, h))  # update gate, scaled by the attention score
    n = tanh(linear("n", x) + r * linear("m", h, bias=None))  # candidate
    h = (1 - u) * h + u * n  # interest state
    return h


# Memory blocks: G blocks of H / G cells; the cells of a block stand side by side and share its gates


@cell(
    states="h c i:G o:G",
    source="Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735, section 4 and eqs. 3-5",
)
def lstm_blocks_1997(x, h, c, i, o, *, input_bias=0.0, output_bias=ramp(-1, -1)):
    a_i = linear("i", x, h, i, o, size="G", bias=input_bias)
    a_o = linear("o", x, h, i, o, size="G", bias=output_bias)
    g = 4 * sigmoid(linear("g", x, h, i, o, bias=None)) - 2  # squashed input, in [-2, 2]
    i = sigmoid(a_i)  # input gate of each block
    o = sigmoid(a_o)  # output gate of each block
    c = c + spread(i) * g  # internal state
    h = spread(o) * (2 * sigmoid(c) - 1)  # cell output
    return h, c, i, o


@cell(
    states="h c",
    source="Gers, Schmidhuber & Cummins 2000, doi:10.1162/089976600300015015, sections 2-4",
)
def lstm_blocks_2000(x, h, c, *, gate_bias=ramp(-0.5, -0.5), forget_bias=ramp(0.5, 0.5)):
    i = sigmoid(linear("i", x, h, size="G", bias=gate_bias))  # input gate of each block
    f = sigmoid(linear("f", x, h, size="G", bias=forget_bias))  # forget gate of each block
    o = sigmoid(linear("o", x, h, size="G", bias=gate_bias))  # output gate of each block
    g = 4 * sigmoid(linear("g", x, h, bias=None)) - 2  # squashed input, in [-2, 2]
    c = spread(f) * c + spread(i) * g  # internal state
    h = spread(o) * (2 * sigmoid(c) - 1)  # cell output
    return h, c


# Element-wise memories


@cell(
    states="c | u:I*delay",
    output="h",
    source="Bradbury et al. 2017, arXiv:1611.01576, eqs. 1 and 4 (fo-pooling); biases added",
)
def qrnn(x, c, u, *, delay=1):
    z = tanh(linear("z", x, *u))  # candidate, a convolution of width delay + 1
    f = sigmoid(linear("f", x, *u))  # forget gate
    o = sigmoid(linear("o", x, *u))  # output gate
    c = f * c + (1 - f) * z  # pooled state
    h = o * c  # output
    return h, c, [x, *u[:-1]]


@cell(
    states="c",
    output="h",
    source="Irie, Gopalakrishnan & Schmidhuber 2023, arXiv:2305.19044, section 3 (eLSTM); biases added",
)
def elstm(x, c):
    f = sigmoid(linear("f", x) + weight("w_f", init=uniform(-0.1, 0.1)) * c)  # forget gate
    z = tanh(linear("z", x) + weight("w_z", init=uniform(-0.1, 0.1)) * c)  # candidate
    c = f * c + (1 - f) * z  # cell state
    o = sigmoid(linear("o", x, c=c))  # output gate, sees the new cell
    h = o * c  # output
    return h, c


# Time, clocks, missing values


@cell(
    states="h c",
    inputs="x t:1",
    source="Neil, Pfeiffer & Liu 2016, arXiv:1610.09513, eqs. 1-10; t is the time stamp",
    symbols={"proposed": r"\tilde{c}", "on": r"r_{\mathrm{on}}", "leak": r"\alpha"},
)
def lstm_phased(x, t, h, c, *, on=0.05, leak=0.001, forget_bias=1.0):
    tau = weight("tau", init=exp(uniform(0, 3)))
    s = weight("s", init=uniform(0, 1) * tau)
    phi = ((t - s) % tau) / tau  # phase within the period
    k = where(phi < on / 2, 2 * phi / on, where(phi < on, 2 - 2 * phi / on, leak * phi))  # time gate
    i = sigmoid(linear("i", x, h) + weight("p_i") * c)  # input gate
    f = sigmoid(linear("f", x, h, bias=forget_bias) + weight("p_f") * c)  # forget gate
    g = tanh(linear("g", x, h))  # candidate
    proposed = f * c + i * g  # proposed cell state
    o = sigmoid(linear("o", x, h) + weight("p_o") * proposed)  # output gate
    h = k * (o * tanh(proposed)) + (1 - k) * h  # hidden state
    c = k * proposed + (1 - k) * c  # cell state
    return h, c


@cell(
    states="h | last:I",
    inputs="x m:I d:I",
    source="Che et al. 2018, doi:10.1038/s41598-018-24271-9, GRU-D; m is 1 where x was seen, d the time since then",
    symbols={
        "decay_x": r"\gamma_{x}",
        "decay_h": r"\gamma_{h}",
        "d": r"\delta",
        "mean": r"\tilde{x}",
        "filled": r"\hat{x}",
        "old": r"\hat{h}",
    },
)
def gru_d(x, m, d, h, last):
    a_x = weight("g_x", size="I", init=uniform(0, 0.1)) * d + weight("b_x", size="I")
    decay_x = exp(minimum(-a_x, 0))  # decay of the input
    decay_h = exp(minimum(-linear("g_h", d), 0))  # decay of the state
    guess = decay_x * last + (1 - decay_x) * weight("mean", size="I", learn=False)
    filled = where(m > 0.5, x, guess)  # input, filled where it is missing
    old = decay_h * h  # decayed state
    r = sigmoid(linear("r", m, x=filled, h=old))  # reset gate
    z = sigmoid(linear("z", m, x=filled, h=old))  # update gate
    n = tanh(linear("n", m, x=filled, h=r * old))  # candidate
    h = (1 - z) * old + z * n  # hidden state
    last = where(m > 0.5, x, last)  # last value seen
    return h, last


@cell(
    states="h | n:1",
    source="Koutnik et al. 2014, arXiv:1402.3511, section 3; periods 1, 2, 4, ...; steps counted from 0",
    symbols={"period": "T", "heard": r"\hat{U}"},
)
def clockwork(x, h, n, *, groups=3):
    period = weight("period", init=2 ** floor(position() * groups), learn=False)
    slower = matrix("slower", init=floor(position(0) * groups) <= floor(position(1) * groups), learn=False)
    heard = matrix("U") * slower  # what a module hears: itself and slower ones
    new = tanh(linear("h", x) + heard @ h)
    h = where(n % period == 0, new, h)  # only modules that are due move
    n = (n + 1) % 2 ** (groups - 1)  # steps, modulo the longest period
    return h, n


# Dynamical systems, low rank, several sizes


@cell(states="h", source="Chang et al. 2019, arXiv:1902.09689, section 3; `gated` adds the gate that shares the matrix")
def antisymmetric(x, h, *, epsilon=0.1, gamma=0.01, gated=False):
    M = matrix("M")
    A = M - M.T - gamma * eye()  # antisymmetric, with a little diffusion
    pull = A @ h
    g = tanh(linear("h", x) + pull)  # direction
    move = sigmoid(linear("z", x) + pull) * g if gated else g  # gated direction
    h = h + epsilon * move  # an Euler step
    return h


@cell(
    states="h",
    source="Kusupati et al. 2018, arXiv:1901.02358, FastGRNN with low-rank W and U",
    symbols={"zeta_logit": r"\bar{\zeta}", "nu_logit": r"\bar{\nu}"},
)
def fast_grnn(x, h):
    in_x = linear("w_in", x, size="R", bias=None)
    in_h = linear("u_in", h, size="S", bias=None)
    a = linear("w", x=in_x, h=in_h, bias=None)
    z = sigmoid(a + weight("b_z", init=1.0))  # gate
    n = tanh(a + weight("b_n", init=1.0))  # candidate, from the same products
    zeta = sigmoid(weight("zeta_logit", init=1.0, size=1))
    nu = sigmoid(weight("nu_logit", init=-4.0, size=1))
    h = (zeta * (1 - z) + nu) * n + z * h  # hidden state
    return h


@cell(
    states="h s:S",
    output="y",
    source="Mikolov et al. 2015, arXiv:1412.7753, SCRN; hidden and context units both go out",
)
def scrn(x, h, s, *, alpha=0.95):
    s = (1 - alpha) * linear("s", x, bias=None, size="S") + alpha * s  # context units
    h = sigmoid(linear("h", x, h, s=s, bias=None))  # hidden units
    y = concat(h, s)
    return y, h, s


@cell(states="y z", source="Rusch et al. 2022, arXiv:2110.04744, eq. 3 (LEM)")
def lem(x, y, z, *, dt=1.0):
    dt_z = dt * sigmoid(linear("dt_z", x, y))  # step of z
    dt_y = dt * sigmoid(linear("dt_y", x, y))  # step of y
    z = (1 - dt_z) * z + dt_z * tanh(linear("z", x, y))  # slow state
    y = (1 - dt_y) * y + dt_y * tanh(linear("y", x, z=z))  # output state, sees the new z
    return y, z


# Depth within a step


@cell(states="s", source="Zilly et al. 2017, arXiv:1607.03474, eqs. 6-9")
def recurrent_highway(x, s, *, depth=5, coupled=True, transform_bias=-2.0):
    for layer in range(depth):
        first = {"x": x} if layer == 0 else {}
        h = tanh(linear(f"h{layer}", **first, s=s))  # candidate
        t = sigmoid(linear(f"t{layer}", **first, s=s, bias=transform_bias))  # transform gate
        c = 1 - t if coupled else sigmoid(linear(f"c{layer}", **first, s=s))  # carry gate
        s = h * t + s * c  # state
    return s


@cell(
    states="h*depth",
    output="y",
    source="Chung et al. 2015, arXiv:1502.02367, gated feedback with tanh units; biases added to the units",
)
def gated_feedback(x, h, *, depth=3):
    below, new = x, []
    every = {f"h{k}": h[k] for k in range(depth)}
    for j in range(depth):
        net = linear(f"w_{j}", below=below)
        for i in range(depth):
            gate = sigmoid(linear(f"g_{i}_{j}", below=below, **every, size=1, bias=None))  # from level i to level j
            net = net + gate * linear(f"u_{i}_{j}", h[i], bias=None)
        below = tanh(net)
        new.append(below)
    return below, new
