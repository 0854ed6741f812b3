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
from tidegate.gradients.dense import row
from tidegate.gradients.groups import Group, add
from tidegate.gradients.layout import Layout
from tidegate.gradients.steps import Steps, split

Tensors = dict[str, Tensor]
TINY = 1e-7


class UnbiasedOuter:
    """A vector over states times a vector over weights, for each row of the batch."""

    def __init__(self, groups: Sequence[Group], states: Sequence[str], layout: Layout, seed: int) -> None:
        self.groups, self.states, self.seed, self.layout = tuple(groups), tuple(states), seed, layout
        self.places, self.D = layout.places(self.states)
        self.shapes = [layout.shape(g) for g in self.groups]
        self.values = [*layout.read(self.groups), *layout.between(self.states)]

    def begin(self, rows: int, like: Tensor) -> Tensors:
        """No influence yet."""
        weights = {f"weights.{k}": like.new_zeros(rows, *shape) for k, shape in enumerate(self.shapes)}
        return {"states": like.new_zeros(rows, self.D), **weights, "count": torch.zeros((), dtype=torch.int64)}

    def advance(
        self, memory: Tensors, steps: Steps, adjoints: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The influence after some steps, and the gradient of what has these adjoints `[T, B, n]` at each of them."""
        A, count = steps.matrix(self.states), int(memory["count"])
        signs = self._signs(count, steps, A)
        by_state = {name: signs[..., place] for name, place in self.places.items()}
        driven = [(steps.pulled(g, by_state), steps.read(g)) for g in self.groups]
        s, outer = memory["states"], [memory[f"weights.{k}"] for k in range(len(self.groups))]
        delta = None if adjoints is None else row(self.places, adjoints)
        totals = [A.new_zeros(shape) for shape in self.shapes]
        for t in range(steps.T):
            moved = (A[t] @ s.unsqueeze(-1)).squeeze(-1)
            new = [rows[t].unsqueeze(-1) * v[t] for rows, v in driven]
            keep = _ratio(_norm(outer), moved.norm(dim=-1))
            drive = _ratio(_norm(new), signs[t].norm(dim=-1))
            s = keep.unsqueeze(-1) * moved + drive.unsqueeze(-1) * signs[t]
            outer = [o / _over(keep, o) + n / _over(drive, n) for o, n in zip(outer, new, strict=True)]
            if delta is not None:
                share = (delta[t] * s).sum(-1)
                totals = [total + torch.einsum("b,brv->rv", share, o) for total, o in zip(totals, outer, strict=True)]
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
    """Signs `[steps, *shape]`; those of a step depend on the seed and the step's number alone."""
    drawn = np.empty((steps, *shape))
    size = int(np.prod(shape))
    for t in range(steps):
        bits = np.random.Philox(key=seed, counter=(0, first + t, 0, 0)).random_raw(-(-size // 64))
        drawn[t] = np.unpackbits(bits.view(np.uint8))[:size].reshape(shape)
    return torch.as_tensor(drawn * 2 - 1, dtype=like.dtype, device=like.device)


def _norm(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([p.flatten(1).norm(dim=1) for p in parts]).norm(dim=0)


def _ratio(weights: Tensor, states: Tensor) -> Tensor:
    return torch.sqrt(weights / (states + TINY)) + TINY


def _over(factor: Tensor, like: Tensor) -> Tensor:
    return factor.view(-1, *[1] * (like.dim() - 1))
