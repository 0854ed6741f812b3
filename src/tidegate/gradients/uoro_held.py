"""UORO over a whole sequence from nothing on, between tensors that stay where they are from call to call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tidegate.equations.values import Value
from tidegate.gradients.influence.parameter_groups import add
from tidegate.gradients.influence.rank_one import RankOneInfluence, random_signs
from tidegate.gradients.influence.step_values import split
from tidegate.gradients.uoro_steps import drive_of, parts
from tidegate.native.outer_kernel import OuterKernel
from tidegate.nn.growing import NORM, Course, Growing, Growth, bind_shares, bind_squares, lines_of, outer
from tidegate.runtime.feedforward import Rowwise
from tidegate.runtime.kernel_call import CellKernel

if TYPE_CHECKING:
    from tidegate.gradients.influence.plan import RulePlan

Tensors = Mapping[str, Tensor]


class Kernels(NamedTuple):
    """What UORO runs on: a tracker, its two cells, and the vector over weights."""

    tracker: RankOneInfluence
    first: CellKernel
    recursion: CellKernel
    outer: OuterKernel


def kernels(plan: RulePlan, T: int, B: int, like: Tensor) -> Kernels | None:
    """UORO's kernels for T steps and B rows, where it is all that a plan's rule does, at once and in one part."""
    if len(plan.trackers) != 1 or not isinstance(plan.trackers[0], RankOneInfluence):
        return None
    tracker, of_weights = plan.trackers[0], outer(like.dtype)
    if of_weights is None or not tracker.at_once(B) >= T or any(parts(b) > 1 for b in tracker.bundles):
        return None
    if not set(tracker.values) <= set(plan.reader.vectors):
        return None
    made = tracker.plan
    first = made.added.run.cell(like.dtype, indices=False)
    recursion = made.cells.recursion(made.layout.sizes, ()).cell(like.dtype, indices=False)
    return None if first is None or recursion is None else Kernels(tracker, first, recursion, of_weights)


class HeldOuter:
    """The gradient for adjoints in some `states`, of a run that puts all states and what is read into `found` `[T +
    1, B, size]`. Signs are drawn once, for each call begins with the first step."""

    def __init__(
        self, plan: RulePlan, made: Kernels, weights: Tensors, inputs: Tensors, found: Tensor, states: Sequence[str]
    ) -> None:
        self._tracker, uoro = made.tracker, made.tracker.plan
        (T, B, _), like = found[1:].shape, found
        places, bundles = uoro.places, uoro.bundles
        signs = random_signs(made.tracker.seed, 0, T, (B, uoro.D), like).contiguous()
        signs_of = {f"sign.{k}": signs[..., p] for k, p in enumerate(places.values())}
        told = {**inputs, **_told(plan, uoro.added.known, found), **signs_of}
        self._first = Rowwise(made.first, T, B, like).held(weights, told, list(inputs))
        read = self._first.y

        self._squares, self._drive, self._once, self._share, self._each = (like.new_empty(T, B) for _ in range(5))
        self._size, self._found = uoro.D**0.5, like.new_empty(T, B, uoro.D + 1)
        self._of_weights, lines = _in_one([lines_of((B, b.count // b.columns, b.columns), like) for b in bundles], like)
        self._of_states, (*vectors, norm) = _in_one(
            [(B, p.stop - p.start) for p in (*places.values(), slice(0, 1))], like
        )
        each = [
            (read[..., rows], read[..., columns])
            for rows, columns in zip(uoro.added.rows, uoro.added.read, strict=True)
        ]
        vector = [
            Growing(line[..., : b.columns], rows.transpose(0, 1), columns.transpose(0, 1), 1)
            for line, b, (rows, columns) in zip(lines, bundles, each, strict=True)
        ]
        self._measure = bind_squares(made.outer, vector, self._squares)
        given = {name: read[..., place] for name, place in uoro.added.given.items()}
        steps = {**signs_of, **given, "drive": self._drive.unsqueeze(2)}
        state = {**{f"state.{k}": v for k, v in enumerate(vectors)}, NORM: norm}
        course = Course(steps, state, self._found, self._once)
        self._grow = Growth(made.recursion, made.outer, weights, course, vector, lines)
        self._carried = like.new_empty(B)
        self._back = bind_shares(made.outer, self._found[..., -1], self._once, self._share, self._each, self._carried)
        self._scored = [self._found[..., places[n]] if n in places else None for n in states]
        self._sums = [_Sum(rows.view(T * B, -1), columns.view(T * B, -1)) for rows, columns in each]

        self.nbytes = self._first.nbytes + sum(t.nbytes for t in (signs, self._found, self._of_weights))
        self.nbytes += sum(total.nbytes for total in self._sums)

    def __call__(self, weights: Tensors, inputs: Tensors, adjoints: Sequence[Tensor]) -> dict[Value, Tensor]:
        """The gradient of what has these adjoints `[T, B, n]` in the states."""
        self._first(weights, inputs)
        self._measure()
        self._drive.copy_(drive_of(self._squares, self._size))
        torch.reciprocal(self._drive, out=self._once)
        self._of_weights.zero_()
        self._of_states.zero_()
        self._grow.again(weights)
        shares = [torch.linalg.vecdot(a, f) for a, f in zip(adjoints, self._scored, strict=True) if f is not None]
        if not shares:
            return {}
        self._share.copy_(shares[0] if len(shares) == 1 else torch.stack(shares).sum(0))
        self._back()
        factors, tracker = self._each.view(-1, 1), self._tracker
        found: dict[Value, Tensor] = {}
        for bundle, total in zip(tracker.bundles, self._sums, strict=True):
            for group, part in zip(bundle.groups, total(factors).split(bundle.rows), strict=True):
                add(found, split(group, part, tracker.layout))
        return found


class _Sum:
    """Sums over steps and rows of outer products of `rows` and `columns`, `[T * B, size]` each."""

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        self._wide = rows.shape[1] > columns.shape[1]
        self._narrow, other = (columns, rows) if self._wide else (rows, columns)
        self._scaled = torch.empty_like(self._narrow, memory_format=torch.contiguous_format)
        self.nbytes = self._scaled.nbytes
        self._factors = (other.T, self._scaled) if self._wide else (self._scaled.T, other)

    def __call__(self, factors: Tensor) -> Tensor:
        """With each product as often as these factors `[T * B, 1]` say."""
        torch.mul(self._narrow, factors, out=self._scaled)
        return torch.mm(*self._factors)


def _told(plan: RulePlan, known: Sequence[Value], found: Tensor) -> dict[str, Tensor]:
    """What the first cell is told of a run's steps."""
    D, reader = sum(plan.widths), plan.reader
    read = dict(zip(reader.vectors, found[1:, :, D:].split(reader.widths, -1), strict=True))
    told = {f"known.{k}": read[v] for k, v in enumerate(known)}
    for k, name in enumerate(plan.names):
        told |= {f"old.{k}": found[:-1, :, plan.places[name]], f"new.{k}": found[1:, :, plan.places[name]]}
    return {**told, "ones.0": found.new_ones(*found[1:, :, :1].shape)}


def _in_one(shapes: Sequence[Sequence[int]], like: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Zeros of these shapes in one piece of memory."""
    counts = [math.prod(shape) for shape in shapes]
    flat = like.new_zeros(sum(counts))
    return flat, [part.view(*shape) for part, shape in zip(flat.split(counts), shapes, strict=True)]
