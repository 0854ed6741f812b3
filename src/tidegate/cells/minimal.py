"""Units with a single gate."""

from tidegate.equations import cell, linear, log, sigmoid, tanh, uniform


@cell(states="h", source="Zhou, Wu, Zhang & Zhou 2016, arXiv:1603.09420, minimal gated unit (MGU)")
def mgu(x, h):
    f = sigmoid(linear("f", x, h))  # forget gate: resets what the candidate sees, and says how much is written
    n = tanh(linear("n", x, h=f * h))  # candidate
    h = (1.0 - f) * h + f * n  # hidden state
    return h


@cell(states="c", source="Van der Westhuizen & Lasenby 2018, arXiv:1804.04849, section 3, with chrono initialisation")
def janet(x, c, *, beta=1.0, longest=100):
    s = linear("f", x, c, bias=log(uniform(1, longest - 1)))  # net input of both gates
    f = sigmoid(s)  # forget gate
    i = 1.0 - sigmoid(s - beta)  # input gate: a little more is written than is forgotten
    g = tanh(linear("g", x, c))  # candidate
    c = f * c + i * g  # cell
    return c


@cell(states="h", source="Collins, Sohl-Dickstein & Sussillo 2017, arXiv:1611.09913, section 2.1: the UGRNN")
def ugrnn(x, h, *, forget_bias=1.0):
    g = sigmoid(linear("g", x, h, bias=forget_bias))  # update gate: how much of the old state stays
    c = tanh(linear("c", x, h))  # candidate
    h = g * h + (1.0 - g) * c  # hidden state
    return h
