"""The influence of weights on states as full matrices: exact real-time recurrent learning, and SnAp's masks of it.

Williams & Zipser 1989, doi:10.1162/neco.1989.1.2.270, equation 8: J_t = A_t J_(t-1) + B_t, with A_t the Jacobian of the
states in those before and B_t that in the weights themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tidegate.equations.values import Value
from tidegate.gradients.groups import Group, add
from tidegate.gradients.layout import Layout
from tidegate.gradients.steps import Steps, split

Tensors = dict[str, Tensor]


class Dense:
    """Groups of weights that influence the same states: one matrix `[B, units of the states, weights]`.

    `allowed` are the entries that are kept, `[units of the states, weights]`; None keeps all.
    """

    def __init__(
        self, name: str, groups: Sequence[Group], states: Sequence[str], layout: Layout, allowed: Tensor | None = None
    ) -> None:
        self.name, self.groups, self.states, self.allowed = name, tuple(groups), tuple(states), allowed
        self.sizes = layout.sizes
        self.places, self.D = layout.places(self.states)
        self.columns: list[slice] = []
        self.shapes: list[tuple[int, int]] = []
        begin = 0
        for group in self.groups:
            shape = layout.shape(group)
            self.shapes.append(shape)
            self.columns.append(slice(begin, begin + shape[0] * shape[1]))
            begin += shape[0] * shape[1]
        self.P = begin
        self.values = [*layout.read(self.groups), *layout.between(self.states)]

    def begin(self, rows: int, like: Tensor) -> Tensors:
        """No influence yet."""
        return {self.name: like.new_zeros(rows, self.D, self.P)}

    def advance(
        self, memory: Tensors, steps: Steps, adjoints: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The influence after some steps, and the gradient of what has these adjoints `[T, B, n]` at each of them."""
        J = memory[self.name]
        A = steps.matrix(self.states)
        delta = None if adjoints is None else self._row(adjoints, A)
        exact = self.allowed is None
        if delta is not None and exact:
            A = torch.cat([A, delta.unsqueeze(-2) @ A], -2)  # one row more gives the gradient with the same product
        total = J.new_zeros(self.P)
        drives = [self._drive(steps, group) for group in self.groups]
        for t in range(steps.T):
            product = torch.bmm(A[t], J)
            if delta is not None and exact:
                total += product[:, self.D].sum(0)
            J = product[:, : self.D]
            for k, drive in enumerate(drives):
                self._add(J, k, drive, t)
            if self.allowed is not None:
                J.mul_(self.allowed.to(J))
                if delta is not None:
                    total += torch.einsum("bd,bdp->p", delta[t], J)
        found = self._parted(total) if delta is not None else {}
        if adjoints is not None and exact:
            for group in self.groups:
                add(found, self._immediate(steps, group, adjoints))
        return {self.name: J}, found

    def gradient(self, memory: Tensors, adjoints: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of what has these adjoints `[B, n]` in the states now."""
        J = memory[self.name]
        return self._parted(torch.einsum("bd,bdp->p", self._row(adjoints, J), J))

    def _row(self, adjoints: Mapping[str, Tensor], like: Tensor) -> Tensor:
        lead = like.shape[:-2]
        zero = [like.new_zeros(*lead, p.stop - p.start) for p in self.places.values()]
        return torch.cat([adjoints.get(name, z) for name, z in zip(self.places, zero, strict=True)], -1)

    def _drive(self, steps: Steps, group: Group) -> tuple[Tensor, list[tuple[slice, Tensor]]]:
        into = [(self.places[s], steps.into(group, s)) for s in group.jacobians]
        return steps.read(group), [(place, j) for place, j in into if j is not None]

    def _add(self, J: Tensor, k: int, drive: tuple[Tensor, list[tuple[slice, Tensor]]], t: int) -> None:
        read, into = drive
        v = read[t]
        for place, jacobian in into:
            block = J[:, place, self.columns[k]].unflatten(-1, self.shapes[k])
            j = jacobian[t]
            if j.dim() == 2:
                block.diagonal(dim1=1, dim2=2).add_((v * j.unsqueeze(-1)).transpose(1, 2))
            else:
                block.add_(j.unsqueeze(-1) * v.unsqueeze(1))

    def _immediate(self, steps: Steps, group: Group, adjoints: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        return split(group, summed(steps.pulled(group, adjoints), steps.read(group)), self.sizes)

    def _parted(self, flat: Tensor) -> dict[Value, Tensor]:
        found: dict[Value, Tensor] = {}
        for group, columns, shape in zip(self.groups, self.columns, self.shapes, strict=True):
            add(found, split(group, flat[columns].view(shape), self.sizes))
        return found


def summed(rows: Tensor, read: Tensor) -> Tensor:
    """The sum of outer products over steps and rows of the batch, `[rows, V]`."""
    if read.shape[2] == 1:
        return rows.flatten(0, 1).t() @ read.squeeze(2).flatten(0, 1)
    return torch.einsum("tbr,tbrv->rv", rows, read)
