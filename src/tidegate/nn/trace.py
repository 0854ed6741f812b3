"""Looking inside: every named value of a cell's equations at every step."""

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
from tidegate.reference.unroll import Tensors, in_form_of, steps_and_rows
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
    """The same by a kernel that keeps what has a name, if there is one for such a call."""
    given = [inputs[i.name] for i in graph.inputs]
    indices = not given[0].is_floating_point()
    numbers = [*weights.values(), *given[indices:], *state.values()]
    if not support.enabled() or torch._C._are_functorch_transforms_active() or not support.fits(graph.name, numbers):
        return None
    recipe = support.recipe(graph, tuple(sizes.items()), indices)
    if isinstance(recipe, str) or not recipe.has_steps(given, None) or not _all_computed(recipe, labels):
        return None
    cell = support.native_cell(recipe, graph.name, numbers[0].dtype, labels)
    if cell is None:
        return None
    tensors = recipe.tensors(weights, inputs, state, {n: s[:1] for n, s in state.items()})  # nothing starts afresh
    T, B = recipe.steps_and_rows(tensors)
    y, *_, kept = cell.call(T, B, False, None, None).forward(tensors, keeping=True)
    plan, begins = cell.kernel.plan, dict(cell.kept)
    place = {v: begins[f"keep.{k}"] * T * B for k, v in enumerate(plan.stored)}
    found = {}
    for label in labels:
        value = plan.graph.named[label]
        shape = T, B, *bound(value.size, sizes)
        found[label] = kept[place[value] :][: math.prod(shape)].view(shape).clone()  # what is kept is memory on loan
    return found, y


def _all_computed(recipe: KernelInputs, labels: tuple[str, ...]) -> bool:
    """Whether a kernel has every value as such: some become part of others, and what is joined stays apart."""
    named = recipe.plan.graph.named
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
