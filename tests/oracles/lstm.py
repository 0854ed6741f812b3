"""Long short-term memory: the product cells, projection, full gate recurrence, normalised and multiplicative."""

import torch

from .common import Tensor, Tensors, affine, logistic


def lstm_1997(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Hochreiter & Schmidhuber 1997, one cell a block: no forget gate, g in [-2, 2], h in [-1, 1]."""
    x, h, c = inputs["x"], states["h"], states["c"]
    c = c + logistic(affine(w, "i", x=x, h=h)) * (4 * logistic(affine(w, "g", x=x, h=h)) - 2)
    h = logistic(affine(w, "o", x=x, h=h)) * (2 * logistic(c) - 1)
    return h, {"h": h, "c": c}


def lstm(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Gers, Schmidhuber & Cummins 2000, with tanh squashing as it is used today."""
    x, h, c = inputs["x"], states["h"], states["c"]
    i, f, o = (logistic(affine(w, gate, x=x, h=h)) for gate in "ifo")
    c = f * c + i * torch.tanh(affine(w, "g", x=x, h=h))
    h = o * torch.tanh(c)
    return h, {"h": h, "c": c}


def lstm_peephole(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Gers, Schraudolph & Schmidhuber 2002: the output gate sees the cell after its update."""
    x, h, c = inputs["x"], states["h"], states["c"]
    i = logistic(affine(w, "i", x=x, h=h) + w["p_i"][None] * c)
    f = logistic(affine(w, "f", x=x, h=h) + w["p_f"][None] * c)
    c = f * c + i * torch.tanh(affine(w, "g", x=x, h=h))
    o = logistic(affine(w, "o", x=x, h=h) + w["p_o"][None] * c)
    h = o * torch.tanh(c)
    return h, {"h": h, "c": c}


def lstm_coupled(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Greff et al. 2015, CIFG without peepholes: what is not kept is written."""
    x, h, c = inputs["x"], states["h"], states["c"]
    f = logistic(affine(w, "f", x=x, h=h))
    o = logistic(affine(w, "o", x=x, h=h))
    c = f * c + (1 - f) * torch.tanh(affine(w, "g", x=x, h=h))
    h = o * torch.tanh(c)
    return h, {"h": h, "c": c}


def lstm_projection(w: Tensors, inputs: Tensors, states: Tensors, peepholes: bool = False) -> tuple[Tensor, Tensors]:
    """Sak, Senior & Beaufays 2014, eqs. 7-12: what recurs and goes out is a projection of the block's output."""
    x, r, c = inputs["x"], states["h"], states["c"]
    look = {gate: w[f"p_{gate}"] if peepholes else torch.zeros(c.shape[1], dtype=c.dtype) for gate in "ifo"}
    i = logistic(affine(w, "i", x=x, h=r) + look["i"] * c)
    f = logistic(affine(w, "f", x=x, h=r) + look["f"] * c)
    c = f * c + i * torch.tanh(affine(w, "g", x=x, h=r))
    o = logistic(affine(w, "o", x=x, h=r) + look["o"] * c)
    r = affine(w, "p", m=o * torch.tanh(c))
    return r, {"h": r, "c": c}


def normalised(v: Tensor, gain: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Ba et al. 2016, eq. 15: each row to mean 0 and variance 1 over all its units, then gain and shift."""
    rows = []
    for row in v:
        mu = row.sum() / row.numel()
        rows.append((row - mu) / torch.sqrt(((row - mu) ** 2).sum() / row.numel() + eps))
    return gain * torch.stack(rows) + shift


def lstm_layer_norm(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Ba, Kiros & Hinton 2016, eqs. 20-22: one mean and one variance over f, i, o, g together."""
    gates = "fiog"

    def joined(name: str) -> Tensor:
        return torch.cat([w[f"{name}{k}"] for k in range(4)])

    wh = torch.cat([affine(w, f"{k}_h", h=states["h"]) for k in gates], -1)
    wx = torch.cat([affine(w, f"{k}_x", x=inputs["x"]) for k in gates], -1)
    bias = torch.cat([w[f"b_{k}"] for k in gates])
    net = normalised(wh, joined("nh.gain"), joined("nh.shift")) + normalised(wx, joined("nx.gain"), joined("nx.shift"))
    f, i, o, g = (net + bias).chunk(4, -1)
    c = logistic(f) * states["c"] + logistic(i) * torch.tanh(g)
    h = logistic(o) * torch.tanh(normalised(c, w["nc.gain"], w["nc.shift"]))
    return h, {"h": h, "c": c}


def lstm_full_gate_recurrence(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Greff et al. 2015, FGR: nine more matrices, from every gate's last activation to every gate."""
    x, h, c = inputs["x"], states["h"], states["c"]
    net = {gate: affine(w, gate, x=x, h=h, **{k: states[k] for k in "ifo"}) for gate in "ifo"}
    i = logistic(net["i"] + w["p_i"] * c)
    f = logistic(net["f"] + w["p_f"] * c)
    c = i * torch.tanh(affine(w, "g", x=x, h=h)) + f * c
    o = logistic(net["o"] + w["p_o"] * c)
    h = torch.tanh(c) * o
    return h, {"h": h, "c": c, "i": i, "f": f, "o": o}


def lstm_multiplicative(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Krause et al. 2017: the recurrent matrix is W_mm diag(W_mx x) W_mh, so the gates never see h itself."""
    x, h, c = inputs["x"], states["h"], states["c"]
    m = torch.stack([torch.diag(w["m_x.x"] @ x_b) @ (w["m_h.h"] @ h_b) for x_b, h_b in zip(x, h, strict=True)])
    i, f, o = (logistic(affine(w, gate, x=x, m=m)) for gate in "ifo")
    c = f * c + i * torch.tanh(affine(w, "g", x=x, m=m))
    h = torch.tanh(c) * o
    return h, {"h": h, "c": c}
