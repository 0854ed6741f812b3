"""`Trace`: every named value of a cell's equations at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, Value
from tidegate.reference import Program, bound, leaves
from tidegate.reference import torch_ops as xp
from tidegate.reference.unroll import Tensors, UnrollArguments, in_form_of, steps_and_rows
from tidegate.runtime import support
from tidegate.runtime.kernel_inputs import KernelInputs


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
) -> tuple[dict[str, Tensor], Tensor]:
    """Every named value of the step at every step, `[T, B, size]` by printed name, and the output."""
    named = {label: v for label, v in graph.named.items() if v.rate > Rate.WEIGHTS}
    found = _by_kernel(graph, sizes, weights, inputs, state, tuple(named))
    return _step_by_step(graph, sizes, weights, inputs, state, named) if found is None else found


def _by_kernel(
    graph: Graph,
    sizes: Mapping[str, int],
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    state: Tensors,
    labels: tuple[str, ...],
) -> tuple[dict[str, Tensor], Tensor] | None:
    """The trace by a kernel that saves every named value; None if it cannot run."""
    if torch._C._are_functorch_transforms_active():
        return None
    x = [inputs[i.name] for i in graph.inputs]
    indices = not x[0].is_floating_point()
    numbers = [*weights.values(), *x[indices:], *state.values()]
    if not support.supports(graph.name, support.unsupported(graph, numbers, indices=indices)):
        return None
    known = support.kernel_inputs(graph, tuple(sizes.items()), indices)
    if not known.has_steps(x, None) or not _all_computed(known, labels):
        return None
    cell = support.cell_kernel(graph, sizes, numbers, indices=indices, traced=labels)
    if cell is None:
        return None
    starts = {n: s[:1] for n, s in state.items()}  # not read, since nothing is reset
    tensors = known.tensors(UnrollArguments(weights, inputs, state, starts))
    T, B = known.steps_and_rows(tensors)
    y, *_, saved = cell.call(T, B).forward(tensors, saving=True)
    plan, begins = cell.kernel.plan, dict(cell.saved)
    offset = {v: begins[f"keep.{k}"] * T * B for k, v in enumerate(plan.stored)}
    found = {}
    for label in labels:
        value = plan.graph.named[label]
        shape = T, B, *bound(value.size, sizes)
        found[label] = (
            saved[offset[value] :][: math.prod(shape)].view(shape).clone()
        )  # saved values are in borrowed memory
    return found, y


def _all_computed(known: KernelInputs, labels: tuple[str, ...]) -> bool:
    """Whether a kernel computes every value separately: some are fused into others."""
    named = known.plan.graph.named
    return all(label in named and named[label].op != "concat" for label in labels)


def _step_by_step(
    graph: Graph,
    sizes: Mapping[str, int],
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    state: Tensors,
    named: Mapping[str, Value],
) -> tuple[dict[str, Tensor], Tensor]:
    T, B = steps_and_rows(graph, inputs)
    program = Program([*named.values(), graph.output, *graph.new.values()])
    like = next(iter(state.values()))
    output = like.new_empty((B, *bound(graph.output_size, sizes)))
    kept: dict[str, list[Tensor]] = {label: [] for label in named}
    outputs: list[Tensor] = []
    for t in range(T):
        now = {name: _at(inputs[name], v, t) for name, v in graph.input_values.items()}
        env = leaves(graph, weights, now, state)
        program(xp, sizes, env)
        for label, v in named.items():
            kept[label].append(torch.as_tensor(env[v]).expand(B, *bound(v.size, sizes)))
        outputs.append(in_form_of(env[graph.output], output))
        state = {k: in_form_of(env[v], state[k]) for k, v in graph.new.items()}
    if not T:
        empty = {label: like.new_zeros((0, B, *bound(v.size, sizes))) for label, v in named.items()}
        return empty, output.new_empty((0, *output.shape))
    return {label: torch.stack(rows) for label, rows in kept.items()}, torch.stack(outputs)


def _at(x: Tensor, value: Value, t: int) -> Tensor:
    return x[t] if value.rate == Rate.INPUT else x
