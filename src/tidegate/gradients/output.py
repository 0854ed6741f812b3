"""A layer's output where it is no state: a cell that is told the states and has no recurrence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tidegate.equations.graph import Graph, Input, State
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import SCALAR, Rate, Size, Value, constant
from tidegate.nn.held import Held, HeldBackward
from tidegate.nn.native_call import NativeCell
from tidegate.nn.sequence import Sequence as Run

if TYPE_CHECKING:
    from tidegate.gradients.plan import Plan

Tensors = Mapping[str, Tensor]
NOTHING = State("nothing", SCALAR)  # the state of a cell without a recurrence, which every cell has to have


@dataclass(eq=False)
class Kept:
    """A call bound to its tensors, forward and backward; its weights and inputs of the last time."""

    run: Held
    back: HeldBackward
    shown: Tensor  # [T, B, size]
    weights: list[Tensor]
    inputs: list[Tensor]


class Told:
    """The output of T steps and B rows by kernels, and the gradients of what it is made of. Steps count as rows."""

    @staticmethod
    def made(plan: Plan, T: int, B: int, like: Tensor) -> Told | None:
        """The output of a plan's layer, where there are kernels for it."""
        graph = told_of_states(plan.graph)
        cell = Run(graph, plan.sizes).cell(like.dtype, indices=False)
        return None if cell is None or cell.recipe.as_given is None else Told(plan, graph, cell, T, B, like)

    def __init__(self, plan: Plan, graph: Graph, cell: NativeCell, T: int, B: int, like: Tensor) -> None:
        recipe, rows = cell.recipe, rows_at_once(T * B)
        self._call = cell.call(T * B // rows, rows, backwards=False, lengths=None, reset=None)
        self._cell, self._recipe, self._shape, self._rows = cell, recipe, (T, B), (T * B // rows, rows)
        self._nothing = {NOTHING.name: like.new_zeros(rows, 1)}
        self._places = plan.places
        told = [n.startswith(("old.", "new.")) for n in recipe.inputs]
        self._needs = [*[True] * recipe.parts[0], *told, False, False]
        self._given = [k for k, is_state in enumerate(told) if not is_state]
        named = [n.partition(".")[2] for n, is_state in zip(recipe.inputs, told, strict=True) if is_state]
        self.states = tuple(n for n in plan.names if n in named)

    def held(self, weights: Tensors, inputs: Tensors, found: Tensor) -> Kept:
        """A call that reads states before the first step and after each from `found`."""
        given = {name: self._as_rows(x) for name, x in inputs.items()}
        for name in self._recipe.inputs:
            when, _, state = name.partition(".")
            if when in ("old", "new"):
                states = found[1:] if when == "new" else found[:-1]
                given[name] = self._as_rows(states[..., self._places[state]])
        tensors = self._recipe.tensors(weights, given, self._nothing, self._nothing)
        y, kept = self._call.output(), self._call.kept()
        run = Held(self._call, tensors, self._given, y, kept)
        back = HeldBackward(self._call, tensors, self._given, kept, self._needs)
        return Kept(run, back, y.view(*self._shape, -1), [], [])

    def _as_rows(self, x: Tensor) -> Tensor:
        return x.view(*self._rows, -1)

    def forward(self, weights: Tensors, inputs: Tensors, held: Kept) -> Tensor:
        """`[T, B, size]`."""
        held.weights = self._recipe.fixed(weights)
        held.inputs = [self._as_rows(inputs[self._recipe.inputs[k]]) for k in self._given]
        held.run(held.weights, held.inputs)
        return held.shown

    def backward(self, slope: Tensor, held: Kept) -> tuple[dict[str, Tensor], list[Tensor]]:
        """From the slope in the output `[T, B, size]` the gradients of weights by name, and the adjoints of `states`
        after each step."""
        T, B = self._shape
        of_weights = held.back(held.weights, held.inputs, slope.reshape(*self._rows, -1))
        named = {n: g for n, g in zip(self._recipe.as_given or (), of_weights, strict=True) if g is not None}
        of_inputs = zip(self._recipe.inputs, held.back.of_inputs, strict=True)
        told = {n: g.view(T, B, -1) for n, g in of_inputs if g is not None}
        return named, [_after(told.get(f"new.{n}"), told.get(f"old.{n}")) for n in self.states]


def _after(new: Tensor | None, old: Tensor | None) -> Tensor:
    """The adjoint of a state after each step, where what comes after it has these in it and before the next step."""
    if new is None:
        assert old is not None
        new = torch.zeros_like(old)
    if old is not None:
        new[:-1] += old[1:]
    return new


def rows_at_once(count: int) -> int:
    """How many of so many rows make a step: a divisor of them, enough for products and few enough for a cache."""
    wanted = 2 * math.isqrt(count)
    near = next(n for n in range(min(count, wanted), 0, -1) if not count % n)
    return near if 4 * near >= wanted else count


@lru_cache(maxsize=256)
def told_of_states(graph: Graph) -> Graph:
    """The graph that reads its states as inputs, `old.h` and `new.h`, and has none that moves."""
    leaves, more = dict[Value, Value](), list[Input]()
    for s in graph.states:
        for when, value in (("old", graph.old.get(s.name)), ("new", graph.new[s.name])):
            given = value is not None and value.size == s.size and (when == "old" or not value.is_leaf)
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
