"""Clipping of gradients, by norm and by value."""

import math
from collections.abc import Iterable

from torch import Tensor, nn

from tidegate.errors import ArgumentError


def clip_norm_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`; returns the norm before, a scalar tensor.

    Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, algorithm 1. A norm that is not finite gives NaN gradients, so
    check the returned norm before a step. Raises ArgumentError unless `max_norm` is positive.
    """
    _positive("max_norm", max_norm)
    return nn.utils.clip_grad_norm_(list(parameters), max_norm)


def clip_value_(parameters: Iterable[Tensor], limit: float) -> None:
    """Clip each component of each gradient to [-limit, limit]. Raises ArgumentError unless `limit` is positive."""
    _positive("limit", limit)
    nn.utils.clip_grad_value_(list(parameters), limit)


def _positive(name: str, value: float) -> None:
    if not (isinstance(value, int | float) and value > 0 and not math.isnan(value)):
        raise ArgumentError(f"{name} must be a positive number, got {value!r}")
