"""torchrecurrent's modules as peers: published cells in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.contestants import Contestant, Differentiable, leaf
from benchmarks.problem import Problem

try:
    import torchrecurrent
except ModuleNotFoundError:
    torchrecurrent = None

# By our cell: their module, and which of our weights make each of their parameters; their second bias stays 0.
_GATES = "ifgo"
MODULES: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "lstm_peephole": (
        "PeepholeLSTM",
        {
            "weight_ih": tuple(f"{g}.x" for g in _GATES),
            "weight_hh": tuple(f"{g}.h" for g in _GATES),
            "weight_ph": ("p_i", "p_f", "p_o"),
            "bias_ih": tuple(f"{g}.bias" for g in _GATES),
            "bias_hh": (),
        },
    )
}


def layer(problem: Problem) -> Contestant:
    """Their layer for the problem's cell."""
    kind, stacks = MODULES[problem.cell.name]
    net = getattr(torchrecurrent, kind)(problem.shape.I, problem.shape.H)
    parameters = {name: getattr(net.cells[0], name) for name in stacks}
    with torch.no_grad():
        for name, key in stacks.items():
            parameters[name].copy_(torch.cat([problem.weights[n] for n in key]) if key else torch.zeros(()))
    x, states = leaf(problem.x), {n: leaf(s, 1) for n, s in problem.states.items()}
    begin = tuple(states.values())

    def run() -> tuple[Tensor, ...]:
        y, ends = net(x, begin)
        return y, *ends

    leaves: dict[tuple[str, ...], Tensor] = {("x",): x, **{(name,): state for name, state in states.items()}}
    leaves |= {stacks[name]: parameter for name, parameter in parameters.items()}
    return Differentiable(problem, run, leaves, lead=(1,))
