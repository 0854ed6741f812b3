"""Antisymmetric network, FastGRNN, SCRN, LEM."""

import torch

from .common import Tensor, Tensors, affine, logistic


def antisymmetric(
    w: Tensors, inputs: Tensors, states: Tensors, epsilon: float = 0.1, gamma: float = 0.01, gated: bool = False
) -> tuple[Tensor, Tensors]:
    """Chang et al. 2019: a forward Euler step; the optional gate uses the same matrix."""
    x, h, M = inputs["x"], states["h"], w["M"]
    pull = h @ (M - M.T).T - gamma * h
    move = torch.tanh(pull + affine(w, "h", x=x))
    if gated:
        move = logistic(pull + affine(w, "z", x=x)) * move
    new = h + epsilon * move
    return new, {"h": new}


def fast_grnn(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Kusupati et al. 2018: gate and candidate share W = W1 W2^T and U = U1 U2^T; zeta and nu lie in (0, 1)."""
    W, U = w["w.x"] @ w["w_in.x"], w["w.h"] @ w["u_in.h"]
    shared = inputs["x"] @ W.T + states["h"] @ U.T
    z, candidate = logistic(shared + w["b_z"]), torch.tanh(shared + w["b_n"])
    h = (logistic(w["zeta_logit"]) * (1 - z) + logistic(w["nu_logit"])) * candidate + z * states["h"]
    return h, {"h": h}


def scrn(w: Tensors, inputs: Tensors, states: Tensors, alpha: float = 0.95) -> tuple[Tensor, Tensors]:
    """Mikolov et al. 2015: slow context units s feed the hidden units; both go out."""
    x, h = inputs["x"], states["h"]
    s = (1 - alpha) * (x @ w["s.x"].T) + alpha * states["s"]
    h = logistic(s @ w["h.s"].T + x @ w["h.x"].T + h @ w["h.h"].T)
    return torch.cat([h, s], -1), {"h": h, "s": s}


def lem(w: Tensors, inputs: Tensors, states: Tensors, dt: float = 1.0) -> tuple[Tensor, Tensors]:
    """Rusch et al. 2022, eq. 3: z moves first and y sees the new z."""
    u, y, z = inputs["x"], states["y"], states["z"]
    step_z = dt * logistic(affine(w, "dt_z", x=u, y=y))
    step_y = dt * logistic(affine(w, "dt_y", x=u, y=y))
    z = (1 - step_z) * z + step_z * torch.tanh(affine(w, "z", x=u, y=y))
    y = (1 - step_y) * y + step_y * torch.tanh(affine(w, "y", x=u, z=z))
    return y, {"y": y, "z": z}
