"""A problem: one cell at one shape with its numbers. Every contestant gets the same, and is held to the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.shapes import Shape
from tidegate.cells import get
from tidegate.equations import Cell, Graph
from tidegate.nn.torch_modules.layouts import TORCH, cell_weights
from tidegate.reference import step, torch_ops, weight_shape

Named = Mapping[str, Tensor]
TENSORS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True, eq=False)
class Problem:
    """What is given, and the adjoints of what is wanted, all float32.

    `weights` are under the cell's own names, or under torch's where `mode` names torch's module ("LSTM"). `states` are
    `[B, H]`; `output_gradients` belong to the output `y` and to each state at the end. `lengths` ends rows early.
    """

    cell: Cell
    shape: Shape
    x: Tensor
    states: Named
    weights: Named
    output_gradients: Named
    mode: str | None = None
    lengths: Tensor | None = None

    @property
    def graph(self) -> Graph:
        """The cell's equations."""
        return self.cell.graph

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter."""
        return {"I": self.shape.I, "H": self.shape.H}

    @property
    def cell_weights(self) -> dict[str, Tensor]:
        """The weights under the cell's own names."""
        return in_cell_names(self.mode, self.weights)

    @property
    def given(self) -> dict[str, Tensor]:
        """Everything that has a gradient, by one name each."""
        return {"x": self.x, **self.states, **self.weights}


def in_cell_names(mode: str | None, weights: Named) -> dict[str, Tensor]:
    """Weights under the cell's own names, as expressions of those of torch's module."""
    return dict(weights) if mode is None else cell_weights(TORCH[mode], weights)


def of_cell(cell: Cell, shape: Shape) -> Problem:
    """A cell as `tidegate.Recurrent` runs it."""
    graph, sizes = cell.graph, {"I": shape.I, "H": shape.H}
    wanted = {name: weight_shape(weight, sizes) for name, weight in graph.weights.items()}
    begin = {name: _declared(graph, name) if len(size) == 1 else 0.0 for name, size in wanted.items()}
    return _drawn(cell, shape, wanted, begin)


def of_torch(mode: str, shape: Shape, *, lengths: Tensor | None = None) -> Problem:
    """One of torch's modules, as its drop-in runs it; `mode` is `LSTM`, `GRU` or `RNN_TANH`."""
    layout = TORCH[mode]
    rows = layout.blocks * shape.H
    wanted = dict(zip(TENSORS, ((rows, shape.I), (rows, shape.H), (rows,), (rows,)), strict=True))
    return _drawn(get(layout.cell), shape, wanted, dict.fromkeys(wanted, 0.0), mode, lengths)


def _drawn(
    cell: Cell,
    shape: Shape,
    wanted: Mapping[str, tuple[int, ...]],
    begin: Mapping[str, float],
    mode: str | None = None,
    lengths: Tensor | None = None,
) -> Problem:
    """Weights as torch draws them (with which no cell here is chaotic), vectors around what the cell declares."""
    chance, reach = torch.Generator().manual_seed(1), shape.H**-0.5

    def uniform(*size: int) -> Tensor:
        return reach * (2 * torch.rand(*size, generator=chance) - 1)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=chance)

    names = [s.name for s in cell.graph.states]
    return Problem(
        cell,
        shape,
        normal(shape.T, shape.B, shape.I),
        {name: 0.5 * normal(shape.B, shape.H) for name in names},
        {name: begin[name] + uniform(*size) for name, size in wanted.items()},
        {"y": normal(shape.T, shape.B, shape.H), **{f"{n} at the end": normal(shape.B, shape.H) for n in names}},
        mode,
        lengths,
    )


def _declared(graph: Graph, weight: str) -> float:
    start = graph.inits[weight]
    return float(start.attrs["value"]) if start.op == "constant" else 0.0


def solve(problem: Problem, *, training: bool) -> dict[str, Tensor]:
    """The right answer: the reference step after step in float64, with gradients ("gradient of x") where asked for."""
    given = {name: v.double().requires_grad_(training) for name, v in problem.given.items()}
    weights = in_cell_names(problem.mode, {name: given[name] for name in problem.weights})
    outputs, states = [], [{name: given[name] for name in problem.states}]
    for x in given["x"].unbind(0):
        y, new = step(problem.graph, weights, {"x": x}, states[-1], torch_ops, problem.sizes)
        outputs.append(y)
        states.append(new)
    results = {"y": torch.stack(outputs)}
    results |= {f"{name} at the end": torch.stack([s[name] for s in states]) for name in problem.states}
    results = _ended(results, problem.lengths)
    if not training:
        return results
    adjoints = [gradient.double() for gradient in problem.output_gradients.values()]
    gradients = torch.autograd.grad(list(results.values()), list(given.values()), adjoints)
    found = {name: value.detach() for name, value in results.items()}
    return found | {f"gradient of {name}": gradient for name, gradient in zip(given, gradients, strict=True)}


def _ended(results: dict[str, Tensor], lengths: Tensor | None) -> dict[str, Tensor]:
    """The output, 0 after a row's end, and of each state's course what it was there."""
    y, *courses = results.values()
    T, B = y.shape[:2]
    last = torch.full((B,), T) if lengths is None else lengths
    y = torch.where((torch.arange(T).unsqueeze(1) < last).unsqueeze(-1), y, 0.0)
    return dict(zip(results, [y, *(course[last, torch.arange(B)] for course in courses)], strict=True))


def difference(found: Named, right: Named) -> float:
    """The largest difference of any tensor that was found, relative to the largest number of the right one."""
    return max(_relative(value.detach().double(), right[name]) for name, value in found.items())


def _relative(value: Tensor, right: Tensor) -> float:
    off, scale = (value.reshape(right.shape) - right).abs().max(), right.abs().max()
    worst = float(off / scale) if scale > 0 else float(off)
    return worst if worst == worst else float("inf")  # NaN is as wrong as can be
