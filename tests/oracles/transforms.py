"""What transforms make of cells, each as its paper has it. Weights drop out, units stay, gates are normalised."""

import torch

from .common import Tensor, Tensors, affine, logistic
from .lstm import normalised


def lstm_zoneout(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Krueger et al. 2016, eqs. 5-6: the output is made of the cell before units of it were kept."""
    x, h, c = inputs["x"], states["h"], states["c"]
    i, f, o = (logistic(affine(w, gate, x=x, h=h)) for gate in "ifo")
    fresh = f * c + i * torch.tanh(affine(w, "g", x=x, h=h))
    d_c, d_h = inputs["zoneout_c_mask"], inputs["zoneout_h_mask"]
    new_c = d_c * c + (1 - d_c) * fresh
    new_h = d_h * h + (1 - d_h) * o * torch.tanh(fresh)
    return new_h, {"h": new_h, "c": new_c}


def lstm_zoneout_together(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """The same with one mask for both states."""
    mask = inputs["zoneout_mask"]
    return lstm_zoneout(w, {**inputs, "zoneout_c_mask": mask, "zoneout_h_mask": mask}, states)


def gru_state_dropout(w: Tensors, inputs: Tensors, states: Tensors, p: float = 0.25) -> tuple[Tensor, Tensors]:
    """Gal & Ghahramani 2016: what the products read of h is dropped; the old state itself is not."""
    x, h = inputs["x"], states["h"]
    read = h * inputs["dropout_h_mask"] / (1 - p)
    r, z = (logistic(affine(w, gate, x=x, h=read)) for gate in "rz")
    n = torch.tanh(affine(w, "n", x=x) + r * affine(w, "m", h=read))
    h = (1 - z) * n + z * h
    return h, {"h": h}


def lstm_candidate_dropout(w: Tensors, inputs: Tensors, states: Tensors, p: float = 0.4) -> tuple[Tensor, Tensors]:
    """Semeniuta et al. 2016, eq. 7: the candidate is dropped."""
    x, h, c = inputs["x"], states["h"], states["c"]
    i, f, o = (logistic(affine(w, gate, x=x, h=h)) for gate in "ifo")
    c = f * c + i * (torch.tanh(affine(w, "g", x=x, h=h)) * inputs["dropout_g_mask"] / (1 - p))
    h = o * torch.tanh(c)
    return h, {"h": h, "c": c}


def elman_weight_drop(w: Tensors, inputs: Tensors, states: Tensors, p: float = 0.5) -> tuple[Tensor, Tensors]:
    """Merity et al. 2017: numbers of the recurrent matrix are dropped."""
    dropped = {**w, "h.h": w["h.h"] * w["h.h_mask"] / (1 - p)}
    h = torch.tanh(affine(dropped, "h", x=inputs["x"], h=states["h"]))
    return h, {"h": h}


def lstm_gates_normalised(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Ba et al. 2016, eq. 4, gate by gate: gain times the normalised sum of products, plus the bias."""
    x, h, c = inputs["x"], states["h"], states["c"]

    def net(gate: str) -> Tensor:
        products = x @ w[f"{gate}.x"].T + h @ w[f"{gate}.h"].T
        return normalised(products, w[f"{gate}.gain"], w[f"{gate}.bias"])

    c = logistic(net("f")) * c + logistic(net("i")) * torch.tanh(net("g"))
    h = logistic(net("o")) * torch.tanh(c)
    return h, {"h": h, "c": c}


def elman_residual(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """The step is added."""
    h = states["h"] + torch.tanh(affine(w, "h", x=inputs["x"], h=states["h"]))
    return h, {"h": h}


def gru_hard(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Piecewise linear squashing, as torch has it."""
    x, h = inputs["x"], states["h"]
    r, z = ((affine(w, gate, x=x, h=h) / 6 + 0.5).clamp(0, 1) for gate in "rz")
    n = affine(w, "n", x=x, h=r * h).clamp(-1, 1)
    h = z * h + (1 - z) * n
    return h, {"h": h}


def elman_relu_clipped(w: Tensors, inputs: Tensors, states: Tensors, limit: float = 0.3) -> tuple[Tensor, Tensors]:
    """The state stays within limits."""
    h = torch.relu(affine(w, "h", x=inputs["x"], h=states["h"])).clamp(-limit, limit)
    return h, {"h": h}


def _vanilla(w: Tensors, inputs: Tensors, states: Tensors, without: str) -> tuple[Tensor, Tensors]:
    """Greff et al. 2015, section 2 with one part left out, as in their appendix."""
    x, y, c = inputs["x"], states["h"], states["c"]
    squash_in = (lambda v: v) if without == "NIAF" else torch.tanh
    squash_out = (lambda v: v) if without == "NOAF" else torch.tanh
    z = squash_in(affine(w, "g", x=x, h=y))
    f = 1.0 if without == "NFG" else logistic(affine(w, "f", x=x, h=y) + w["p_f"] * c)
    i = {"NIG": 1.0, "CIFG": 1.0 - f}.get(without)
    i = logistic(affine(w, "i", x=x, h=y) + w["p_i"] * c) if i is None else i
    c = z * i + c * f
    o = 1.0 if without == "NOG" else logistic(affine(w, "o", x=x, h=y) + w["p_o"] * c)
    y = squash_out(c) * o
    return y, {"h": y, "c": c}


def lstm_no_input_gate(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """NIG."""
    return _vanilla(w, inputs, states, "NIG")


def lstm_no_forget_gate(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """NFG."""
    return _vanilla(w, inputs, states, "NFG")


def lstm_no_output_gate(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """NOG."""
    return _vanilla(w, inputs, states, "NOG")


def lstm_no_input_activation(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """NIAF."""
    return _vanilla(w, inputs, states, "NIAF")


def lstm_no_output_activation(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """NOAF."""
    return _vanilla(w, inputs, states, "NOAF")


def lstm_coupled_peephole(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """CIFG."""
    return _vanilla(w, inputs, states, "CIFG")
