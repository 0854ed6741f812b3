"""A layer's output from its states, where it is no state itself: a cell that is told them and has no recurrence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from tidegate.equations.graph import Graph, Input, State
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import SCALAR, Rate, Size, Value, constant
from tidegate.nn.sequence import Sequence as Run

Tensors = Mapping[str, Tensor]
NOTHING = State("nothing", SCALAR)  # the state of a cell without a recurrence, which every cell has to have


class Output:
    """The output of a layer whose sizes are bound."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.graph = told_of_states(graph)
        self.run = Run(self.graph, sizes)
        self.names = [i.name for i in self.graph.inputs]
        self.reads_old = any(name.startswith("old.") for name in self.names)

    def __call__(self, weights: Tensors, inputs: Tensors, old: Tensors, new: Tensors) -> Tensor:
        """`[T, B, size]`, of weights, inputs, and the states before and after each step."""
        every = {**inputs, **{f"old.{n}": s for n, s in old.items()}, **{f"new.{n}": s for n, s in new.items()}}
        first = next(iter(new.values()))
        nothing = {NOTHING.name: first.new_zeros(first.shape[1], 1)}
        used = {name: every[name] for name in self.names}
        return self.run({name: weights[name] for name in self.graph.weights}, used, nothing, nothing)[0]


@lru_cache(maxsize=256)
def told_of_states(graph: Graph) -> Graph:
    """The graph that reads its states as inputs, `old.h` and `new.h`, and has none that moves."""
    leaves, more = dict[Value, Value](), list[Input]()
    for s in graph.states:
        for when, value in (("old", graph.old.get(s.name)), ("new", graph.new[s.name])):
            given = value is not None and value.size == s.size and (when == "old" or not value.is_leaf)
            if value is not None and given and value not in leaves:
                leaves[value] = as_input(f"{when}.{s.name}", s.size)
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


def as_input(name: str, size: Size) -> Value:
    """A value that is read at each step under a name."""
    return Value("input", (), size, Rate.INPUT, name=name)
