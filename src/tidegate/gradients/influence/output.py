"""Outputs that are not states, as a cell without a recurrence that reads the states as inputs."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from tidegate.equations.graph import Graph, Input
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import Rate, Value, constant
from tidegate.gradients.influence.plan import RulePlan
from tidegate.runtime.feedforward import NOTHING, FeedForward
from tidegate.runtime.support import cell_kernel

Tensors = Mapping[str, Tensor]


class OutputCell:
    """The output of T steps and B rows by kernels, and its gradients, those of `states` among them."""

    @staticmethod
    def compile(plan: RulePlan, T: int, B: int, like: Tensor) -> "OutputCell | None":
        """The output of a plan's layer; None if no kernel can run, or a state is smaller than declared."""
        if any(plan.graph.new[s.name].size != s.size for s in plan.graph.states):
            return None
        cell = cell_kernel(output_graph(plan.graph), plan.sizes, [like])
        return None if cell is None or cell.inputs.as_given is None else OutputCell(plan, FeedForward(cell, T, B, like))

    def __init__(self, plan: RulePlan, cell: FeedForward) -> None:
        self._cell, self._places = cell, plan.places
        self._weights = cell.inputs.as_given or []
        self._read = [n for n in cell.inputs.inputs if n.startswith(("old.", "new."))]
        reached = {n.partition(".")[2] for n in self._read}
        self.states = tuple(n for n in plan.names if n in reached)

    def states_of(self, found: Tensor) -> dict[str, Tensor]:
        """The states that the output reads, as views of a run's result."""
        named = {}
        for name in self._read:
            when, _, state = name.partition(".")
            named[name] = self._cell.rows((found[1:] if when == "new" else found[:-1])[..., self._places[state]])
        return named

    def forward(self, weights: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, list[Tensor]]:
        """The output `[T, B, size]`, and what `backward` takes."""
        return self._cell.forward(weights, {**states, **{n: self._cell.rows(x) for n, x in inputs.items()}})

    def backward(self, dy: Tensor, forward: list[Tensor]) -> tuple[dict[str, Tensor | None], dict[str, Tensor]]:
        """The gradients of weights by name, and of each of `states` after every step, `[T, B, size]`."""
        of_weights, of_read = self._cell.backward(dy, forward, self._read)
        of_states = {}
        for state in self.states:
            new, old = of_read.get(f"new.{state}"), of_read.get(f"old.{state}")
            if new is None:
                assert old is not None
                new = torch.zeros_like(old)
            if old is not None:
                new[:-1] += old[1:]  # the state after a step is the one before the next
            of_states[state] = new
        return dict(zip(self._weights, of_weights, strict=True)), of_states


@lru_cache(maxsize=256)
def output_graph(graph: Graph) -> Graph:
    """The graph of the output alone, which reads states before and after a step as inputs `old.h` and `new.h`."""
    leaves, more = dict[Value, Value](), list[Input]()
    for s in graph.states:
        for when, value in (("old", graph.old.get(s.name)), ("new", graph.new[s.name])):
            given = value is not None and (when == "old" or not value.is_leaf)
            if value is not None and given and value not in leaves:
                leaves[value] = Value("input", (), s.size, Rate.INPUT, name=f"{when}.{s.name}")
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
