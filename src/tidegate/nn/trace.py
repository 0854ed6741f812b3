"""Looking inside: every named value of a cell's equations at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, Value
from tidegate.nn.loop import Tensors, in_form_of, steps_and_rows
from tidegate.reference import Program, bound, leaves
from tidegate.reference import torch_ops as xp


class Trace(Mapping[str, Tensor]):
    """The named values of a run, `[T, B, size]` by printed name: those of the top layer; `trace.layers` has each."""

    def __init__(self, layers: list[dict[str, Tensor]]) -> None:
        self.layers = tuple(layers)

    def __getitem__(self, name: str) -> Tensor:
        return self.layers[-1][name]

    def __iter__(self) -> Any:
        return iter(self.layers[-1])

    def __len__(self) -> int:
        return len(self.layers[-1])


def trace(
    graph: Graph, sizes: Mapping[str, int], weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], state: Tensors
) -> dict[str, Tensor]:
    """Every named value of the step at every step, `[T, B, size]` by printed name."""
    T, B = steps_and_rows(graph, inputs)
    named = {label: v for label, v in graph.named.items() if v.rate > Rate.WEIGHTS}
    program = Program([*named.values(), *graph.new.values()])
    kept: dict[str, list[Tensor]] = {label: [] for label in named}
    for t in range(T):
        now = {name: _at(inputs[name], v, t) for name, v in graph.input_values.items()}
        env = leaves(graph, weights, now, state)
        program(xp, sizes, env)
        for label, v in named.items():
            kept[label].append(torch.as_tensor(env[v]).expand(B, *bound(v.size, sizes)))
        state = {k: in_form_of(env[v], state[k]) for k, v in graph.new.items()}
    empty = {label: next(iter(state.values())).new_zeros((0, B, *bound(v.size, sizes))) for label, v in named.items()}
    return {label: torch.stack(rows) if rows else empty[label] for label, rows in kept.items()}


def _at(x: Tensor, value: Value, t: int) -> Tensor:
    return x[t] if value.rate == Rate.INPUT else x
