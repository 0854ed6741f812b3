"""Values and Jacobians of many steps of a run at once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tidegate.calculus import Diagonal
from tidegate.calculus.jacobian import Jacobian
from tidegate.equations.values import Value
from tidegate.gradients.influence.parameter_groups import ParameterGroup
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.reference import Program
from tidegate.reference import torch_ops as xp

Tensors = Mapping[str, Tensor]


class StepValues:
    """The values that rules read of T steps of B rows.

    `env` holds the values of the step, `[T, B, ...]`; other values are computed when a rule reads them. `fresh` `[T,
    B]` flags the steps that begin with a reset, `valid` `[T, B]` those that are not padding: the others change nothing.
    """

    def __init__(
        self,
        layout: ParameterLayout,
        env: dict[Value, Any],
        shape: tuple[int, int],
        like: Tensor,
        fresh: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        self.layout, self.env, self.like, self.fresh, self.valid = layout, env, like, fresh, valid
        self.structure, self.sizes, self.width = layout.structure, layout.sizes, layout.width
        self.T, self.B = shape
        self._known: dict[tuple[str, str, str], Tensor | None] = {}

    def __getitem__(self, value: Value) -> Tensor:
        """A value `[T, B, ...]`."""
        if value not in self.env:
            with torch.no_grad():
                Program([value], given=self.env)(xp, self.sizes, self.env)
        found = self.env[value]
        if not isinstance(found, Tensor):
            found = torch.as_tensor(found, dtype=self.like.dtype, device=self.like.device)
        shape = self.T, self.B, *self.layout.shape_of(value)
        return found if found.shape == shape else found.expand(shape)

    def state(self, name: str) -> Tensor:
        """A state after each step, `[T, B, size]`."""
        found = self[self.structure.graph.new[name]]
        return found.expand(self.T, self.B, self.width[name])

    def between(self, new: str, old: str) -> Tensor | None:
        """The Jacobian of a state in one before: `[T, B, n]` on the diagonal, or `[T, B, n, m]`; None where zero."""
        jacobian = self.structure.jacobians.states.get((new, old))
        if jacobian is None:
            return self._held(new) if new == old and self.valid is not None else None
        found = self[jacobian.value]
        diagonal = isinstance(jacobian, Diagonal)
        hold = 0.0 if new != old else 1.0 if diagonal else xp.eye(self.width[new], found)
        return self._kept(found, hold)

    def _kept(self, jacobian: Tensor, hold: Any) -> Tensor:
        """A Jacobian of states in states: zero at resets, `hold` in padding."""
        flags = (slice(None), slice(None)) + (None,) * (jacobian.dim() - 2)
        if self.fresh is not None:
            jacobian = jacobian.masked_fill(self.fresh[flags], 0.0)
        return jacobian if self.valid is None else torch.where(self.valid[flags], jacobian, hold)

    def diagonal(self, new: str, old: str) -> Tensor | None:
        """The diagonal of the Jacobian of a state in another, `[T, B, n]`; None if units do not correspond."""
        return self._once("diagonal", new, old, self._diagonal)

    def direct(self, new: str, old: str) -> Tensor | None:
        """The Jacobian of a state in another through no matrix, `[T, B, n]`."""
        return self._once("direct", new, old, self._direct)

    def _once(self, kind: str, new: str, old: str, find: Callable[[str, str], Tensor | None]) -> Tensor | None:
        """Compute a value once for several trackers."""
        key = kind, new, old
        if key not in self._known:
            self._known[key] = find(new, old)
        return self._known[key]

    def _diagonal(self, new: str, old: str) -> Tensor | None:
        known = self.structure.diagonals.get((new, old))
        if known is not None:
            return self._kept(self[known], hold=float(new == old))
        found = self.between(new, old)
        if found is None or found.dim() == 3:
            return found
        return found.diagonal(dim1=-2, dim2=-1) if self.width[new] == self.width[old] else None

    def _direct(self, new: str, old: str) -> Tensor | None:
        jacobian = self.structure.direct.get((new, old))
        if jacobian is None:
            return self._held(new) if new == old and self.valid is not None else None
        return self._kept(self[jacobian.value], hold=float(new == old))

    def _held(self, name: str) -> Tensor:
        assert self.valid is not None
        return (~self.valid).to(self.like.dtype).unsqueeze(-1).expand(-1, -1, self.width[name])

    def matrix(self, states: Sequence[str]) -> Tensor:
        """The Jacobian of some new states in the same old states, `[T, B, D, D]`."""
        offsets, D = self.layout.places(states)
        found = self.like.new_zeros(self.T, self.B, D, D)
        for new in states:
            for old in states:
                part = self.between(new, old)
                if part is not None:
                    write(part, found[:, :, offsets[new], offsets[old]])
        return found

    def into(self, group: ParameterGroup, state: str) -> Tensor | None:
        """The Jacobian of a new state in a group's result: `[T, B, n]` on the diagonal, or `[T, B, n, rows]`."""
        jacobian: Jacobian | None = group.jacobians.get(state)
        if jacobian is None:
            return None
        return self.masked(self[jacobian.value])

    def pulled(self, group: ParameterGroup, gradients: Tensors) -> Tensor:
        """Gradients of new states `[T, B, n]` pulled back to the group's result, `[T, B, rows]`."""
        total = None
        for state, gradient in gradients.items():
            jacobian = self.into(group, state)
            if jacobian is None:
                continue
            part = jacobian * gradient if jacobian.dim() == 3 else (gradient.unsqueeze(-2) @ jacobian).squeeze(-2)
            total = part if total is None else total + part
        if total is None:
            return self.like.new_zeros(self.T, self.B, self.layout.rows(group))
        return total

    def read(self, group: ParameterGroup) -> Tensor:
        """The vectors that each row of a group multiplies, `[T, B, 1 or rows, V]`, then 1 for a bias."""
        if group.is_vector:
            return self.like.new_ones(1, 1, 1, 1).expand(self.T, self.B, 1, 1)
        parts = [self._factor(group, m, v) for m, v in group.factors]
        if group.bias is not None:
            parts.append(self.like.new_ones(1, 1, 1, 1).expand(self.T, self.B, 1, 1))
        rows = max(p.shape[2] for p in parts)
        return self.masked(torch.cat([p.expand(-1, -1, rows, -1) for p in parts], -1))

    def masked(self, values: Tensor) -> Tensor:
        """Values `[T, B, ...]`, zero in padding."""
        if self.valid is None:
            return values
        return torch.where(self.valid[(slice(None), slice(None)) + (None,) * (values.dim() - 2)], values, 0.0)

    def _factor(self, group: ParameterGroup, matrix: Value, vector: Value) -> Tensor:
        found, blocks = self[vector], matrix.attrs.get("blocks")
        if blocks is None:
            return found.unsqueeze(2)
        return found.unflatten(2, (blocks, -1)).repeat_interleave(self.layout.rows(group) // blocks, 2)


def write(jacobian: Tensor, into: Tensor) -> None:
    """Write a Jacobian, `[T, B, n]` on the diagonal or `[T, B, n, m]`, into a block of zeros."""
    (into.diagonal(dim1=-2, dim2=-1) if jacobian.dim() == 3 else into).copy_(jacobian)


def split(group: ParameterGroup, gradient: Tensor, layout: ParameterLayout) -> dict[Value, Tensor]:
    """A group's gradient `[rows, V]` by parameter, in the parameter's shape."""
    if group.is_vector:
        return {group.result: gradient.squeeze(-1)}
    found: dict[Value, Tensor] = {}
    for matrix, begin, end, shape in layout.columns_of(group):
        part = gradient[:, begin:end]
        part = part if shape is None else part.reshape(shape)
        found[matrix] = found[matrix] + part if matrix in found else part
    if group.bias is not None:
        part, wanted = gradient[:, -1], layout.shape_of(group.bias)
        found[group.bias] = part if part.shape == wanted else part.sum().reshape(wanted)
    return found
