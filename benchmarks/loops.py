"""What a researcher writes for a cell of their own: a Python loop over time, with torch's operations.

These repeat equations, as oracles do: a peer that were derived from our graphs would be one of us. They are written as
well as can be: the input's products for all steps at once, gates stacked, one product of the state a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from benchmarks.contestants import Contestant, Differentiable, leaf
from benchmarks.problem import Problem

Outputs = tuple[Tensor, ...]
Function = Callable[..., Outputs]


@dataclass(frozen=True)
class Loop:
    """A function of x, the states and stacked weights; `stacks` says which of a cell's weights make a stack."""

    function: Function
    stacks: tuple[tuple[str, ...], ...]


def lstm(x: Tensor, h: Tensor, c: Tensor, W: Tensor, U: Tensor, b_x: Tensor, b_h: Tensor) -> Outputs:
    """torch.nn.LSTM's equations."""
    outputs = []
    for z in linear(x, W, b_x + b_h).unbind(0):
        i, f, g, o = torch.addmm(z, h, U.t()).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), h, c


def lstm_peephole(x: Tensor, h: Tensor, c: Tensor, W: Tensor, U: Tensor, b: Tensor, p: Tensor) -> Outputs:
    """Gates that see the cell."""
    outputs = []
    p_i, p_f, p_o = p.chunk(3)
    for z in linear(x, W, b).unbind(0):
        i, f, g, o = torch.addmm(z, h, U.t()).chunk(4, -1)
        c = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
        h = torch.sigmoid(o + p_o * c) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), h, c


def lstm_coupled(x: Tensor, h: Tensor, c: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Outputs:
    """What is not kept is written."""
    outputs = []
    for z in linear(x, W, b).unbind(0):
        f, g, o = torch.addmm(z, h, U.t()).chunk(3, -1)
        c = torch.lerp(torch.tanh(g), c, torch.sigmoid(f))
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), h, c


def gru(x: Tensor, h: Tensor, W: Tensor, U: Tensor, U_n: Tensor, b: Tensor) -> Outputs:
    """The reset gate acts before the product."""
    outputs, H = [], h.shape[-1]
    for z in linear(x, W, b).unbind(0):
        r, u = torch.sigmoid(torch.addmm(z[:, : 2 * H], h, U.t())).chunk(2, -1)
        n = torch.tanh(torch.addmm(z[:, 2 * H :], r * h, U_n.t()))
        h = torch.lerp(n, h, u)
        outputs.append(h)
    return torch.stack(outputs), h


def lstm_layer_norm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    W: Tensor,
    U: Tensor,
    b: Tensor,
    gain_x: Tensor,
    shift_x: Tensor,
    gain_h: Tensor,
    shift_h: Tensor,
    gain_c: Tensor,
    shift_c: Tensor,
) -> Outputs:
    """Products normalised over the units of all gates together."""
    outputs = []
    for z in (layer_norm(linear(x, W), gain_x.shape, gain_x, shift_x) + b).unbind(0):
        f, i, o, g = (z + layer_norm(h @ U.t(), gain_h.shape, gain_h, shift_h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(layer_norm(c, gain_c.shape, gain_c, shift_c))
        outputs.append(h)
    return torch.stack(outputs), h, c


def two_stages(x: Tensor, h: Tensor, W: Tensor, U: Tensor, U_n: Tensor, b: Tensor) -> Outputs:
    """Three gates, then the candidate."""
    outputs, H = [], h.shape[-1]
    for z in linear(x, W, b).unbind(0):
        r, u, f = torch.sigmoid(torch.addmm(z[:, : 3 * H], h, U.t())).chunk(3, -1)
        n = torch.tanh(torch.addmm(z[:, 3 * H :], r * h, U_n.t()))
        h = torch.tanh(f * h + u * n)
        outputs.append(h)
    return torch.stack(outputs), h


def _gates(names: str, *ends: str) -> tuple[tuple[str, ...], ...]:
    """For each ending, the gates' weights of that ending: `("i.x", "f.x")`, `("i.h", "f.h")`."""
    return tuple(tuple(f"{name}{end}" for name in names.split()) for end in ends)


_NORM = tuple(tuple(f"{norm}.{part}{k}" for k in range(4)) for norm in ("nx", "nh") for part in ("gain", "shift"))

LOOPS: Mapping[str, Loop] = {
    "lstm": Loop(lstm, (("weight_ih",), ("weight_hh",), ("bias_ih",), ("bias_hh",))),
    "lstm_peephole": Loop(lstm_peephole, (*_gates("i f g o", ".x", ".h", ".bias"), ("p_i", "p_f", "p_o"))),
    "lstm_coupled": Loop(lstm_coupled, _gates("f g o", ".x", ".h", ".bias")),
    "gru": Loop(gru, (*_gates("r z n", ".x"), *_gates("r z", ".h"), ("n.h",), *_gates("r z n", ".bias"))),
    "lstm_layer_norm": Loop(
        lstm_layer_norm,
        (*_gates("f i o g", "_x.x", "_h.h"), ("b_f", "b_i", "b_o", "b_g"), *_NORM, ("nc.gain",), ("nc.shift",)),
    ),
    "two_stages": Loop(
        two_stages, (*_gates("r u f n", ".x"), *_gates("r u f", ".h"), ("n.h",), *_gates("r u f n", ".bias"))
    ),
}


def eager(problem: Problem) -> Contestant:
    """The loop as it stands."""
    return _contestant(problem, LOOPS[problem.cell.name].function)


def compiled(problem: Problem) -> Contestant:
    """The loop through torch.compile, for this shape; its first call takes a minute or two."""
    torch._dynamo.reset()
    return _contestant(problem, torch.compile(LOOPS[problem.cell.name].function, dynamic=False))


def _contestant(problem: Problem, function: Function) -> Contestant:
    x, states = leaf(problem.x), {n: leaf(s) for n, s in problem.states.items()}
    stacks = {key: leaf(torch.cat([problem.weights[n] for n in key])) for key in LOOPS[problem.cell.name].stacks}
    arguments = (x, *states.values(), *stacks.values())
    leaves: dict[tuple[str, ...], Tensor] = {("x",): x, **{(name,): state for name, state in states.items()}}
    return Differentiable(problem, lambda: function(*arguments), leaves | stacks)
