"""The influence of weights on their own unit only: one trace per weight and state.

Exact if the recurrence is element-wise, since then there is no other influence; elsewhere SnAp-1 (Menick et al.
2021, arXiv:2006.07232, section 3.2), RFLO (Murray 2019, doi:10.7554/eLife.43299, equation 8) or e-prop (Bellec et al.
2020, doi:10.1038/s41467-020-17236-y, equation 14), depending on which part of the states' Jacobian is kept.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tidegate.calculus import Diagonal
from tidegate.equations.values import Value
from tidegate.gradients.cost import Cost
from tidegate.gradients.influence.capture import Capture, CapturedTracker, Tracker
from tidegate.gradients.influence.parameter_groups import ParameterGroup
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.gradients.influence.step_values import StepValues, split
from tidegate.runtime.eligibility import TraceForm, TraceInputs, advance_traces

Tensors = dict[str, Tensor]
STEP_CALLS = 10  # torch operations per step, where kernels advance the traces


class DiagonalInfluence(Tracker):
    """The traces of one group, `[B, states, rows, V]`. With `direct`, only Jacobians between states that go through no
    matrix are used; else the diagonal of the whole Jacobian."""

    def __init__(self, name: str, group: ParameterGroup, layout: ParameterLayout, *, direct: bool = False) -> None:
        self.name, self.group = name, group
        self.states, self.layout, self.shape = group.reach, layout, layout.shape(group)
        self.blocks = math.lcm(*(m.attrs.get("blocks", 1) for m, _ in group.factors))
        self._direct, self._between = direct, StepValues.direct if direct else StepValues.diagonal
        between = layout.directly(self.states) if direct else layout.on_diagonals(self.states)
        self.values = [*layout.read([group]), *between]

    def cost(self, rows: int) -> Cost:
        """Cost: a multiply-add for each trace that another reads, that is driven, or that is scored."""
        S, (K, V) = len(self.states), self.shape
        takes = self._taken() + len(self.group.jacobians) + S
        form = f"traces, {S} x {K} x {V}"
        flops = 2 * takes * K * V
        return Cost((self.group.name,), form, self._why(), rows * S * K * V, rows * flops, STEP_CALLS)

    def _taken(self) -> int:
        """The pairs of states that act on each other unit by unit."""
        width, structure = self.layout.width, self.layout.structure
        if self._direct:
            return sum(set(pair) <= set(self.states) for pair in structure.direct)
        return sum(
            {new, old} <= set(self.states) and (isinstance(j, Diagonal) or width[new] == width[old])
            for (new, old), j in structure.jacobians.states.items()
        )

    def _why(self) -> str:
        if self.group.stays_in_its_unit(self.layout.structure.jacobians.states):
            return "everything: the recurrence is element-wise"
        return "what goes through no matrix" if self._direct else "each weight in its own unit"

    def begin(self, rows: int, like: Tensor) -> Tensors:
        """Zero influence."""
        return {self.name: like.new_zeros(rows, len(self.states), *self.shape)}

    def advance(
        self, memory: Tensors, steps: StepValues, gradients: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The traces after some steps, and the gradient of a loss with these gradients `[T, B, n]` in the states."""
        traces = memory[self.name]
        delta = {k: gradients[s] for k, s in enumerate(self.states) if s in gradients} if gradients else {}
        total = traces.new_zeros(self.shape)
        ends = []
        for k, rows in enumerate(self._rows()):
            ends.append(advance_traces(self._inputs(steps, delta, k), traces[:, :, rows], total[rows]))
        end = ends[0] if self.blocks == 1 else torch.cat(ends, 2)
        return {self.name: end}, split(self.group, total, self.layout) if delta else {}

    def capture(self, run: Capture) -> CapturedTracker | None:
        """The traces on kernels, unless weights have blocks."""
        if self.blocks != 1:
            return None
        scored = {k: run.scored[s] for k, s in enumerate(self.states) if s in run.scored}
        traces = run.traces(self._inputs(run.steps, scored), self.shape)
        if traces is None:
            return None

        def advance(addresses: list[int], memory: Tensors | None, keep: bool) -> tuple[Tensors, dict[Value, Tensor]]:
            end, g = traces(addresses, None if memory is None else memory[self.name], keep)
            return {self.name: end}, split(self.group, g, self.layout) if scored else {}

        return advance

    def _inputs(self, steps: StepValues, scored: Mapping[int, Tensor], block: int = 0) -> TraceInputs:
        """How a block's traces change in each step, with gradients of the states of these numbers."""
        rows = self._rows()[block]
        d = {(k, j): found for k, j, found in self._pairs(steps)}
        into = {k: steps.into(self.group, s) for k, s in enumerate(self.states)}
        u = {k: found for k, found in into.items() if found is not None}
        pieces = [self._piece(steps, m, v, block) for m, v in self.group.factors]
        form = TraceForm(len(self.states), tuple(d), tuple(u), tuple(scored))
        factors = [[t[..., rows] for t in named.values()] for named in (d, u, scored)]
        bias = self.group.bias is not None or self.group.is_vector
        return TraceInputs(form, factors[0], factors[1], pieces, factors[2], bias)

    def _rows(self) -> list[slice]:
        """Ranges of rows that read the same units: all, or those of each block."""
        height = self.shape[0] // self.blocks
        return [slice(k * height, (k + 1) * height) for k in range(self.blocks)]

    def _piece(self, steps: StepValues, matrix: Value, vector: Value, number: int) -> Tensor:
        """The part of a vector that one of several blocks of rows reads."""
        found, blocks = steps.masked(steps[vector]), matrix.attrs.get("blocks", 1)
        width = found.shape[-1] // blocks
        begin = number * blocks // self.blocks * width
        return found[..., begin : begin + width]

    def _pairs(self, steps: StepValues) -> list[tuple[int, int, Tensor]]:
        parts = [
            (k, j, self._between(steps, new, old))
            for k, new in enumerate(self.states)
            for j, old in enumerate(self.states)
        ]
        return [(k, j, found) for k, j, found in parts if found is not None]

    def gradient(self, memory: Tensors, gradients: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of a loss with these gradients `[B, n]` in the current states."""
        traces, scored = memory[self.name], [(k, s) for k, s in enumerate(self.states) if s in gradients]
        parts = [gradients[s].unsqueeze(-1) * traces[:, k] for k, s in scored]
        if not parts:
            return {}
        whole = sum(parts[1:], parts[0])
        return split(self.group, whole[0] if len(whole) == 1 else whole.sum(0), self.layout)
