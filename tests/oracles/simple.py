"""Elman's network, rectified units, and gated recurrent units."""

import torch

from .common import Tensor, Tensors, affine, logistic


def elman(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Elman 1990, with tanh units."""
    h = torch.tanh(affine(w, "h", x=inputs["x"], h=states["h"]))
    return h, {"h": h}


def elman_relu(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Elman's network with rectified units, as in Le, Jaitly & Hinton 2015."""
    net = affine(w, "h", x=inputs["x"], h=states["h"])
    h = torch.where(net > 0, net, torch.zeros_like(net))
    return h, {"h": h}


def gru(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Cho et al. 2014 (version 3), eqs. 5-8: unit j of the candidate sees the state after it was reset."""
    x, h = inputs["x"], states["h"]
    r = logistic(affine(w, "r", x=x, h=h))
    z = logistic(affine(w, "z", x=x, h=h))
    candidate = torch.tanh(affine(w, "n", x=x, h=r * h))
    new = z * h + (1 - z) * candidate
    return new, {"h": new}


def gru_reset_after(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Cho et al. 2014 (version 1) as cuDNN and torch compute it: the product, its bias included, is reset."""
    x, h = inputs["x"], states["h"]
    r = logistic(affine(w, "r", x=x, h=h))
    z = logistic(affine(w, "z", x=x, h=h))
    candidate = torch.tanh(affine(w, "n", x=x) + r * affine(w, "m", h=h))
    new = (1 - z) * candidate + z * h
    return new, {"h": new}


def augru(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Zhou et al. 2019: the attention score `a` of the step scales the update gate."""
    x, a, h = inputs["x"], inputs["a"], states["h"]
    u = logistic(affine(w, "u", x=x, h=h))
    r = logistic(affine(w, "r", x=x, h=h))
    candidate = torch.tanh(affine(w, "n", x=x) + r * affine(w, "m", h=h))
    attended = torch.stack([score * row for score, row in zip(a[:, 0], u, strict=True)])
    new = (1 - attended) * h + attended * candidate
    return new, {"h": new}


def irnn(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Le, Jaitly & Hinton 2015: rectified units; what is new is how their weights start."""
    return elman_relu(w, inputs, states)
