"""The torch array namespace: any dtype and device, twice differentiable, under jvp and vmap."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tidegate.reference.shared_ops import *  # noqa: F403

exp, expm1, log, log1p, sqrt = torch.exp, torch.expm1, torch.log, torch.log1p, torch.sqrt
sin, cos, tanh, floor, sign, abs = torch.sin, torch.cos, torch.tanh, torch.floor, torch.sign, torch.abs
sigmoid, relu, log_sigmoid = torch.sigmoid, torch.relu, functional.logsigmoid
matmul = torch.matmul


def expand(array: Any, to: tuple[int, ...]) -> Tensor:
    """The tensor broadcast to a shape."""
    return torch.as_tensor(array).expand(to)


def _pair(a: Any, b: Any) -> tuple[Any, Any]:
    if not isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.as_tensor(a, dtype=b.dtype, device=b.device), b
    if not isinstance(b, Tensor) and isinstance(a, Tensor):
        return a, torch.as_tensor(b, dtype=a.dtype, device=a.device)
    return torch.as_tensor(a), torch.as_tensor(b)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of two; at a tie each gets half of the gradient."""
    return torch.maximum(*_pair(a, b))


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of two; at a tie each gets half of the gradient."""
    return torch.minimum(*_pair(a, b))


def mod(a: Any, b: Any) -> Tensor:
    """The remainder with the divisor's sign."""
    return torch.remainder(*_pair(a, b))


def compare(relation: Callable[[Any, Any], Any], a: Any, b: Any) -> Tensor:
    """A comparison as 1 and 0, of the operands' type."""
    like = a if isinstance(a, Tensor) else b
    result: Tensor = relation(a, b).to(like.dtype)
    return result


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition is not 0."""
    if not isinstance(condition, Tensor):
        return a if condition else b
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = torch.as_tensor(a, dtype=condition.dtype, device=condition.device)
    return torch.where(condition != 0, a, b)


def softplus(a: Tensor) -> Tensor:
    """log(1 + exp(a)) without overflow; torch's own becomes linear at 20, with an error of 2e-9."""
    return torch.logaddexp(a, torch.zeros_like(a))


def stop(a: Any) -> Any:
    """The value itself, through which no gradient flows."""
    return a.detach() if isinstance(a, Tensor) else a


class _ClipGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, limit: Tensor) -> Tensor:
        return a.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (limit,) = ctx.saved_tensors
        return torch.minimum(torch.maximum(gradient, -limit), limit), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Tensor) -> Tensor:
        return tangent.clone()


def clip_gradient(a: Tensor, limit: Any) -> Tensor:
    """The value itself; its gradient is clipped to +-limit."""
    result: Tensor = _ClipGradient.apply(*_pair(a, limit))
    return result


def product(matrix: Tensor, vector: Tensor) -> Tensor:
    """`matrix @ vector` for vectors `[..., columns]`; a block-diagonal matrix is `[blocks, rows, columns]`; a vector of
    integers holds the indices of one-hots, and picks columns."""
    if not vector.is_floating_point():
        return functional.embedding(vector, dense(matrix).t())
    if matrix.dim() == 2:
        return functional.linear(vector, matrix)
    parts = vector.reshape(*vector.shape[:-1], matrix.shape[0], matrix.shape[2])
    return torch.einsum("nrc,...nc->...nr", matrix, parts).flatten(-2)


def eye(units: int, like: Tensor) -> Tensor:
    """The identity matrix, with another tensor's type and device."""
    return torch.eye(units, dtype=like.dtype, device=like.device)


def vector(number: float, like: Tensor) -> Tensor:
    """A number as a vector of one unit, with another tensor's type and device."""
    return torch.full((1,), number, dtype=like.dtype, device=like.device)


def stack_known(matrices: Any, known: list[int], rows: tuple[int, ...]) -> Tensor:
    """Stack matrices vertically, with rows of zeros for missing ones."""
    given = dict(zip(known, matrices, strict=True))
    first = matrices[0]
    parts = [given.get(k, first.new_zeros(*first.shape[:-2], n, first.shape[-1])) for k, n in enumerate(rows)]
    lead = torch.broadcast_shapes(*(p.shape[:-2] for p in parts))
    return torch.cat([p.expand(*lead, *p.shape[-2:]) for p in parts], -2)


def spread(a: Tensor, units: int) -> Tensor:
    """Each unit repeated in place until there are `units`."""
    return a.repeat_interleave(units // a.shape[-1], -1)


def concat(arrays: Any) -> Tensor:
    """Concatenate vectors, broadcast to a common batch."""
    lead = torch.broadcast_shapes(*(a.shape[:-1] for a in arrays))
    return torch.cat([a.expand(*lead, a.shape[-1]) for a in arrays], -1)


def diagonal(a: Tensor) -> Tensor:
    """The diagonal matrix of a vector."""
    return torch.diag_embed(a)


def dense(matrix: Tensor) -> Tensor:
    """A block-diagonal matrix written out."""
    return matrix if matrix.dim() == 2 else torch.block_diag(*matrix)


def spread_rows(matrix: Tensor, rows: int) -> Tensor:
    """Each row repeated in place until there are `rows`."""
    return matrix.repeat_interleave(rows // matrix.shape[-2], -2)
