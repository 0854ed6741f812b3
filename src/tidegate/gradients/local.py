"""The influence of weights on their own unit only: a trace for each weight and state.

Exact where the recurrence is element-wise, since then there is no other influence; elsewhere SnAp-1 (Menick et al.
2021, arXiv:2006.07232, section 3.2), RFLO (Murray 2019, doi:10.7554/eLife.43299, equation 8) or e-prop (Bellec et al.
2020, doi:10.1038/s41467-020-17236-y, equation 14), by what of the states' Jacobian is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tidegate.equations.values import Value
from tidegate.gradients.groups import Group
from tidegate.gradients.layout import Layout
from tidegate.gradients.steps import Steps, split

Tensors = dict[str, Tensor]


class Local:
    """The traces of one group, `[B, states, rows, V]`. Between states, what is `direct` goes through no matrix; else
    the diagonal of the whole Jacobian is kept."""

    def __init__(self, name: str, group: Group, layout: Layout, *, direct: bool = False) -> None:
        self.name, self.group = name, group
        self.states, self.sizes, self.shape = group.reach, layout.sizes, layout.shape(group)
        self._between = Steps.direct if direct else Steps.diagonal
        between = layout.directly(self.states) if direct else layout.on_diagonals(self.states)
        self.values = [*layout.read([group]), *between]

    def begin(self, rows: int, like: Tensor) -> Tensors:
        """No influence yet."""
        return {self.name: like.new_zeros(rows, len(self.states), *self.shape)}

    def advance(
        self, memory: Tensors, steps: Steps, adjoints: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The traces after some steps, and the gradient of what has these adjoints `[T, B, n]` at each of them."""
        traces = list(memory[self.name].unbind(1))
        keep = self._pairs(steps)
        drive = {k: steps.into(self.group, s) for k, s in enumerate(self.states) if s in self.group.jacobians}
        read = steps.read(self.group)
        scored = {} if adjoints is None else {k: adjoints[s] for k, s in enumerate(self.states) if s in adjoints}
        total = traces[0].new_zeros(self.shape)
        for t in range(steps.T):
            new = []
            for k in range(len(traces)):
                trace = torch.zeros_like(traces[k])
                for old, d in keep[k]:
                    trace = trace + d[t].unsqueeze(-1) * traces[old]
                if k in drive:
                    trace = trace + drive[k][t].unsqueeze(-1) * read[t]
                new.append(trace)
            traces = new
            for k, adjoint in scored.items():
                total = total + (adjoint[t].unsqueeze(-1) * traces[k]).sum(0)
        found = split(self.group, total, self.sizes) if scored else {}
        return {self.name: torch.stack(traces, 1)}, found

    def _pairs(self, steps: Steps) -> list[list[tuple[int, Tensor]]]:
        found: list[list[tuple[int, Tensor]]] = []
        for new in self.states:
            parts = [(k, self._between(steps, new, old)) for k, old in enumerate(self.states)]
            found.append([(k, d) for k, d in parts if d is not None])
        return found

    def gradient(self, memory: Tensors, adjoints: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of what has these adjoints `[B, n]` in the states now."""
        traces = memory[self.name]
        parts = [
            torch.einsum("br,brv->rv", adjoints[s], traces[:, k]) for k, s in enumerate(self.states) if s in adjoints
        ]
        return split(self.group, sum(parts[1:], parts[0]), self.sizes) if parts else {}
