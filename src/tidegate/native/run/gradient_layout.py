"""Memory layout of what a call saves for its backward pass, and of the gradients in that pass's results."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tidegate.equations.values import Size, Value
from tidegate.native.compile.arguments import CallShape, column_offsets, spans
from tidegate.native.compile.plan import KernelPlan

Kind = Literal["flat", "sum"]


@dataclass(frozen=True)
class Piece:
    """One addend of a gradient: elements of the flat array from `begin` on, or a sum over rows."""

    kind: Kind
    begin: int
    size: tuple[int, ...]
    strides: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class GradientLayout:
    """The arrays of the backward pass for given sizes.

    `arrays` are parts of one flat array of `total` elements, which must be zeroed: a name of the frame and the offset.
    `sums` have a row for each slot. `pieces` are the addends of the gradient of each value of the prologue.
    """

    arrays: tuple[tuple[str, int], ...]
    total: int
    sums: tuple[tuple[str, int], ...]
    pieces: tuple[tuple[Piece, ...], ...]


def gradient_layout(plan: KernelPlan, shape: CallShape) -> GradientLayout:
    """The layout of the gradients of the prologue's values; depends on the sizes of the shape only."""
    offsets, number = column_offsets(plan, shape), shape.number
    place = {v: k for k, v in enumerate(plan.columns)}
    wanted = {place[v] for _, v in plan.biases}
    arrays: list[tuple[str, int]] = []
    found: dict[Value, list[Piece]] = {v: [] for v in plan.prologue}
    matrices: dict[tuple[int, Value], tuple[int, tuple[int, int]]] = {}
    biases: dict[int, int] = {}
    total = 0
    for k, span in enumerate(spans(plan)):
        first, last = span.columns[0], span.columns[-1]
        height, width = offsets[last] + number(plan.columns[last].size) - offsets[first], number(span.vector.size)
        arrays.append((f"matrix.{k}", total))
        turned = span.vector is plan.index  # a row for each index
        strides = (1, height) if turned else (width, 1)
        for c in span.columns:
            matrices[c, span.vector] = total + (offsets[c] - offsets[first]) * strides[0], strides
        total += height * width
        if wanted & set(span.columns) - set(biases):
            arrays.append((f"bias.{k}", total))
            biases |= {c: total + offsets[c] - offsets[first] for c in span.columns if c not in biases}
            total += height
    for g in plan.gradients:
        begin, strides = matrices[place[g.d], g.vector]
        found[g.matrix].append(Piece("flat", begin, (number(g.d.size), number(g.vector.size)), strides))
    for vector, d in plan.biases:
        found[vector].append(Piece("flat", biases[place[d]], (number(d.size),)))
    for k, (vector, _) in enumerate(plan.sums):
        found[vector].append(Piece("sum", k, (number(vector.size),)))
    sums = tuple((f"sum.{k}", number(v.size)) for k, (v, _) in enumerate(plan.sums))
    return GradientLayout(tuple(arrays), total, sums, tuple(tuple(found[v]) for v in plan.prologue))


def saved_arrays(plan: KernelPlan, shape: CallShape) -> tuple[list[tuple[str, int]], int]:
    """What the forward kernel saves: names of the frame with their offsets, and the number of elements."""
    return _one_after_another(_saved(plan), shape)


def saved_widths(plan: KernelPlan, shape: CallShape) -> list[int]:
    """Elements in a row of each of these."""
    return [shape.number(size) for _, size in _saved(plan)]


def _saved(plan: KernelPlan) -> list[tuple[str, Size]]:
    sizes = {s.name: s.size for s in plan.graph.states}
    named = [(f"history.{n}", sizes[n]) for n in plan.history]
    return named + [(f"keep.{k}", v.size) for k, v in enumerate(plan.stored)]


def backward_arrays(plan: KernelPlan, shape: CallShape) -> tuple[list[tuple[str, int]], int]:
    """What the backward kernel writes at each step besides results, as `saved_arrays` does."""
    row = column_offsets(plan, shape)[-1]
    vectors, numbers = _one_after_another([(f"vector.{k}", v.size) for k, v in enumerate(plan.vectors)], shape)
    return [*vectors, ("dz", numbers)], numbers + shape.T * shape.B * row


def _one_after_another(named: Iterable[tuple[str, Size]], shape: CallShape) -> tuple[list[tuple[str, int]], int]:
    places, total = [], 0
    for name, size in named:
        places.append((name, total))
        total += shape.T * shape.B * shape.number(size)
    return places, total
