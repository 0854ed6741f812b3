"""Kronecker-factored real-time recurrent learning (Mujika, Meier & Steger 2018, arXiv:1805.10842, algorithm 1).

If all weights multiply one vector v, the influence of a step's weights is D (x) v, with D the Jacobian of the states
in the gates' pre-activations. The influence of all steps is kept as one such product, unbiased.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tidegate.equations.values import Value
from tidegate.gradients.cost import Cost
from tidegate.gradients.influence.capture import Tracker
from tidegate.gradients.influence.dense import row
from tidegate.gradients.influence.parameter_groups import ParameterGroup, add
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.gradients.influence.rank_one import random_signs
from tidegate.gradients.influence.step_values import StepValues, split, write

Tensors = dict[str, Tensor]
EPSILON = 1e-12


class KroneckerInfluence(Tracker):
    """The influence as `[B, V]`, for the vector that is multiplied, times `[B, units of states, rows of all
    weights]`."""

    def __init__(
        self, groups: Sequence[ParameterGroup], states: Sequence[str], layout: ParameterLayout, seed: int
    ) -> None:
        self.groups, self.states, self.seed, self.layout = tuple(groups), tuple(states), seed, layout
        self.places, self.D = layout.places(self.states)
        self.rows = [layout.rows(g) for g in self.groups]
        self.V = layout.columns(self.groups[0])
        self.values = [*layout.read(self.groups), *layout.between(self.states)]

    def cost(self, rows: int) -> Cost:
        """A Jacobian times a matrix of states by gates; norms, sums and the gradient."""
        D, R, V = self.D, sum(self.rows), self.V
        names = tuple(g.name for g in self.groups)
        flops = 2 * D * D * R + 9 * D * R + 7 * V + 3 * R * V
        form = f"a vector of {V} times a matrix of {D} x {R}"
        calls = 55 + 15 * len(names)
        return Cost(names, form, "right on average", rows * (D * R + V), rows * flops, calls)

    def begin(self, rows: int, like: Tensor) -> Tensors:
        """Zero influence."""
        matrix = like.new_zeros(rows, self.D, sum(self.rows))
        return {"read": like.new_zeros(rows, self.V), "matrix": matrix, "count": torch.zeros((), dtype=torch.int64)}

    def advance(
        self, memory: Tensors, steps: StepValues, gradients: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The influence after some steps, and the gradient of a loss with these gradients `[T, B, n]` in the states."""
        A, count = steps.matrix(self.states), int(memory["count"])
        signs = random_signs(self.seed, count, steps.T, (steps.B, 2), A)
        driven, read = self._driven(steps, A), steps.read(self.groups[0]).squeeze(2)
        u, M = memory["read"], memory["matrix"]
        delta = None if gradients is None else row(self.places, gradients)
        total = A.new_zeros(sum(self.rows), self.V)
        for t in range(steps.T):
            moved = A[t] @ M
            keep, drive = _balance(moved, u), _balance(driven[t], read[t])
            first, second = signs[t].unbind(-1)
            u = (first * keep).unsqueeze(-1) * u + (second * drive).unsqueeze(-1) * read[t]
            M = (first / keep)[:, None, None] * moved + (second / drive)[:, None, None] * driven[t]
            if delta is not None:
                total += torch.einsum("bd,bdr,bv->rv", delta[t], M, u)
        found = {"read": u, "matrix": M, "count": torch.tensor(count + steps.T)}
        return found, self._parted(total) if delta is not None else {}

    def gradient(self, memory: Tensors, gradients: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of a loss with these gradients `[B, n]` in the current states."""
        delta = row(self.places, gradients)
        return self._parted(torch.einsum("bd,bdr,bv->rv", delta, memory["matrix"], memory["read"]))

    def _driven(self, steps: StepValues, like: Tensor) -> Tensor:
        """The Jacobian of the states in all pre-activations, `[T, B, D, rows]`."""
        found = like.new_zeros(steps.T, steps.B, self.D, sum(self.rows))
        begin = 0
        for group, rows in zip(self.groups, self.rows, strict=True):
            for state in group.jacobians:
                j = steps.into(group, state)
                assert j is not None
                write(j, found[:, :, self.places[state], begin : begin + rows])
            begin += rows
        return found

    def _parted(self, total: Tensor) -> dict[Value, Tensor]:
        found: dict[Value, Tensor] = {}
        for group, part in zip(self.groups, total.split(self.rows), strict=True):
            add(found, split(group, part, self.layout))
        return found


def _balance(matrix: Tensor, vector: Tensor) -> Tensor:
    """The factor that gives both sides of a product equal norms, which minimises the variance."""
    return torch.sqrt((matrix.flatten(1).norm(dim=1) + EPSILON) / (vector.norm(dim=1) + EPSILON))
