"""What a call keeps for its backward pass, and where in that pass's results the gradients lie."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tidegate.equations.values import Size, Value
from tidegate.native.compile.arguments import CallShape, column_offsets, spans
from tidegate.native.compile.plan import KernelPlan

Kind = Literal["flat", "sum"]


@dataclass(frozen=True)
class Piece:
    """A gradient, or a part that is added to others: numbers of the flat array from `begin` on, or a sum over rows."""

    kind: Kind
    begin: int
    size: tuple[int, ...]
    strides: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class GradientLayout:
    """The arrays of the backward pass for sizes in numbers.

    `arrays` lie one after another in one flat array of `total` numbers, which is zero before: a name of the frame and
    where it begins. `sums` have a row for each slot. `pieces`: of what each value of the prologue's gradient consists.
    """

    arrays: tuple[tuple[str, int], ...]
    total: int
    sums: tuple[tuple[str, int], ...]
    pieces: tuple[tuple[Piece, ...], ...]
    row: int


def gradient_layout(plan: KernelPlan, shape: CallShape) -> GradientLayout:
    """Where the gradients of the prologue's values lie; only the letters of the shape count."""
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
        turned = span.vector is plan.index  # then there is a row for each index
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
    return GradientLayout(tuple(arrays), total, sums, tuple(tuple(found[v]) for v in plan.prologue), offsets[-1])


def saved_arrays(plan: KernelPlan, shape: CallShape) -> tuple[list[tuple[str, int]], int]:
    """What the forward kernel keeps: names of the frame, where each begins, and how many numbers there are."""
    return _one_after_another(_saved(plan), shape)


def saved_widths(plan: KernelPlan, shape: CallShape) -> list[int]:
    """How many numbers are in a row of each of these."""
    return [shape.number(size) for _, size in _saved(plan)]


def _saved(plan: KernelPlan) -> list[tuple[str, Size]]:
    sizes = {s.name: s.size for s in plan.graph.states}
    named = [(f"history.{n}", sizes[n]) for n in plan.history]
    return named + [(f"keep.{k}", v.size) for k, v in enumerate(plan.stored)]


def backward_arrays(plan: KernelPlan, shape: CallShape) -> tuple[list[tuple[str, int]], int]:
    """What the backward kernel writes at each step besides results, in the same form."""
    row = column_offsets(plan, shape)[-1]
    vectors, numbers = _one_after_another([(f"vector.{k}", v.size) for k, v in enumerate(plan.vectors)], shape)
    return [*vectors, ("dz", numbers)], numbers + shape.T * shape.B * row


def inputs_with_gradient(plan: KernelPlan) -> frozenset[str]:
    """The inputs on which anything depends through which a gradient flows."""
    return frozenset(s.only_for for s in plan.backward.stages if s.only_for is not None)


def _one_after_another(named: Iterable[tuple[str, Size]], shape: CallShape) -> tuple[list[tuple[str, int]], int]:
    places, total = [], 0
    for name, size in named:
        places.append((name, total))
        total += shape.T * shape.B * shape.number(size)
    return places, total
