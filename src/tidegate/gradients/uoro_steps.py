"""Steps of UORO: one alone as the algorithm is written, many by the recursion's own cell in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from tidegate.equations.values import Rate, Value
from tidegate.gradients.layout import Bundle, Layout
from tidegate.gradients.outer_sums import Additions, room
from tidegate.gradients.steps import Steps
from tidegate.gradients.uoro_cells import FLAGS, TINY, Added, Cells
from tidegate.nn.blocks import Course

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is followed: the states' `places` among `D` units, bundles of weights, and the cells with bound sizes."""

    layout: Layout
    places: Mapping[str, slice]
    D: int
    bundles: Sequence[Bundle]
    cells: Cells
    many: Added
    alone: Added


def parts(bundle: Bundle) -> int:
    """How many parts of a bundle's rows read different vectors: each its own where there are blocks."""
    return bundle.rows if any(m.attrs.get("blocks") for m, _ in bundle.groups[0].factors) else 1


class _Taken:
    """Some of many steps with their signs, in blocks: what the first cell finds of them, and what they add."""

    def __init__(
        self, plan: Plan, steps: Steps, span: slice, signs: Tensor, length: int, states: Tensor | None = None
    ) -> None:
        self.plan, self.steps, self.span, self.signs, self.length = plan, steps, span, signs, length
        self.T, self.B, self.like = span.stop - span.start, steps.B, steps.like
        self.blocks = -(-self.T // length)
        self.whole = self.blocks * length
        self.flags = {n: f[span] for n in FLAGS for f in (getattr(steps, n),) if f is not None}
        self.cell = plan.many if states is None else plan.alone
        self.read = self._read(states)
        self.added = [self._added(k) for k in range(len(plan.bundles))]

    def _read(self, states: Tensor | None) -> Tensor:
        """What the first cell gives, `[T, B, ...]`."""
        plan, env, graph = self.plan, self.steps.env, self.plan.cells.graph
        every: dict[str, Value | Tensor] = {**graph.input_values, "ones.0": self.like.new_ones(self.T, self.B, 1)}
        every |= {f"old.{k}": graph.old[s.name] for k, s in enumerate(graph.states) if s.name in graph.old}
        for k, place in enumerate(plan.places.values()):
            every[f"sign.{k}"] = self.signs[..., place]
            if states is not None:
                every[f"state.{k}"] = states[None, :, place]
        inputs = {}
        for i in self.cell.run.graph.inputs:
            given = every[i.name]
            if isinstance(given, Value):
                given = env[given][self.span] if i.rate == Rate.INPUT else env[given]
            inputs[i.name] = given
        nothing = {"nothing": self.like.new_zeros(self.B, 1)}
        return self.cell.run(self.weights(), inputs, nothing, nothing)[0]

    def weights(self) -> Tensors:
        """The layer's weights, by name."""
        return {name: self.steps.env[v] for name, v in self.plan.cells.graph.weights.items()}

    def _added(self, number: int) -> Additions:
        """What the groups of a bundle add, with steps of nothing up to a whole number of blocks."""
        bundle = self.plan.bundles[number]
        n = parts(bundle)
        rows, read = self.read[..., self.cell.rows[number]], self.read[..., self.cell.read[number]]
        if "valid" in self.flags:
            valid = self.flags["valid"].unsqueeze(-1)
            rows, read = (torch.where(valid, t, 0.0) for t in (rows, read))
        if self.whole > self.T:
            rows, read = (nn.functional.pad(t, (0, 0, 0, 0, 0, self.whole - self.T)) for t in (rows, read))
        if n == 1:
            return Additions(rows.transpose(0, 1), read.transpose(0, 1), 1, self.length)
        return Additions(*_in_parts(bundle, rows, read, n, self.plan.layout), n, self.length)


class Alone(_Taken):
    """One step alone, as the algorithm is written."""

    def __call__(self, states: Tensor, outer: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The vectors over states and over weights after the step."""
        moved = self.read[0, :, self.cell.moved]
        if "fresh" in self.flags:
            moved = moved.masked_fill(self.flags["fresh"][0].unsqueeze(1), 0.0)
        if "valid" in self.flags:
            moved = torch.where(self.flags["valid"][0].unsqueeze(1), moved, states)
        keep = _ratio(_size(outer), torch.linalg.vector_norm(moved, dim=1, keepdim=True))
        drive = _ratio(_sum([part.squares() for part in self.added]).sqrt(), self.plan.D**0.5)
        first, factors = keep.reciprocal(), drive.reciprocal()
        self.outer = [part.onto(o, first, factors, 0) for part, o in zip(self.added, outer, strict=True)]
        self.states = torch.addcmul(moved * keep, drive, self.signs[0])
        return self.states, self.outer

    def gradient(self, adjoints: Mapping[str, Tensor], _: Sequence[Tensor]) -> list[Tensor]:
        """Of what has these adjoints `[1, B, n]` in the states."""
        pairs = zip(
            self.states.split([p.stop - p.start for p in self.plan.places.values()], 1), self.plan.places, strict=True
        )
        share = _sum([torch.linalg.vecdot(adjoints[n][0], s) for s, n in pairs if n in adjoints])
        return [torch.einsum("b,bnrv->nrv", share, o) for o in self.outer]


class Many(_Taken):
    """Steps by the recursion in blocks; `begun` says that there were some before."""

    def __init__(self, plan: Plan, steps: Steps, span: slice, signs: Tensor, length: int, *, begun: bool) -> None:
        super().__init__(plan, steps, span, signs, length)
        self.begun = begun
        self._multiply()

    def _multiply(self) -> None:
        """Scale the additions, and multiply them with each other."""
        squares = _sum([part.squares() for part in self.added])  # [B, T]
        drive = _ratio(squares.sqrt(), self.plan.D**0.5)
        once = drive.reciprocal()
        self.square, self.drive = (t.T.unsqueeze(2) for t in (squares * once * once, drive))
        self.shared = room(self.like, self.whole, self.B, 1 + self.length)
        self.shared[..., 0] = 0.0  # with the vector before the block
        into = self._by_block(self.shared)[..., 1:]
        for number, part in enumerate(self.added):
            part.scale(once)
            part.each(into, more=number > 0)

    def _by_block(self, found: Tensor) -> Tensor:
        """Numbers `[T, B, ...]` as `[B, blocks, steps, ...]`."""
        return found.unflatten(0, (self.blocks, self.length)).movedim(2, 0)

    def __call__(self, states: Tensor, outer: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The vectors over states and over weights after the steps."""
        T, L, after = self.T, self.length, list(outer)
        self.found = room(states, self.whole, self.B, self.plan.D + 1 + L)
        state, alone = self._state(states), _alone(L, self.B, states.dtype, states.device)
        norm, all_factors = state["norm"], state["factors"]
        first, factors = all_factors[:, :1], all_factors[:, 1:]
        course = self._course(state)
        crossed = self.shared[:, :, 0].T.split(L, 1)
        for block in range(self.blocks):
            if self.begun or block:
                of_each = [n.with_outer(o, block) for n, o in zip(self.added, after, strict=True)]
                crossed[block].copy_(_sum(of_each))
                norm.copy_(_size(after))
            all_factors.copy_(alone)
            course(block * L, min(block * L + L, T))
            after = [n.onto(o, first, factors, block) for n, o in zip(self.added, after, strict=True)]
        return torch.cat([state[f"state.{k}"] for k in range(len(self.plan.places))], 1), after

    def _state(self, states: Tensor) -> Tensors:
        found = {f"state.{k}": states[:, p].clone() for k, p in enumerate(self.plan.places.values())}
        factors, norm = states.new_zeros(self.B, 1 + self.length), states.new_zeros(self.B, 1)
        return {**found, "factors": factors, "norm": norm}

    def _course(self, state: Tensors) -> Course:
        plan = self.plan
        inputs = {f"sign.{k}": self.signs[..., p] for k, p in enumerate(plan.places.values())}
        inputs |= {"products": self.shared, "square": self.square, "drive": self.drive}
        inputs["place"] = _places(self.length, self.B, self.like.dtype, self.like.device)
        inputs |= {name: flag.unsqueeze(-1).to(self.like.dtype) for name, flag in self.flags.items()}
        inputs |= {name: self.read[..., place] for name, place in self.cell.given.items()}
        blocks = plan.cells.recursion(plan.layout.sizes, self.length, tuple(self.flags))
        return blocks(self.weights(), inputs, state, self.found)

    def gradient(self, adjoints: Mapping[str, Tensor], outer: Sequence[Tensor]) -> list[Tensor]:
        """Of what has these adjoints `[T, B, n]` in the states, for the vectors over weights before the steps.

        The vector over weights after a step is a sum of what was before its block and of the block's additions, and so
        on backwards: all additions are gathered at once, each with what it has to do with the steps after it.
        """
        D, places = self.plan.D, self.plan.places
        of_states = [
            torch.linalg.vecdot(a, self.found[: self.T, :, places[n]]) for n, a in adjoints.items() if n in places
        ]
        shares = _sum(of_states)
        if self.whole > self.T:
            shares = nn.functional.pad(shares, (0, 0, 0, self.whole - self.T))
            self.found[self.T :] = 0.0
        factors = self._by_block(self.found)[..., D:]  # [B, blocks, steps, 1 + steps]
        summed = torch.matmul(self._by_block(shares).unsqueeze(2), factors).squeeze(2)
        ends = factors[:, :, -1]
        of_block, kept = (t[..., 0].T.cpu().numpy() for t in (summed, ends))  # [blocks, B]
        later = np.zeros((self.blocks + 1, self.B), of_block.dtype)  # what the vector before a block has to do with all
        for block in range(self.blocks - 1, -1, -1):
            later[block] = of_block[block] + kept[block] * later[block + 1]
        beyond = torch.from_numpy(later).to(summed.device).T
        over = torch.addcmul(summed, beyond[:, 1:, None], ends)[..., 1:].flatten(1)
        totals = [part.summed(over) for part in self.added]
        if not self.begun:
            return totals
        return [t + torch.einsum("b,bnrv->nrv", beyond[:, 0], o) for t, o in zip(totals, outer, strict=True)]


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _in_parts(bundle: Bundle, rows: Tensor, read: Tensor, n: int, layout: Layout) -> tuple[Tensor, Tensor]:
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


@lru_cache(maxsize=64)
def _places(steps: int, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """At each step of a block 1 at its own factor, `[steps, B, 1 + steps]`."""
    return torch.eye(1 + steps, dtype=dtype, device=device)[1:].unsqueeze(1).expand(-1, rows, -1).contiguous()


@lru_cache(maxsize=64)
def _alone(steps: int, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The factors before a block, `[B, 1 + steps]`."""
    return torch.eye(1, 1 + steps, dtype=dtype, device=device).expand(rows, -1).contiguous()


def _ratio(weights: Tensor, states: float) -> Tensor:
    return torch.sqrt(weights / (states + TINY)) + TINY
