"""A layer's output where it is no state: a cell that is told the states and has no recurrence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tidegate.equations.graph import Graph, Input
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import Rate, Size, Value, constant
from tidegate.runtime.feedforward import NOTHING, HeldRows, Rowwise
from tidegate.runtime.unroll import Unroll as Run

if TYPE_CHECKING:
    from tidegate.gradients.influence.plan import RulePlan

Tensors = Mapping[str, Tensor]


class Told:
    """The output of T steps and B rows by kernels, and the gradients of what it is made of, the `states` among that."""

    @staticmethod
    def made(plan: RulePlan, T: int, B: int, like: Tensor) -> Told | None:
        """The output of a plan's layer, where there are kernels for it and states come in their full sizes."""
        if any(plan.graph.new[s.name].size != s.size for s in plan.graph.states):
            return None
        graph = told_of_states(plan.graph)
        cell = Run(graph, plan.sizes).cell(like.dtype, indices=False)
        return None if cell is None or cell.recipe.as_given is None else Told(plan, Rowwise(cell, T, B, like))

    def __init__(self, plan: RulePlan, cell: Rowwise) -> None:
        self._cell, self._places = cell, plan.places
        self._names = cell.recipe.as_given or []
        self._told = [n for n in cell.recipe.inputs if n.startswith(("old.", "new."))]
        reached = {n.partition(".")[2] for n in self._told}
        self.states = tuple(n for n in plan.names if n in reached)

    def held(self, weights: Tensors, inputs: Tensors, found: Tensor) -> HeldOutput:
        """Bound to states before the first step and after each, `found`."""
        named = dict(inputs)
        for name in self._told:
            when, _, state = name.partition(".")
            named[name] = (found[1:] if when == "new" else found[:-1])[..., self._places[state]]
        return HeldOutput(self._cell.held(weights, named, list(inputs), self._told), self._names, self.states)


class HeldOutput:
    """An output between tensors that stay where they are; `adjoints` are those of states after each step, by name."""

    def __init__(self, rows: HeldRows, names: Sequence[str], states: Sequence[str]) -> None:
        self._rows, self._names, self.y, self.nbytes = rows, names, rows.y, rows.nbytes
        self.adjoints: dict[str, Tensor] = {}
        self._zeros, self._sums = list[Tensor](), list[tuple[Tensor, Tensor]]()
        for state in states:
            new, old = (rows.of_inputs.get(f"{when}.{state}") for when in ("new", "old"))
            if new is None:
                assert old is not None
                new = torch.zeros_like(old)
                self._zeros.append(new)
            if old is not None:
                self._sums.append((new[:-1], old[1:]))  # a state after a step is one before the next
            self.adjoints[state] = new

    def __call__(self, weights: Tensors, inputs: Tensors) -> None:
        """Compute it, `y` `[T, B, size]`."""
        self._rows(weights, inputs)

    def backward(self, slope: Tensor) -> dict[str, Tensor | None]:
        """The gradients of weights by name, from the slope in the output; those of states become `adjoints`."""
        of_weights = self._rows.backward(slope)
        for zeros in self._zeros:
            zeros.zero_()
        for new, old in self._sums:
            torch.add(new, old, out=new)
        return dict(zip(self._names, of_weights, strict=True))


@lru_cache(maxsize=256)
def told_of_states(graph: Graph) -> Graph:
    """The graph that reads its states as inputs, `old.h` and `new.h`, and has none that moves."""
    leaves, more = dict[Value, Value](), list[Input]()
    for s in graph.states:
        for when, value in (("old", graph.old.get(s.name)), ("new", graph.new[s.name])):
            given = value is not None and (when == "old" or not value.is_leaf)
            if value is not None and given and value not in leaves:
                leaves[value] = _as_input(f"{when}.{s.name}", s.size)
                more.append(Input(f"{when}.{s.name}", s.size))
    output = rewrite([graph.output], lambda v, args: leaves[v] if v in leaves else with_args(v, args))[graph.output]
    found = replace(
        graph, inputs=(*graph.inputs, *more), output=output, states=(NOTHING,), new={NOTHING.name: constant(0.0)}
    )
    used = found.input_values
    weights = {v.attrs["name"] for v in found.values if v.op == "weight"}
    return replace(
        found,
        inputs=tuple(i for i in found.inputs if i.name in used),
        weights={name: w for name, w in graph.weights.items() if name in weights},
        inits={name: v for name, v in graph.inits.items() if name in weights},
    )


def _as_input(name: str, size: Size) -> Value:
    return Value("input", (), size, Rate.INPUT, name=name)
