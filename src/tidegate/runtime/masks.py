"""Random masks of transformed cells: ones and zeros in training, the probability of a one in evaluation."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.calculus import simplify_graph
from tidegate.equations.graph import Graph
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import Rate, Value
from tidegate.equations.verify import expected_size
from tidegate.native.run.workspace import WORKSPACE
from tidegate.reference import Program, bound, weight_shape
from tidegate.reference import numpy_ops as xp

NUMPY_TYPES: Mapping[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
NUMPY_MIN_ELEMENTS = 2048  # elements from which numpy's generator, with its start-up cost, is faster than torch's
PROBABILITY_STEPS = 1 << 16


@lru_cache(maxsize=256)
def chances(graph: Graph) -> Mapping[str, float]:
    """The probability of a one in each mask."""
    found = Program(graph.masks.values())(xp, {}, {})
    return {name: float(chance) for name, chance in zip(graph.masks, found, strict=True)}


@lru_cache(maxsize=256)
def without_masks(graph: Graph) -> Graph:
    """The simplified graph with masks replaced by their probabilities, as used in evaluation."""
    if not graph.masks:
        return graph
    known = chances(graph)

    def visit(value: Value, args: tuple[Value, ...]) -> Value:
        if value.op in ("input", "weight") and value.attrs["name"] in known:
            return Value("constant", value=known[value.attrs["name"]])
        if value.op == "constant":
            return Value("constant", value=value.attrs["value"])
        copy = with_args(value, args)
        if copy is not value:
            copy.size = expected_size(copy) or value.size  # masks have the size of what they scale
        return copy

    new = rewrite(graph.roots, visit)
    return simplify_graph(
        replace(
            graph,
            inputs=tuple(i for i in graph.inputs if i.name not in known),
            output=new[graph.output],
            new={name: new[v] for name, v in graph.new.items()},
            weights={name: w for name, w in graph.weights.items() if name not in known},
            inits={name: v for name, v in graph.inits.items() if name not in known},
            masks={},
        )
    )


class Masks:
    """Draws the masks of a cell with bound sizes."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        known = chances(graph)
        inputs = [i for i in graph.inputs if i.name in known]
        self.names = [i.name for i in inputs]
        self._inputs = [(i.name, i.rate, bound(i.size, sizes), known[i.name]) for i in inputs]
        weights = [(name, w) for name, w in graph.weights.items() if name in known]
        self._weights = [(name, weight_shape(w, sizes), known[name]) for name, w in weights]
        self.any = bool(inputs or weights)

    def inputs(self, steps: int, rows: int, given: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        """A call's inputs: those `given`, and newly drawn masks."""
        found = dict(given)
        for name, rate, size, chance in self._inputs:
            if name not in found:
                lead = (rows,) if rate == Rate.SEQUENCE else (steps, rows)
                found[name] = _ones(like, (*lead, *size), chance)
        return found

    def weights(self, given: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        """A call's weights with newly drawn masks."""
        return {**given, **{name: _ones(like, shape, chance) for name, shape, chance in self._weights}}


def _ones(like: Tensor, shape: tuple[int, ...], chance: float) -> Tensor:
    """Ones with this probability, else zeros, from a generator seeded by torch's: torch's own Bernoulli takes 17 ns per
    element, more than a training step spends on it."""
    count = math.prod(shape)
    kind = NUMPY_TYPES.get(like.dtype)
    plain = like.is_cpu and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
    if count < NUMPY_MIN_ELEMENTS or kind is None or not plain:
        return like.new_empty(shape).bernoulli_(chance)
    source = np.random.SFC64(int(torch.randint(2**63 - 1, ())))
    found = WORKSPACE.lend(count * kind.itemsize).view(kind)
    parts, rest = divmod(chance * PROBABILITY_STEPS, 1.0)
    drawn = source.random_raw(-(-count // 4)).view(np.uint16)[:count]
    np.less(drawn, int(parts), out=found, casting="unsafe")
    edge = np.flatnonzero(drawn == int(parts))  # decides the fraction of the last part
    found[edge] = np.random.Generator(source).random(len(edge)) < rest
    return torch.from_numpy(found).view(shape)
