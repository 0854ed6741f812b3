"""Cells whose memory is element-wise: sLSTM, the linear recurrent unit, QRNN, eLSTM, IndRNN, SRU, minGRU, minLSTM."""

import math

import torch

from .common import Tensor, Tensors, affine, logistic


def heads_apart(w: Tensors, name: str, x: Tensor, h: Tensor) -> Tensor:
    """`name` of x and of h, where h is mixed within each head only: `name.h` is `[heads, rows, columns]`."""
    blocks = w[f"{name}.h"]
    width = blocks.shape[2]
    mixed = [h[:, k * width : (k + 1) * width] @ blocks[k].T for k in range(len(blocks))]
    return x @ w[f"{name}.x"].T + torch.cat(mixed, -1) + w[f"{name}.bias"]


def slstm(w: Tensors, inputs: Tensors, states: Tensors, forget: str = "sigmoid") -> tuple[Tensor, Tensors]:
    """Beck et al. 2024, eqs. 8-17. The stabiliser m is the running maximum of the gates' exponents."""
    x, h, c, n, m = inputs["x"], *(states[k] for k in "hcnm")
    z = torch.tanh(heads_apart(w, "z", x, h))
    o = logistic(heads_apart(w, "o", x, h))
    log_i = heads_apart(w, "i", x, h)
    net_f = heads_apart(w, "f", x, h)
    log_f = torch.log(logistic(net_f)) if forget == "sigmoid" else net_f
    new_m = torch.where(log_f + m > log_i, log_f + m, log_i)
    i, f = torch.exp(log_i - new_m), torch.exp(log_f + m - new_m)
    c, n = f * c + i * z, f * n + i
    h = o * (c / n)
    return h, {"h": h, "c": c, "n": n, "m": new_m}


def slstm_unstabilised(w: Tensors, inputs: Tensors, states: Tensors, forget: str = "sigmoid") -> tuple[Tensor, Tensors]:
    """Beck et al. 2024, eqs. 8-14, exponentials as they are: the same h, for moderate gates."""
    x, h = inputs["x"], states["h"]
    i, net_f = torch.exp(heads_apart(w, "i", x, h)), heads_apart(w, "f", x, h)
    f = logistic(net_f) if forget == "sigmoid" else torch.exp(net_f)
    c = f * states["c"] + i * torch.tanh(heads_apart(w, "z", x, h))
    n = f * states["n"] + i
    h = logistic(heads_apart(w, "o", x, h)) * c / n
    return h, {"h": h, "c": c, "n": n, "m": states["m"]}


def lru(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Orvieto et al. 2023, section 3 and appendix A, in complex numbers; the state is its two parts."""
    u = inputs["x"].to(torch.complex128)
    s = torch.complex(states["re"], states["im"])
    eigenvalue = torch.exp(torch.complex(-torch.exp(w["nu_log"]), torch.exp(w["theta_log"])))
    b = torch.complex(w["b_re.x"], w["b_im.x"])
    c = torch.complex(w["c_re.re"], w["c_im.im"])
    s = eigenvalue * s + torch.exp(w["gamma_log"]) * (u @ b.T)
    y = (s @ c.T).real + w["d"] * inputs["x"]
    return y, {"re": s.real, "im": s.imag}


def qrnn(w: Tensors, inputs: Tensors, states: Tensors, delay: int = 1) -> tuple[Tensor, Tensors]:
    """Bradbury et al. 2017, eqs. 1 and 4: a causal convolution of width `delay + 1`, then fo-pooling."""
    past = [states[f"u{k}"] for k in range(delay)]
    labelled = {"x": inputs["x"], **{f"u{k}": v for k, v in enumerate(past)}}
    z = torch.tanh(affine(w, "z", **labelled))
    f = logistic(affine(w, "f", **labelled))
    o = logistic(affine(w, "o", **labelled))
    c = f * states["c"] + z - f * z
    window = [inputs["x"], *past][:delay]
    return o * c, {"c": c, **{f"u{k}": v for k, v in enumerate(window)}}


def elstm(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Irie, Gopalakrishnan & Schmidhuber 2023: diagonal recurrence; the output gate sees the new c."""
    x, c = inputs["x"], states["c"]
    f = logistic(affine(w, "f", x=x) + w["w_f"] * c)
    z = torch.tanh(affine(w, "z", x=x) + w["w_z"] * c)
    c = f * c + (1 - f) * z
    return c * logistic(affine(w, "o", x=x, c=c)), {"c": c}


def indrnn(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Li et al. 2018: the recurrent matrix is diagonal; rectified."""
    net = affine(w, "h", x=inputs["x"]) + states["h"] @ torch.diag(w["u"])
    h = torch.where(net > 0, net, torch.zeros_like(net))
    return h, {"h": h}


def sru(w: Tensors, inputs: Tensors, states: Tensors, scale: float = math.sqrt(3)) -> tuple[Tensor, Tensors]:
    """Lei et al. 2018: light recurrence, then a highway past it; alpha is sqrt(1 + 2 exp(b)) for a bias b of 0."""
    x, c = inputs["x"], states["c"]
    f = logistic(affine(w, "f", x=x) + w["v_f"] * c)
    r = logistic(affine(w, "r", x=x) + w["v_r"] * c)
    new = f * c + (1 - f) * affine(w, "w", x=x)
    return r * new + (1 - r) * x * scale, {"c": new}


def min_gru(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Feng et al. 2024, section 3.1: gate and candidate see the input only, and the candidate has no tanh."""
    z = logistic(affine(w, "z", x=inputs["x"]))
    h = (1 - z) * states["h"] + z * affine(w, "n", x=inputs["x"])
    return h, {"h": h}


def min_lstm(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Feng et al. 2024, section 3.2: both gates are divided by their sum."""
    f, i = (logistic(affine(w, gate, x=inputs["x"])) for gate in "fi")
    h = f / (f + i) * states["h"] + i / (f + i) * affine(w, "n", x=inputs["x"])
    return h, {"h": h}
