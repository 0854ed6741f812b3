"""Evaluates the values that rules read of steps: vectors by kernels, matrices by torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, Value, walk
from tidegate.reference import Program, bound, leaves
from tidegate.reference import torch_ops as xp
from tidegate.reference.step_program import StepProgram
from tidegate.reference.unroll import UnrollArguments
from tidegate.runtime.unroll import Unroll as Run

Tensors = Mapping[str, Tensor]


class StepEvaluator:
    """Evaluates the values that trackers read of each step.

    Vectors are computed for all steps by one call of the cell with these vectors as its output, on kernels if
    possible; values beyond vectors, such as the Jacobian of a dense recurrence, by torch for all steps at once.
    `numbers` is their number of elements per step and row.
    """

    def __init__(self, graph: Graph, sizes: Mapping[str, int], wanted: Sequence[Value]) -> None:
        self.graph, self.sizes = graph, sizes
        self.vectors = _vectors(wanted)
        self.widths = [bound(v.size, sizes)[0] for v in self.vectors]
        self.run = Run(giving(graph, self.vectors), sizes) if self.vectors else None
        fixed = [v for v in walk(wanted) if v.rate == Rate.WEIGHTS and v.op != "weight"]
        self._fixed = Program(fixed)
        self.given = [v for v in dict.fromkeys(wanted) if v.rate == Rate.WEIGHTS]
        moving = [v for v in dict.fromkeys([*self.vectors, *wanted]) if v.rate > Rate.WEIGHTS]
        self.numbers = sum(math.prod(bound(v.size, sizes)) for v in moving)
        given = [*graph.weights.values(), *graph.input_values.values(), *graph.old.values()]
        known = dict.fromkeys([*self._fixed.roots, *given, *self.vectors])
        self._code = StepProgram([v for v in wanted if v not in known], known, sizes)
        self._rest = [v for v in self._code.place if v not in known and v.op != "constant"]

    @property
    def only_vectors(self) -> bool:
        """Whether all values are vectors or depend on weights only."""
        return not self._rest

    def fixed(self, weights: Tensors) -> dict[Value, Tensor]:
        """The values that depend on weights only, `[n]` each."""
        like, made = next(iter(weights.values())), self._made(weights)
        shapes = {v: bound(v.size, self.sizes) for v in self.given}
        return {v: torch.as_tensor(made[v], dtype=like.dtype).expand(n).contiguous() for v, n in shapes.items()}

    def _made(self, weights: Tensors) -> dict[Value, Any]:
        """The values that depend on weights only, as the equations give them."""
        env: dict[Value, Any] = {self.graph.weights[name]: w for name, w in weights.items()}
        with torch.no_grad():
            self._fixed(xp, self.sizes, env)
        return env

    def __call__(
        self, given: UnrollArguments, old: Tensors, read: Mapping[Value, Tensor] | None = None
    ) -> dict[Value, Any]:
        """The values by themselves, `[T, B, ...]`; `old` are the states before each step.

        Vectors that were `read` by another run are not computed again.
        """
        env = leaves(self.graph, given.weights, given.inputs, old)
        like = next(iter(old.values()))
        for value, found in zip(self._fixed.roots, self._fixed(xp, self.sizes, env), strict=True):
            env[value] = found if isinstance(found, Tensor) else like.new_full((1,), found)
        if read is not None:
            env |= read
        elif self.run is not None:
            env |= dict(zip(self.vectors, self.run(given)[0].split(self.widths, -1), strict=True))
        places = self._code.places(env)
        self._code(places)
        return env | {v: places[self._code.place[v]] for v in self._rest}


@lru_cache(maxsize=256)
def reader(graph: Graph, sizes: tuple[tuple[str, int], ...], wanted: tuple[Value, ...]) -> StepEvaluator:
    """The cached evaluator of these values: planning takes longer than a thousand steps of a small net."""
    return StepEvaluator(graph, dict(sizes), wanted)


def _vectors(wanted: Sequence[Value]) -> list[Value]:
    """The vectors among the values, and among the operands of their matrices."""
    found: dict[Value, None] = {}
    for value in walk(wanted):
        if len(value.size) == 2:
            found |= dict.fromkeys(a for a in value.args if len(a.size) == 1)
    found |= dict.fromkeys(v for v in wanted if len(v.size) == 1)
    return [v for v in found if v.rate > Rate.WEIGHTS and not v.is_leaf]


def giving(graph: Graph, vectors: Sequence[Value]) -> Graph:
    """The graph with these values as its output, side by side."""
    if len(vectors) == 1:
        return replace(graph, output=vectors[0], output_name="read")
    width = "+".join(str(v.size[0]) for v in vectors)
    return replace(graph, output=Value("concat", tuple(vectors), (width,)), output_name="read")
