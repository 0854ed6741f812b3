"""The numpy array namespace that the op table computes with."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.reference.shared_ops import *  # noqa: F403

Array = NDArray[Any]

exp, expm1, log, log1p, sqrt = np.exp, np.expm1, np.log, np.log1p, np.sqrt
sin, cos, tanh, floor, abs = np.sin, np.cos, np.tanh, np.floor, np.abs
maximum, minimum, mod, matmul = np.maximum, np.minimum, np.mod, np.matmul


def expand(array: Any, to: tuple[int, ...]) -> Array:
    """The array broadcast to a shape."""
    return np.broadcast_to(array, to)


def compare(relation: Callable[[Any, Any], Any], a: Any, b: Any) -> Array:
    """A comparison as 1 and 0, of the operands' type."""
    return np.asarray(relation(a, b), dtype=np.result_type(a, b))


def eye(units: int, like: Array) -> Array:
    """The identity matrix, with another array's type."""
    return np.eye(units, dtype=like.dtype)


def vector(number: float, like: Array) -> Array:
    """A number as a vector of one unit, with another array's type."""
    return np.full(1, number, dtype=like.dtype)


def where(condition: Array, a: Any, b: Any) -> Array:
    """`a` where the condition is not 0; two numbers take the condition's type."""
    if isinstance(a, float) and isinstance(b, float):
        a = np.asarray(a, dtype=np.result_type(condition))
    return np.where(np.asarray(condition) != 0, a, b)


def sigmoid(a: Any) -> Array:
    """The logistic function without overflow."""
    small = np.exp(-np.abs(a))
    return np.where(np.asarray(a) >= 0, 1.0, small) / (1.0 + small)


def softplus(a: Any) -> Array:
    """log(1 + exp(a)) without overflow."""
    return np.logaddexp(a, 0.0)


def log_sigmoid(a: Any) -> Array:
    """log(sigmoid(a)) without underflow."""
    return -np.logaddexp(-np.asarray(a), 0.0)


def sign(a: Any) -> Array:
    """-1, 0 or 1; 0 for NaN, as in torch."""
    return np.where(np.isnan(a), 0.0, np.sign(a)).astype(np.result_type(a))


def relu(a: Any) -> Array:
    """max(a, 0)."""
    return np.maximum(a, 0.0)


def stop(a: Any) -> Any:
    """The value itself."""
    return a


def clip_gradient(a: Any, limit: Any) -> Any:
    """The value itself."""
    return a


def product(matrix: Array, vector: Array) -> Array:
    """`matrix @ vector` for vectors `[..., columns]`; a block-diagonal matrix is `[blocks, rows, columns]`; a vector of
    integers holds the indices of one-hots, and picks columns."""
    if np.issubdtype(vector.dtype, np.integer):
        return dense(matrix).T[vector]
    if matrix.ndim == 2:
        return vector @ matrix.T
    parts = vector.reshape(*vector.shape[:-1], matrix.shape[0], matrix.shape[2])
    rows: Array = np.einsum("nrc,...nc->...nr", matrix, parts)
    return rows.reshape(*vector.shape[:-1], -1)


def stack_known(matrices: Any, known: list[int], rows: tuple[int, ...]) -> Array:
    """Stack matrices vertically, with rows of zeros for missing ones."""
    given = dict(zip(known, matrices, strict=True))
    first = matrices[0]
    parts = [given.get(k, np.zeros((*first.shape[:-2], n, first.shape[-1]), first.dtype)) for k, n in enumerate(rows)]
    lead = np.broadcast_shapes(*(p.shape[:-2] for p in parts))
    return np.concatenate([np.broadcast_to(p, (*lead, *p.shape[-2:])) for p in parts], -2)


def spread(a: Array, units: int) -> Array:
    """Each unit repeated in place until there are `units`."""
    return np.repeat(a, units // a.shape[-1], axis=-1)


def concat(arrays: Any) -> Array:
    """Concatenate vectors, broadcast to a common batch."""
    lead = np.broadcast_shapes(*(a.shape[:-1] for a in arrays))
    return np.concatenate([np.broadcast_to(a, (*lead, a.shape[-1])) for a in arrays], axis=-1)


def diagonal(a: Array) -> Array:
    """The diagonal matrix of a vector."""
    return a[..., :, None] * np.eye(a.shape[-1], dtype=a.dtype)


def dense(matrix: Array) -> Array:
    """A block-diagonal matrix written out."""
    if matrix.ndim == 2:
        return matrix
    n, rows, columns = matrix.shape
    full = np.zeros((n, rows, n, columns), dtype=matrix.dtype)
    full[np.arange(n), :, np.arange(n)] = matrix
    return full.reshape(n * rows, n * columns)


def spread_rows(matrix: Array, rows: int) -> Array:
    """Each row repeated in place until there are `rows`."""
    return np.repeat(matrix, rows // matrix.shape[-2], axis=-2)
