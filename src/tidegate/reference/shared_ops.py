"""The operations of both array namespaces that numpy's arrays and torch's tensors spell alike."""

from typing import Any


def transpose(matrix: Any) -> Any:
    """Rows become columns, within each block."""
    return matrix.swapaxes(-1, -2)


def mean(a: Any) -> Any:
    """The mean over units, kept as one unit."""
    return a.mean(-1, keepdims=True)


def total(a: Any, units: int) -> Any:
    """Sums over neighbouring units until `units` are left."""
    return a.reshape(*a.shape[:-1], units, -1).sum(-1)


def total_matrix(a: Any) -> Any:
    """The sum over a whole matrix of weights, as one unit."""
    return a.sum().reshape(1)


def total_rows(matrix: Any, rows: int) -> Any:
    """Sums over neighbouring rows until `rows` are left."""
    return matrix.reshape(*matrix.shape[:-2], rows, -1, matrix.shape[-1]).sum(-2)


def part(a: Any, start: int, units: int) -> Any:
    """Some units of a vector, from one on."""
    return a[..., start : start + units]


def outer(a: Any, b: Any, blocks: int | None = None) -> Any:
    """Column times row; with blocks, only the blocks on the diagonal."""
    if blocks is not None:
        a, b = (v.reshape(*v.shape[:-1], blocks, -1) for v in (a, b))
    return column(a) * row(b)


def column(a: Any) -> Any:
    """A vector as a column, to scale a matrix's rows."""
    return a[..., :, None]


def row(a: Any) -> Any:
    """A vector as a row, to scale a matrix's columns."""
    return a[..., None, :]


def diagonal_part(matrix: Any) -> Any:
    """The diagonal of a matrix as a vector."""
    return matrix.diagonal(0, -2, -1)
