"""Which weights can influence which units within n steps: the masks of SnAp-n.

Menick et al. 2021, arXiv:2006.07232, section 3: an entry of the influence is kept if it can be nonzero within n steps.
Zeros are derived from the equations: units that do not mix, blocks, and matrices that are fixed at zero.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from tidegate.calculus import Diagonal
from tidegate.calculus.jacobian import Jacobian
from tidegate.equations.values import Value
from tidegate.gradients.influence.parameter_groups import ParameterGroup
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.reference import bound


def within(layout: ParameterLayout, group: ParameterGroup, n: int) -> dict[str, Tensor]:
    """Which rows of a group can influence which units of each state within n steps, `[units, rows]`."""
    rows = layout.rows(group)
    between = {
        key: _pattern(layout, j, layout.width[key[1]])
        for key, j in layout.structure.jacobians.states.items()
        if key[0] in group.reach and key[1] in group.reach
    }
    first = {s: torch.zeros(layout.width[s], rows, dtype=torch.bool) for s in group.reach}
    first |= {s: _pattern(layout, j, rows) for s, j in group.jacobians.items()}
    found = first
    for _ in range(n - 1):
        more = {s: p.clone() for s, p in first.items()}
        for (new, old), j in between.items():
            more[new] |= _after(j, found[old])
        if all(torch.equal(more[s], found[s]) for s in found):
            break
        found = more
    return found


def on_diagonal(pattern: Mapping[str, Tensor]) -> bool:
    """Whether each row influences only the unit of the same index."""
    return all(
        p.shape[0] == p.shape[1] and not bool((p & ~torch.eye(p.shape[0], dtype=torch.bool)).any())
        for p in pattern.values()
    )


def _after(jacobian: Tensor, pattern: Tensor) -> Tensor:
    return (jacobian.double() @ pattern.double()) > 0


def _pattern(layout: ParameterLayout, jacobian: Jacobian, columns: int) -> Tensor:
    if isinstance(jacobian, Diagonal):
        return torch.eye(columns, dtype=torch.bool)
    return _of_matrix(layout, jacobian.value)


def _of_matrix(layout: ParameterLayout, matrix: Value) -> Tensor:
    """The mask of a matrix's elements that can be nonzero."""
    size = bound(matrix.size, layout.sizes)
    parts = [a for a in matrix.args if len(a.size) == 2]
    if matrix.op in ("scale_rows", "scale_columns"):
        return _of_matrix(layout, parts[0])
    if matrix.op in ("add", "sub") and len(parts) == 2:
        return _of_matrix(layout, parts[0]) | _of_matrix(layout, parts[1])
    if matrix.op == "mul" and len(parts) == 2:
        return _of_matrix(layout, parts[0]) & _of_matrix(layout, parts[1])
    if matrix.op == "compose":
        return _after(_of_matrix(layout, parts[0]), _of_matrix(layout, parts[1]))
    if matrix.op == "diagonal":
        return torch.eye(size[0], dtype=torch.bool)
    if matrix.op == "dense":
        blocks = matrix.args[0].attrs["blocks"]
        one = torch.ones(size[0] // blocks, size[1] // blocks, dtype=torch.bool)
        return torch.block_diag(*[one] * blocks)
    if matrix.op == "stack_known":
        given = dict(zip(matrix.attrs["known"], map(partial(_of_matrix, layout), matrix.args), strict=True))
        rows = enumerate(bound(tuple(matrix.attrs["rows"]), layout.sizes))
        return torch.cat([given.get(k, torch.zeros(n, size[1], dtype=torch.bool)) for k, n in rows])
    if matrix.op == "weight" and not matrix.attrs["learn"] and matrix.attrs["name"] in layout.weights:
        return layout.weights[matrix.attrs["name"]] != 0
    return torch.ones(size, dtype=torch.bool)
