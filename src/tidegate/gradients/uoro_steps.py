"""Steps of UORO: what all of them add over weights first, then the recursion, then what it has to do with losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from tidegate.equations.values import Rate, Value
from tidegate.gradients.influence.parameter_layout import Bundle, ParameterLayout
from tidegate.gradients.influence.step_values import StepValues
from tidegate.gradients.outer_sums import Additions, room
from tidegate.gradients.uoro_cells import FLAGS, TINY, Added, Cells
from tidegate.nn.growing import NORM, Course, Growing, grow, shares
from tidegate.runtime.feedforward import NOTHING

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is followed: the states' `places` among `D` units, bundles of weights, and the cells with bound sizes."""

    layout: ParameterLayout
    places: Mapping[str, slice]
    D: int
    bundles: Sequence[Bundle]
    cells: Cells
    added: Added


def parts(bundle: Bundle) -> int:
    """How many parts of a bundle's rows read different vectors: each its own where there are blocks."""
    return bundle.rows if any(m.attrs.get("blocks") for m, _ in bundle.groups[0].factors) else 1


class Taken:
    """Some of many steps with their signs `[T, B, D]`."""

    def __init__(self, plan: Plan, steps: StepValues, span: slice, signs: Tensor) -> None:
        self.plan, self.steps, self.span, self.signs = plan, steps, span, signs
        self.T, self.B, self.like = span.stop - span.start, steps.B, steps.like
        self.flags = {n: f[span] for n in FLAGS for f in (getattr(steps, n),) if f is not None}
        self.read = self._read()
        self.added = [self._added(k) for k in range(len(plan.bundles))]
        squares = reduce(add, [part.squares() for part in self.added]).T.contiguous()  # [T, B]
        self.drive = drive_of(squares, plan.D**0.5)
        self.once = self.drive.reciprocal()

    def _read(self) -> Tensor:
        """What the first cell gives, `[T, B, ...]`."""
        plan, env, graph = self.plan, self.steps.env, self.plan.cells.graph
        every: dict[str, Value | Tensor] = {**graph.input_values, "ones.0": self.like.new_ones(self.T, self.B, 1)}
        every |= {f"old.{k}": graph.old[s.name] for k, s in enumerate(graph.states) if s.name in graph.old}
        every |= {f"new.{k}": graph.new[s.name] for k, s in enumerate(graph.states)}
        every |= {f"known.{k}": v for k, v in enumerate(plan.added.known)}
        every |= {f"sign.{k}": self.signs[..., place] for k, place in enumerate(plan.places.values())}
        inputs = {}
        for i in plan.added.run.graph.inputs:
            given = every[i.name]
            if isinstance(given, Value):
                given = self.steps[given][self.span] if i.rate == Rate.INPUT else env[given]
            inputs[i.name] = given
        nothing = {NOTHING.name: self.like.new_zeros(self.B, 1)}
        return plan.added.run(self.weights(), inputs, nothing, nothing)[0]

    def weights(self) -> Tensors:
        """The layer's weights, by name."""
        return {name: self.steps.env[v] for name, v in self.plan.cells.graph.weights.items()}

    def _added(self, number: int) -> Additions:
        """What the groups of a bundle add."""
        bundle, added = self.plan.bundles[number], self.plan.added
        n = parts(bundle)
        rows, read = self.read[..., added.rows[number]], self.read[..., added.read[number]]
        if "valid" in self.flags:
            valid = self.flags["valid"].unsqueeze(-1)
            rows, read = (torch.where(valid, t, 0.0) for t in (rows, read))
        if n == 1:
            return Additions(rows.transpose(0, 1), read.transpose(0, 1), 1)
        return Additions(*_in_parts(bundle, rows, read, n, self.plan.layout), n)

    def __call__(self, states: Tensor, outer: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The vectors over states and over weights after the steps."""
        plan = self.plan
        self.found = room(states, self.T, self.B, plan.D + 1)
        after = [o.clone(memory_format=torch.contiguous_format) for o in outer]
        state = {f"state.{k}": states[:, p].clone() for k, p in enumerate(plan.places.values())}
        state[NORM] = _size(outer)
        inputs = {f"sign.{k}": self.signs[..., p] for k, p in enumerate(plan.places.values())}
        inputs |= {name: flag.unsqueeze(-1).to(self.like.dtype) for name, flag in self.flags.items()}
        inputs |= {name: self.read[..., place] for name, place in plan.added.given.items()}
        inputs["drive"] = self.drive.unsqueeze(2)
        vector = [Growing(o.flatten(0, 1), a.rows, a.read, a.parts) for o, a in zip(after, self.added, strict=True)]
        run = plan.cells.recursion(plan.layout.sizes, tuple(self.flags))
        grow(run, self.weights(), Course(inputs, state, self.found, self.once), vector)
        return self.found[-1, :, :-1].clone(), after

    def gradient(self, adjoints: Mapping[str, Tensor], outer: Sequence[Tensor]) -> list[Tensor]:
        """Of what has these adjoints `[T, B, n]` in the states, for the vectors over weights before the steps."""
        places = self.plan.places
        of_states = [torch.linalg.vecdot(a, self.found[..., places[n]]) for n, a in adjoints.items() if n in places]
        of_each, of_outer = shares(self.found[..., -1], self.once, reduce(add, of_states))
        totals = [part.summed(of_each.T) for part in self.added]
        return [t + (of_outer @ o.flatten(1)).view(t.shape) for t, o in zip(totals, outer, strict=True)]


def _in_parts(bundle: Bundle, rows: Tensor, read: Tensor, n: int, layout: ParameterLayout) -> tuple[Tensor, Tensor]:
    """Rows and what they read where each reads the block of a vector that is its own."""
    given, begin = [], 0
    for matrix, vector in bundle.groups[0].factors:
        (width,), blocks = layout.shape_of(vector), matrix.attrs.get("blocks")
        part = read[..., begin : begin + width]
        part = (
            part.unsqueeze(2) if blocks is None else part.unflatten(2, (blocks, -1)).repeat_interleave(n // blocks, 2)
        )
        given.append(part.expand(-1, -1, n, -1))
        begin += width
    if begin < read.shape[2]:
        given.append(read[..., begin:].unsqueeze(2).expand(-1, -1, n, -1))
    by_part = rows.unflatten(2, (len(bundle.groups), n, -1)).permute(1, 3, 0, 2, 4).flatten(3).flatten(0, 1)
    return by_part, torch.cat(given, -1).permute(1, 2, 0, 3).flatten(0, 1)


def _size(outer: Sequence[Tensor]) -> Tensor:
    """The size of a vector over weights, `[B, 1]`."""
    sizes = [torch.linalg.vector_norm(o.flatten(1), dim=1, keepdim=True) for o in outer]
    return sizes[0] if len(sizes) == 1 else torch.linalg.vector_norm(torch.cat(sizes, 1), dim=1, keepdim=True)


def drive_of(squares: Tensor, size: float) -> Tensor:
    """What signs of this size are multiplied by at each step, and additions with these squares divided by."""
    return squares.sqrt().div_(size + TINY).sqrt_().add_(TINY)
