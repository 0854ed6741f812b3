"""A layer run step by step, so that autograd has a separate tensor for every state: for gradients through time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tidegate.cells.glossary import label
from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate
from tidegate.nn.arguments import Batch, check_types
from tidegate.nn.layer import Recurrent
from tidegate.nn.stack import Stack
from tidegate.nn.state import State
from tidegate.reference import Program, bound, leaves
from tidegate.reference import torch_ops as xp
from tidegate.reference.unroll import Tensors, in_form_of, steps_and_rows


@dataclass(frozen=True, eq=False)
class AutogradUnroll:
    """One layer's run over T steps.

    `inputs` are `[T, B, size]` by name (`[B, size]` where they stay the same); `states` are T + 1 mappings by name,
    `[B, size]` each: before the first step, and after every one; `values` are T mappings of what the equations name.
    Later values are computed from these very tensors, so autograd gives total derivatives with respect to them.
    """

    graph: Graph
    sizes: Mapping[str, int]
    weights: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    states: Sequence[Tensors]
    values: Sequence[Tensors]

    def read(self, t: int) -> dict[str, Tensor]:
        """The inputs of step t by name."""
        return _read(self.graph, self.inputs, t)


def follow(layer: Recurrent | Stack, x: Any, state: State | None = None) -> tuple[Tensor, list[AutogradUnroll]]:
    """The output `[T, B, size]` for time-major `x`, and the run of each layer, the first one first.

    It runs on the reference path, with masks at their expected values and without dropout. The layer must have one
    direction.
    """
    if isinstance(layer, Stack):
        y, runs = layer.through(x, state, follow)
        return y, runs
    batch = Batch(layer.graph, x, None, None, False, layer.sizes)
    layers, first = layer.directions(), layer.graph.inputs[0].name
    check_types(batch, next(iter(layers[0][0].weights.values())))
    begins = layer.initial_state(batch.rows) if state is None else state
    inputs, found = dict(batch.inputs), []
    for (direction,), (begin,) in zip(layers, begins.layers, strict=True):
        sequence = direction.unroll.average
        run, y = _follow_one(sequence.graph, sequence.sizes, direction.weights, dict(inputs), dict(begin))
        found.append(run)
        inputs[first] = y
    return inputs[first], found


def state_label(graph: Graph, state: str) -> str:
    """A state's label in plots: from the glossary, or its name."""
    return label(graph, state) if state in graph.named else state


def _follow_one(
    graph: Graph, sizes: Mapping[str, int], weights: Mapping[str, Tensor], inputs: Tensors, begin: Tensors
) -> tuple[AutogradUnroll, Tensor]:
    named = {label: v for label, v in graph.named.items() if v.rate > Rate.WEIGHTS}
    advance, rest = Program(graph.new.values()), Program([graph.output, *named.values()])
    T, B = steps_and_rows(graph, inputs)
    like = next(iter(begin.values())).new_empty((B, *bound(graph.output_size, sizes)))
    states, values, outputs = [begin], [], []
    for t in range(T):
        env = leaves(graph, weights, _read(graph, inputs, t), states[-1])
        given = set(env)
        advance(xp, sizes, env)
        states.append({name: _own(env, v, states[-1][name], v in given) for name, v in graph.new.items()})
        rest(xp, sizes, env)
        outputs.append(in_form_of(env[graph.output], like))
        values.append({label: _expanded(env[v], B, bound(v.size, sizes)) for label, v in named.items()})
    return AutogradUnroll(graph, sizes, weights, inputs, states, values), torch.stack(outputs)


def _own(env: dict[Any, Any], value: Any, old: Tensor, given: bool) -> Tensor:
    """A new state as a tensor of its own, which later steps read.

    A scalar is expanded in the state only; other values of the step read the scalar.
    """
    tensor = in_form_of(env[value], old)
    if torch.is_grad_enabled() and not tensor.requires_grad:
        tensor = tensor.detach().requires_grad_()  # computed from inputs alone; later values may depend on it
    if given:
        return tensor.view_as(tensor)  # the new value is an input or another state
    if getattr(env[value], "shape", None) == tensor.shape:
        env[value] = tensor
    return tensor


def _expanded(value: Any, rows: int, size: tuple[int, ...]) -> Tensor:
    return torch.as_tensor(value).expand(rows, *size)


def _read(graph: Graph, inputs: Mapping[str, Tensor], t: int) -> dict[str, Tensor]:
    return {name: inputs[name][t] if v.rate == Rate.INPUT else inputs[name] for name, v in graph.input_values.items()}
