"""Initial values: the expressions declared with a cell's weights, drawn with torch's generator."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.equations.values import INITIALISERS, Value, walk
from tidegate.reference import Program, weight_shape
from tidegate.reference import torch_ops as xp


def _uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(shape, dtype=torch.float64)


def _orthogonal(shape: tuple[int, ...], gain: float) -> Tensor:
    """Each matrix, or block of one, from the QR decomposition of a normal matrix, with unique signs."""
    rows, columns = shape[-2:]
    flat = torch.randn((*shape[:-2], max(rows, columns), min(rows, columns)), dtype=torch.float64)
    q, r = torch.linalg.qr(flat)
    q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign().unsqueeze(-2)
    matrix: Tensor = q if rows >= columns else q.transpose(-1, -2)
    return gain * matrix


def _glorot(shape: tuple[int, ...], gain: float) -> Tensor:
    limit = gain * math.sqrt(6.0 / max(1, shape[-2] + shape[-1])) if len(shape) > 1 else gain
    return _uniform(shape, -limit, limit)


def _ramp(shape: tuple[int, ...], start: float, step: float) -> Tensor:
    return (start + step * torch.arange(shape[0], dtype=torch.float64)).reshape(-1, *[1] * (len(shape) - 1))


def _position(shape: tuple[int, ...], axis: int) -> Tensor:
    along = torch.arange(shape[axis], dtype=torch.float64) / shape[axis]
    return along.unsqueeze(0) if axis == 1 else along.reshape(-1, *[1] * (len(shape) - 1))


DRAWS: Mapping[str, Callable[..., Tensor]] = {
    "uniform": _uniform,
    "normal": lambda shape, mean, std: mean + std * torch.randn(shape, dtype=torch.float64),
    "orthogonal": _orthogonal,
    "glorot": _glorot,
    "identity": lambda shape, gain: gain * torch.eye(*shape[-2:], dtype=torch.float64).expand(shape),
    "ramp": _ramp,
    "position": _position,
}


def draw(graph: Graph, sizes: Mapping[str, int], names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Draw an initial value for each weight, float64, in order; an expression may use earlier weights.

    With `names`, only these weights are returned, and only what they need is drawn.
    """
    wanted = list(graph.weights) if names is None else list(names)
    needed = _needed(graph, wanted)
    drawn: dict[Value, Any] = {}
    for name, weight in graph.weights.items():
        if name in needed:
            shape = weight_shape(weight, sizes)
            value = _evaluate(graph.inits[name], shape, sizes, dict(drawn))
            drawn[weight] = torch.as_tensor(value, dtype=torch.float64).expand(shape).clone()
    return {name: drawn[graph.weights[name]] for name in wanted}


def _needed(graph: Graph, names: Iterable[str]) -> set[str]:
    found = set(names)
    for name in reversed(list(graph.weights)):  # an expression uses earlier weights only
        if name in found:
            found |= {v.attrs["name"] for v in walk([graph.inits[name]]) if v.op == "weight"}
    return found


def _evaluate(init: Value, shape: tuple[int, ...], sizes: Mapping[str, int], env: dict[Value, Any]) -> Any:
    for value in walk([init]):
        if value.op in INITIALISERS:
            args = [float(a) for a in Program(value.args)(xp, sizes, env)]
            env[value] = DRAWS[value.op](shape, *args, **value.attrs)
        else:
            Program([value])(xp, sizes, env)
    return env[init]
