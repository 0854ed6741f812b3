"""Units with a single gate, and the gated recurrent unit with layer normalisation."""

import torch

from .common import Tensor, Tensors, affine, logistic
from .lstm import normalised


def gru_layer_norm(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Ba, Kiros & Hinton 2016, eqs. 23-25: z and r are normalised together, the candidate's two products apart."""
    x, h = inputs["x"], states["h"]
    wx = torch.cat([affine(w, "z_x", x=x), affine(w, "r_x", x=x)], -1)
    wh = torch.cat([affine(w, "z_h", h=h), affine(w, "r_h", h=h)], -1)
    parts = [
        normalised(
            net,
            torch.cat([w[f"{name}.gain0"], w[f"{name}.gain1"]]),
            torch.cat([w[f"{name}.shift0"], w[f"{name}.shift1"]]),
        )
        for name, net in (("nx", wx), ("nh", wh))
    ]
    z, r = (parts[0] + parts[1]).chunk(2, -1)
    from_x = normalised(affine(w, "n_x", x=x), w["mx.gain"], w["mx.shift"])
    from_h = normalised(affine(w, "n_h", h=h), w["mh.gain"], w["mh.shift"])
    new = (1 - logistic(z)) * h + logistic(z) * torch.tanh(from_x + logistic(r) * from_h)
    return new, {"h": new}


def mgu(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Zhou et al. 2016: the forget gate also does what a reset gate does."""
    x, h = inputs["x"], states["h"]
    f = logistic(affine(w, "f", x=x, h=h))
    new = h + f * (torch.tanh(affine(w, "n", x=x, h=f * h)) - h)
    return new, {"h": new}


def janet(w: Tensors, inputs: Tensors, states: Tensors, beta: float = 1.0) -> tuple[Tensor, Tensors]:
    """Van der Westhuizen & Lasenby 2018: no output gate, and what is written is shifted by beta."""
    x, c = inputs["x"], states["c"]
    s = affine(w, "f", x=x, c=c)
    new = logistic(s) * c + logistic(beta - s) * torch.tanh(affine(w, "g", x=x, c=c))
    return new, {"c": new}


def ugrnn(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Collins, Sohl-Dickstein & Sussillo 2017: one gate, coupled, sees what the candidate sees."""
    x, h = inputs["x"], states["h"]
    gate = logistic(affine(w, "g", x=x, h=h))
    h = gate * h + (1 - gate) * torch.tanh(affine(w, "c", x=x, h=h))
    return h, {"h": h}
