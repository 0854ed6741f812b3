"""Cells that are deep within a step: recurrent highway, gated feedback."""

import torch

from .common import Tensor, Tensors, affine, logistic


def recurrent_highway(
    w: Tensors, inputs: Tensors, states: Tensors, depth: int = 5, coupled: bool = True
) -> tuple[Tensor, Tensors]:
    """Zilly et al. 2017, eqs. 6-9: `depth` highway layers within a step, the input at the first only."""
    s = states["s"]
    for layer in range(depth):
        vectors = {"s": s} if layer else {"x": inputs["x"], "s": s}
        h = torch.tanh(affine(w, f"h{layer}", **vectors))
        t = logistic(affine(w, f"t{layer}", **vectors))
        carry = 1 - t if coupled else logistic(affine(w, f"c{layer}", **vectors))
        s = h * t + s * carry
    return s, {"s": s}


def gated_feedback(w: Tensors, inputs: Tensors, states: Tensors, depth: int = 3) -> tuple[Tensor, Tensors]:
    """Chung et al. 2015, tanh units: a scalar gate on the way from each old level to each new one."""
    old = [states[f"h{level}"] for level in range(depth)]
    below, new = inputs["x"], {}
    for j in range(depth):
        net = affine(w, f"w_{j}", below=below)
        for i in range(depth):
            score = below @ w[f"g_{i}_{j}.below"][0]
            for level in range(depth):
                score = score + old[level] @ w[f"g_{i}_{j}.h{level}"][0]
            net = net + logistic(score)[:, None] * (old[i] @ w[f"u_{i}_{j}.h{i}"].T)
        below = torch.tanh(net)
        new[f"h{j}"] = below
    return below, new
