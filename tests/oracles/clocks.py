"""Cells that know of time: phased LSTM, GRU-D, the clockwork network."""

import torch

from .common import Tensor, Tensors, affine, logistic
from .lstm import lstm_peephole


def openness(phase: Tensor, on: float, leak: float) -> Tensor:
    """Neil, Pfeiffer & Liu 2016, eq. 6, number by number."""
    flat = []
    for phi in phase.flatten():
        if phi < on / 2:
            flat.append(2 * phi / on)
        elif phi < on:
            flat.append(2 - 2 * phi / on)
        else:
            flat.append(leak * phi)
    return torch.stack(flat).reshape(phase.shape)


def lstm_phased(
    w: Tensors, inputs: Tensors, states: Tensors, on: float = 0.05, leak: float = 0.001
) -> tuple[Tensor, Tensors]:
    """Neil, Pfeiffer & Liu 2016, eqs. 1-10: a peephole LSTM proposes, the time gate k mixes it with the old state."""
    phase = torch.remainder(inputs["t"] - w["s"], w["tau"]) / w["tau"]
    k = openness(phase, on, leak)
    _, proposed = lstm_peephole(w, inputs, states)
    new = {name: k * proposed[name] + (1 - k) * states[name] for name in ("h", "c")}
    return new["h"], new


def gru_d(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Che et al. 2018: what is missing decays from the last value seen to the mean, the state decays with it."""
    x, m, d = inputs["x"], inputs["m"], inputs["d"]
    seen = m > 0.5
    observed = torch.where(seen, x, torch.zeros_like(x))
    zero = torch.zeros((), dtype=x.dtype)
    decay_x = torch.exp(-torch.maximum(zero, d * w["g_x"] + w["b_x"]))
    decay_h = torch.exp(-torch.maximum(zero, affine(w, "g_h", d=d)))
    guess = decay_x * states["last"] + (1 - decay_x) * w["mean"]
    filled = m * observed + (1 - m) * guess
    h = decay_h * states["h"]
    z = logistic(affine(w, "z", x=filled, h=h, m=m))
    r = logistic(affine(w, "r", x=filled, h=h, m=m))
    candidate = torch.tanh(affine(w, "n", x=filled, h=r * h, m=m))
    h = (1 - z) * h + z * candidate
    return h, {"h": h, "last": torch.where(seen, observed, states["last"])}


def clockwork(w: Tensors, inputs: Tensors, states: Tensors, groups: int = 3) -> tuple[Tensor, Tensors]:
    """Koutnik et al. 2014, module by module: period 2^k, and a module hears itself and the slower ones."""
    h, size = states["h"], states["h"].shape[1]
    module = [unit * groups // size for unit in range(size)]
    new = h.clone()
    for unit in range(size):
        heard = [other for other in range(size) if module[other] >= module[unit]]
        net = inputs["x"] @ w["h.x"][unit] + w["h.bias"][unit]
        for other in heard:
            net = net + w["U"][unit, other] * h[:, other]
        due = torch.tensor([int(t) % 2 ** module[unit] == 0 for t in states["n"][:, 0]])
        new[:, unit] = torch.where(due, torch.tanh(net), h[:, unit])
    return new, {"h": new, "n": (states["n"] + 1) % 2 ** (groups - 1)}
