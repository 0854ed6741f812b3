"""`Trace`: every named value of a cell's equations at every step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate
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


@dataclass(frozen=True, eq=False)
class AutogradUnroll:
    """One layer's run over T steps.

    `inputs` are `[T, B, size]` by name (`[B, size]` where they stay the same); `states` are T + 1 mappings by name,
    `[B, size]` each: before the first step, and after every one; `values` are T mappings of what the equations name.
    What later values were computed from is these very tensors, so that autograd gives the whole derivative in them.
    """

    graph: Graph
    sizes: Mapping[str, int]
    weights: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    states: Sequence[Tensors]
    values: Sequence[Tensors]

    def read(self, t: int) -> dict[str, Tensor]:
        """What step t reads, by the input's name."""
        return _read(self.graph, self.inputs, t)


def trace(
    graph: Graph, sizes: Mapping[str, int], weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], state: Tensors
) -> tuple[dict[str, Tensor], Tensor]:
    """Every named value of the step at every step, `[T, B, size]` by printed name, and the output."""
    named = {label: v for label, v in graph.named.items() if v.rate > Rate.WEIGHTS}
    found = _by_kernel(graph, sizes, weights, inputs, state, tuple(named))
    if found is not None:
        return found
    T, B = steps_and_rows(graph, inputs)
    if not T:
        like, shapes = next(iter(state.values())), {label: bound(v.size, sizes) for label, v in named.items()}
        empty = {label: like.new_zeros((0, B, *shape)) for label, shape in shapes.items()}
        return empty, like.new_zeros((0, B, *bound(graph.output_size, sizes)))
    run, y = follow_cell(graph, sizes, weights, dict(inputs), state)
    return {label: torch.stack([values[label] for values in run.values]) for label in named}, y


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


def follow_cell(
    graph: Graph, sizes: Mapping[str, int], weights: Mapping[str, Tensor], inputs: Tensors, begin: Tensors
) -> tuple[AutogradUnroll, Tensor]:
    """A run of one step or more by torch's own operations, and its output `[T, B, size]`."""
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
        values.append({label: torch.as_tensor(env[v]).expand(B, *bound(v.size, sizes)) for label, v in named.items()})
    return AutogradUnroll(graph, sizes, weights, inputs, states, values), torch.stack(outputs)


def _own(env: dict[Any, Any], value: Any, old: Tensor, given: bool) -> Tensor:
    """A new state as a tensor that is no other state's; what is computed from it later takes this one.

    One number for all units is repeated in the state alone: what the step computes of it beside reads the one number.
    """
    tensor = in_form_of(env[value], old)
    if torch.is_grad_enabled() and not tensor.requires_grad:
        tensor = tensor.detach().requires_grad_()  # it comes from inputs alone, and something may come from it
    if given:
        return tensor.view_as(tensor)  # it only remembers an input or another state
    if getattr(env[value], "shape", None) == tensor.shape:
        env[value] = tensor
    return tensor


def _read(graph: Graph, inputs: Mapping[str, Tensor], t: int) -> dict[str, Tensor]:
    return {name: inputs[name][t] if v.rate == Rate.INPUT else inputs[name] for name, v in graph.input_values.items()}
