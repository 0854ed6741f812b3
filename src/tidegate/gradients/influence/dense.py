"""The influence of weights on states as full matrices: exact real-time recurrent learning, and SnAp's masks of it.

Williams & Zipser 1989, doi:10.1162/neco.1989.1.2.270, equation 8: J_t = A_t J_(t-1) + B_t, with A_t the Jacobian of the
states in those before and B_t that in the weights themselves.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tidegate.calculus import Diagonal
from tidegate.equations.values import Value
from tidegate.gradients.cost import Cost
from tidegate.gradients.influence.capture import Tracker
from tidegate.gradients.influence.parameter_groups import ParameterGroup, add
from tidegate.gradients.influence.parameter_layout import Bundle, ParameterLayout
from tidegate.gradients.influence.step_values import StepValues, split

Tensors = dict[str, Tensor]
Drive = tuple[slice, Tensor]  # units of a state, and its Jacobian in the results of a bundle's groups


class DenseInfluence(Tracker):
    """Groups of weights that influence the same states: one matrix `[B, units of the states, weights]`.

    `allowed` `[units of the states, rows]` flags the rows of weights kept for each unit, for a single group; None keeps
    all.
    """

    def __init__(
        self,
        name: str,
        groups: Sequence[ParameterGroup],
        states: Sequence[str],
        layout: ParameterLayout,
        allowed: Tensor | None = None,
    ) -> None:
        self.name, self.states, self.layout, self.allowed = name, tuple(states), layout, allowed
        self.places, self.D = layout.places(self.states)
        self.bundles: list[tuple[Bundle, slice]] = []
        self.P = 0
        for bundle in layout.bundles(groups):
            self.bundles.append((bundle, slice(self.P, self.P + bundle.count)))
            self.P += bundle.count
        self.values = [*layout.read(groups), *layout.between(self.states)]

    def cost(self, rows: int) -> Cost:
        """The product of the Jacobian with the matrix, what the step's own weights add, and the gradient."""
        D, P = self.D, self.P
        own = sum(2 * self._driven(b, state) for b, _ in self.bundles for state in self.states)
        masked = 0 if self.allowed is None else D * P
        flops = 2 * D * D * P + own + masked + 2 * D * P + (2 * P if self.allowed is None else 0)
        names = tuple(g.name for b, _ in self.bundles for g in b.groups)
        S = len(self.states)
        calls = 20 + 4 * S * S + 12 * S * len(self.bundles) + 6 * len(names)
        return Cost(names, f"a matrix of {D} x {P}", self._why(), rows * D * P, rows * flops, calls)

    def _driven(self, bundle: Bundle, state: str) -> int:
        """Elements of a state's influence that a step's own weights add to."""
        found = [g.jacobians[state] for g in bundle.groups if state in g.jacobians]
        if not found:
            return 0
        return bundle.count * (1 if isinstance(found[0], Diagonal) else self.layout.width[state])

    def _why(self) -> str:
        if self.allowed is None:
            return "everything"
        return f"{float(self.allowed.float().mean()):.0%} of it, the rest stays 0"

    def begin(self, rows: int, like: Tensor) -> Tensors:
        """Zero influence."""
        return {self.name: like.new_zeros(rows, self.D, self.P)}

    def advance(
        self, memory: Tensors, steps: StepValues, gradients: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The influence after some steps, and the gradient of a loss with these gradients `[T, B, n]` in the states."""
        J, A = memory[self.name], steps.matrix(self.states)
        delta = None if gradients is None else row(self.places, gradients)
        if delta is not None and self.allowed is None:
            A = torch.cat([A, delta.unsqueeze(-2) @ A], -2)  # an extra row gives the gradient with the same product
        total = J.new_zeros(self.P)
        drives = [(columns, b, _read(steps, b), self._drives(steps, b)) for b, columns in self.bundles]
        held: Tensor | None = None
        spare: Tensor | None = None  # the buffer before the last one: allocating costs as much as the product
        for t in range(steps.T):
            product = torch.bmm(A[t], J, out=spare)
            spare, held = held, product
            if delta is not None and self.allowed is None:
                total += product[:, self.D].sum(0)
            J = product[:, : self.D]
            for columns, bundle, read, into in drives:
                for place, jacobian in into:
                    _drive(J[:, place, columns], bundle, jacobian[t], read[t])
            if self.allowed is not None:
                J.unflatten(-1, (*self.allowed.shape[1:], -1)).mul_(self.allowed.to(J).unsqueeze(-1))
                if delta is not None:
                    total += torch.einsum("bd,bdp->p", delta[t], J)
        if gradients is None:
            return {self.name: J}, {}
        found = self._parted(total)
        if self.allowed is None:
            self._add_immediate(found, steps, gradients)
        return {self.name: J}, found

    def gradient(self, memory: Tensors, gradients: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of a loss with these gradients `[B, n]` in the current states."""
        J = memory[self.name]
        delta = row(self.places, gradients)
        return self._parted(torch.bmm(delta.unsqueeze(1), J).sum((0, 1)))

    def _drives(self, steps: StepValues, bundle: Bundle) -> list[Drive]:
        """The Jacobians of each state: `[T, B, groups, n]` on the diagonal, or of one group `[T, B, 1, n, rows]`."""
        found: list[Drive] = []
        for state, place in self.places.items():
            each = [steps.into(g, state) for g in bundle.groups]
            known = next((j for j in each if j is not None), None)
            if known is None:
                continue
            if known.dim() == 4:
                found.append((place, known.unsqueeze(2)))
            else:
                found.append((place, torch.stack([torch.zeros_like(known) if j is None else j for j in each], 2)))
        return found

    def _add_immediate(self, found: dict[Value, Tensor], steps: StepValues, gradients: Mapping[str, Tensor]) -> None:
        """Add the direct influence of each step's weights, for all steps at once."""
        for bundle, _ in self.bundles:
            read = steps.read(bundle.groups[0])
            for group in bundle.groups:
                add(found, split(group, summed(steps.pulled(group, gradients), read), self.layout))

    def _parted(self, flat: Tensor) -> dict[Value, Tensor]:
        found: dict[Value, Tensor] = {}
        for bundle, columns in self.bundles:
            parts = flat[columns].view(len(bundle.groups), bundle.rows, bundle.columns)
            for group, part in zip(bundle.groups, parts, strict=True):
                add(found, split(group, part, self.layout))
        return found


def _read(steps: StepValues, bundle: Bundle) -> Tensor:
    """The vectors that the weights multiply, `[T, B, V, 1 or rows]`."""
    return steps.read(bundle.groups[0]).transpose(2, 3)


def _drive(J: Tensor, bundle: Bundle, jacobian: Tensor, read: Tensor) -> None:
    """Add the direct influence of a step's weights, by a Jacobian `[B, groups, n]` on the diagonal, or `[B, 1, n,
    rows]`."""
    block = J.unflatten(-1, (len(bundle.groups), bundle.rows, bundle.columns))
    if jacobian.dim() == 3:
        block.diagonal(dim1=1, dim2=3).add_(jacobian.unsqueeze(2) * read.unsqueeze(1))
    else:
        block.squeeze(2).add_(jacobian.squeeze(1).unsqueeze(-1) * read.transpose(1, 2).unsqueeze(1))


def summed(rows: Tensor, read: Tensor) -> Tensor:
    """The sum of outer products over steps and rows of the batch, `[rows, V]`."""
    if read.shape[2] == 1:
        return rows.flatten(0, 1).t() @ read.squeeze(2).flatten(0, 1)
    return torch.einsum("tbr,tbrv->rv", rows, read)


def row(places: Mapping[str, slice], gradients: Mapping[str, Tensor]) -> Tensor:
    """Gradients of states side by side, zeros for missing ones."""
    given = next(iter(gradients.values()))
    widths = {name: p.stop - p.start for name, p in places.items()}
    return torch.cat([gradients.get(n, given.new_zeros(*given.shape[:-1], w)) for n, w in widths.items()], -1)
