"""Unbiased online recurrent optimisation: the influence as one outer product, right on average.

Tallec & Ollivier 2017, arXiv:1702.05043, algorithm 1 and proposition 1, with the variance-reducing factors of their
section 3. Signs are drawn by a counter, so that a run goes on after a restart as if there had been none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tidegate.equations.values import Value
from tidegate.gradients.cost import Cost
from tidegate.gradients.dense import row
from tidegate.gradients.groups import Group, add
from tidegate.gradients.layout import Layout
from tidegate.gradients.outer_sums import Additions, course
from tidegate.gradients.steps import Steps, split

Tensors = dict[str, Tensor]
BLOCK = 64  # steps


class UnbiasedOuter:
    """A vector over states times a vector over weights, for each row of the batch."""

    def __init__(self, groups: Sequence[Group], states: Sequence[str], layout: Layout, seed: int) -> None:
        self.groups, self.states, self.seed, self.layout = tuple(groups), tuple(states), seed, layout
        self.places, self.D = layout.places(self.states)
        self.shapes = [layout.shape(g) for g in self.groups]
        self.values = [*layout.read(self.groups), *layout.between(self.states)]

    def cost(self, rows: int) -> Cost:
        """A Jacobian times a vector, and ten operations a weight: an outer product, norms, sums and the gradient."""
        D, P = self.D, sum(r * v for r, v in self.shapes)
        names = tuple(g.name for g in self.groups)
        flops = 2 * D * D + 9 * D + 10 * P
        return Cost(names, f"a vector of {D} times one of {P}", "right on average", rows * (D + P), rows * flops)

    def begin(self, rows: int, like: Tensor) -> Tensors:
        """No influence yet."""
        weights = {f"weights.{k}": like.new_zeros(rows, *shape) for k, shape in enumerate(self.shapes)}
        return {"states": like.new_zeros(rows, self.D), **weights, "count": torch.zeros((), dtype=torch.int64)}

    def advance(
        self, memory: Tensors, steps: Steps, adjoints: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The influence after some steps, and the gradient of what has these adjoints `[T, B, n]` at each of them."""
        A, count = steps.matrix(self.states), int(memory["count"])
        signs = random_signs(self.seed, count, steps.T, (steps.B, self.D), A)
        by_state = {name: signs[..., place] for name, place in self.places.items()}
        driven = [Additions.of(steps.pulled(g, by_state), steps.read(g)) for g in self.groups]
        delta = None if adjoints is None else row(self.places, adjoints)
        s, outer = memory["states"], [memory[f"weights.{k}"] for k in range(len(self.groups))]
        totals = [A.new_zeros(shape) for shape in self.shapes]
        for start in range(0, steps.T, BLOCK):
            stop = min(start + BLOCK, steps.T)
            new = [part.between(start, stop) for part in driven]
            vectors, factors = course(A[start:stop], s, signs[start:stop], outer, new)
            if delta is not None:
                shares = torch.einsum("tbd,tbd,tbk->bk", delta[start:stop], vectors, factors)
                parts = (n.combined(o, shares) for n, o in zip(new, outer, strict=True))
                totals = [total + part.sum(0) for total, part in zip(totals, parts, strict=True)]
            s, outer = vectors[-1], [n.combined(o, factors[-1]) for n, o in zip(new, outer, strict=True)]
        found = {"states": s, "count": torch.tensor(count + steps.T)}
        found |= {f"weights.{k}": o for k, o in enumerate(outer)}
        return found, self._parted(totals) if delta is not None else {}

    def gradient(self, memory: Tensors, adjoints: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of what has these adjoints `[B, n]` in the states now."""
        share = (row(self.places, adjoints) * memory["states"]).sum(-1)
        outer = (memory[f"weights.{k}"] for k in range(len(self.groups)))
        return self._parted([torch.einsum("b,brv->rv", share, o) for o in outer])

    def _signs(self, count: int, steps: Steps, like: Tensor) -> Tensor:
        """One sign for each step, row and unit: bits of a generator whose place is the step's number."""
        return random_signs(self.seed, count, steps.T, (steps.B, self.D), like)

    def _parted(self, totals: Sequence[Tensor]) -> dict[Value, Tensor]:
        found: dict[Value, Tensor] = {}
        for group, total in zip(self.groups, totals, strict=True):
            add(found, split(group, total, self.layout))
        return found


def random_signs(seed: int, first: int, steps: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Signs `[steps, *shape]`; those of a step depend on the seed, the shape and the step's number alone."""
    size = int(np.prod(shape))
    turns = -(-size // 256)  # of the counter, for four words each
    bits = np.random.Philox(key=seed, counter=first * turns).random_raw(4 * steps * turns)
    drawn = np.unpackbits(bits.view(np.uint8).reshape(steps, -1), axis=1)[:, :size].reshape(steps, *shape)
    return torch.as_tensor(drawn, dtype=like.dtype, device=like.device) * 2 - 1
