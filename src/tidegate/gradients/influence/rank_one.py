"""Unbiased online recurrent optimisation: the influence as one outer product, right on average.

Tallec & Ollivier 2017, arXiv:1702.05043, algorithm 1 and proposition 1, with the variance-reducing factors of their
section 3. Signs are drawn by a counter, so that a run goes on after a restart as if there had been none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidegate.equations.values import Value
from tidegate.gradients.cost import Cost
from tidegate.gradients.influence.dense import row
from tidegate.gradients.influence.parameter_groups import ParameterGroup, add
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.gradients.influence.step_values import StepValues, split
from tidegate.gradients.outer_sums import room
from tidegate.gradients.uoro_cells import cells
from tidegate.gradients.uoro_steps import Plan, Taken, parts

Tensors = dict[str, Tensor]
AT_ONCE = 1 << 22  # numbers of steps at hand together


class RankOneInfluence:
    """A vector over states times a vector over weights, for each row of the batch."""

    def __init__(
        self, groups: Sequence[ParameterGroup], states: Sequence[str], layout: ParameterLayout, seed: int
    ) -> None:
        self.seed, self.layout = seed, layout
        self.places, self.D = layout.places(states)
        self.bundles = layout.bundles(groups)
        self.shapes = [layout.shape(g) for g in groups]
        self.names = tuple(g.name for g in groups)
        made = cells(layout.structure.graph, tuple(states), tuple(b.groups for b in self.bundles))
        added = made.added(layout.sizes)
        self.values = list(added.known)
        self.plan = Plan(layout, self.places, self.D, self.bundles, made, added)
        self.numbers = 2 * added.run.loop.width[0] + 2 * self.D  # at hand for each step and row

    def at_once(self, rows: int) -> int:
        """The steps at hand together."""
        return max(1, AT_ONCE // (max(1, rows) * self.numbers))

    def cost(self, rows: int) -> Cost:
        """A Jacobian times a vector, and ten operations a weight: an outer product, norms, sums and the gradient."""
        D, P = self.D, sum(r * v for r, v in self.shapes)
        flops = 2 * D * D + 9 * D + 10 * P
        return Cost(self.names, f"a vector of {D} times one of {P}", "right on average", rows * (D + P), rows * flops)

    def begin(self, rows: int, like: Tensor) -> Tensors:
        """No influence yet. Vectors over weights are `[B, n, r, V]`, as Additions have them, a bundle's groups side by
        side in r."""
        sizes = [(parts(b), b.count // b.columns // parts(b), b.columns) for b in self.bundles]
        weights = {f"weights.{k}": like.new_zeros(rows, *size) for k, size in enumerate(sizes)}
        return {"states": like.new_zeros(rows, self.D), **weights, "count": torch.zeros((), dtype=torch.int64)}

    @torch.no_grad()
    def advance(
        self, memory: Tensors, steps: StepValues, adjoints: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The influence after some steps, and the gradient of what has these adjoints `[T, B, n]` at each of them."""
        count, totals = int(memory["count"]), None
        states, outer = memory["states"], self._outer(memory)
        width = self.at_once(steps.B)
        for start in range(0, steps.T if steps.B else 0, width):
            stop = min(start + width, steps.T)
            before = outer
            signs = random_signs(self.seed, count + start, stop - start, (steps.B, self.D), steps.like)
            run = Taken(self.plan, steps, slice(start, stop), signs)
            states, outer = run(states, before)
            if adjoints is not None:
                found = run.gradient({n: a[start:stop] for n, a in adjoints.items()}, before)
                totals = found if totals is None else [a + b for a, b in zip(totals, found, strict=True)]
        moved = {"states": states, "count": torch.tensor(count + steps.T)}
        moved |= {f"weights.{k}": o for k, o in enumerate(outer)}
        return moved, {} if totals is None else self._parted(totals)

    def gradient(self, memory: Tensors, adjoints: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of what has these adjoints `[B, n]` in the states now."""
        share = (row(self.places, adjoints) * memory["states"]).sum(-1)
        return self._parted([torch.einsum("b,bnrv->nrv", share, o) for o in self._outer(memory)])

    def _outer(self, memory: Tensors) -> list[Tensor]:
        return [memory[f"weights.{k}"] for k in range(len(self.bundles))]

    def _parted(self, totals: Sequence[Tensor]) -> dict[Value, Tensor]:
        found: dict[Value, Tensor] = {}
        for bundle, total in zip(self.bundles, totals, strict=True):
            by_group = total.unflatten(1, (len(bundle.groups), -1)).unbind(1)
            for group, part in zip(bundle.groups, by_group, strict=True):
                add(found, split(group, part.reshape(bundle.rows, bundle.columns), self.layout))
        return found


def random_signs(seed: int, first: int, steps: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Signs `[steps, *shape]`; those of a step depend on the seed, the shape and the step's number alone."""
    size = math.prod(shape)
    turns = -(-size // 256)  # of the counter, for four words each
    words = np.random.Philox(key=seed, counter=first * turns).random_raw(4 * steps * turns)
    drawn = words.view(np.uint8).reshape(steps, -1)[:, : -(-size // 8)]
    table = torch.from_numpy(_signs_of_bytes())
    found = room(table, *drawn.shape, 8)
    np.take(table.numpy(), drawn, axis=0, out=found.numpy(), mode="clip")
    return found.flatten(1)[:, :size].reshape(steps, *shape).to(like.device, like.dtype)


@lru_cache(maxsize=1)
def _signs_of_bytes() -> NDArray[np.float32]:
    """The signs of the eight bits of each byte, the highest first."""
    return np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) * 2 - 1
