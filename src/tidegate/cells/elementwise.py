"""Unit-by-unit recurrences: no matrix between the old state and the new one."""

from tidegate.equations import (
    cell,
    cos,
    exp,
    glorot,
    linear,
    log,
    log_sigmoid,
    normal,
    relu,
    sigmoid,
    sin,
    sqrt,
    uniform,
    weight,
)

HALVED = 0.5**0.5  # a factor for weights that halves the variance of what they make


@cell(states="h", source="Li et al. 2018, arXiv:1803.04831, section 3 (IndRNN), with ReLU")
def indrnn(x, h, *, longest=100):
    u = weight("u", init=uniform(0, 2 ** (1 / longest)))  # over `longest` steps a unit at most doubles what it keeps
    h = relu(linear("h", x) + u * h)  # hidden state
    return h


@cell(
    states="c",
    inputs="x:H",
    output="h",
    source="Lei et al. 2018, arXiv:1709.02755, section 2 (SRU), initial values as in its authors' code",
    symbols={"scale": r"\alpha"},
)
def sru(x, c, *, scale=3**0.5):
    v_f, v_r = (weight(name, init=uniform(-(1.5**0.5), 1.5**0.5)) for name in ("v_f", "v_r"))
    f = sigmoid(linear("f", x, init=glorot(HALVED)) + v_f * c)  # forget gate, sees the old cell
    r = sigmoid(linear("r", x, init=glorot(HALVED)) + v_r * c)  # reset gate, sees the old cell
    n = linear("w", x, bias=None)  # candidate
    c = f * c + (1.0 - f) * n  # cell
    h = r * c + (1.0 - r) * (scale * x)  # output: the cell, or the input past it
    return h, c


@cell(states="h", source="Feng et al. 2024, arXiv:2410.01201, section 3.1 (minGRU)")
def min_gru(x, h):
    z = sigmoid(linear("z", x))  # update gate: how much is written
    n = linear("n", x)  # candidate
    h = (1.0 - z) * h + z * n  # hidden state
    return h


@cell(states="h", source="Feng et al. 2024, arXiv:2410.01201, section 3.2 (minLSTM), f / (f + i) by logarithms")
def min_lstm(x, h, *, forget_bias=0.0):
    log_f = log_sigmoid(linear("f", x, bias=forget_bias))  # logarithm of the forget gate
    log_i = log_sigmoid(linear("i", x))  # logarithm of the input gate
    f = sigmoid(log_f - log_i)  # forget gate, normalised; the input gate is 1 - f
    n = linear("n", x)  # candidate
    h = f * h + (1.0 - f) * n  # hidden state
    return h


@cell(
    states="re:N im:N",
    inputs="x:H",
    output="y",
    source="Orvieto et al. 2023, arXiv:2303.06349, section 3 and appendix A; a complex state as two real ones",
    symbols={"radius": "r", "nu_log": r"\nu^{\log}", "theta_log": r"\theta^{\log}", "gamma_log": r"\gamma^{\log}"},
)
def lru(x, re, im, *, r_min=0.0, r_max=1.0, max_phase=6.283):
    nu = weight("nu_log", size="N", init=log(-0.5 * log(uniform(0, 1) * (r_max**2 - r_min**2) + r_min**2)))
    theta = weight("theta_log", size="N", init=log(max_phase * uniform(0, 1)))
    radius = exp(-exp(nu))  # modulus of the eigenvalues
    a = radius * cos(exp(theta))  # real part of the eigenvalues
    b = radius * sin(exp(theta))  # imaginary part of the eigenvalues
    gamma = exp(weight("gamma_log", size="N", init=log(sqrt(1 - radius * radius))))  # normalisation
    u_re = gamma * linear("b_re", x, size="N", bias=None, init=glorot(HALVED))  # what comes in, real part
    u_im = gamma * linear("b_im", x, size="N", bias=None, init=glorot(HALVED))  # what comes in, imaginary part
    re, im = a * re - b * im + u_re, b * re + a * im + u_im  # complex state: real and imaginary part
    y = linear("c_re", re=re, bias=None) - linear("c_im", im=im, bias=None) + weight("d", init=normal()) * x  # output
    return y, re, im
