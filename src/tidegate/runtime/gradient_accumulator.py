"""Gradients of a sequence that is differentiated in parts, from the last to the first, one call per part.

A sum of rounded numbers depends on its grouping. So a call continues the sums of the calls for later steps instead of
summing its own steps separately. As kernels add blocks of steps from the last to the first, all parts
together give the bits of one call for all steps.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

Array = np.ndarray[Any, Any]
Finish = Callable[["PartialSums"], Sequence[Tensor | None]]


@dataclass
class PartialSums:
    """The sums that a call adds to: gradients of weights in one array; other sums with one row per batch row, or 0."""

    flat: Tensor
    rows: list[Array]


@dataclass(frozen=True)
class _Accumulated:
    sums: PartialSums
    finish: Finish
    targets: tuple[Tensor | None, ...]


class GradientAccumulator:
    """Gradients of parameters, summed over all calls made while this is active."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = {id(p): p for p in parameters}
        self._entries: dict[Any, _Accumulated] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Calls in this thread sum their gradients of parameters here."""
        before, _CURRENT.accumulator = active(), self
        try:
            yield
        finally:
            _CURRENT.accumulator = before

    def targets(self, tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """The parameters that these tensors are, or are reshaped views of; None for other tensors."""
        return tuple(self._target(t) for t in tensors)

    def _target(self, tensor: Tensor) -> Tensor | None:
        own = self._parameters.get(id(tensor))
        if own is not None or tensor._base is None:
            return own
        base = self._parameters.get(id(tensor._base))
        alike = base is not None and base.numel() == tensor.numel() and base.is_contiguous() and tensor.is_contiguous()
        return base if alike else None

    def sums(
        self, key: Any, targets: tuple[Tensor | None, ...], start: Callable[[], PartialSums], finish: Finish
    ) -> PartialSums:
        """The sums of the calls for later steps; the first call of a kind begins with `start()`."""
        whole = key, tuple(map(id, targets))
        if whole not in self._entries:
            self._entries[whole] = _Accumulated(start(), finish, targets)
        return self._entries[whole].sums

    def gradients(self) -> dict[int, Tensor]:
        """The parameters' gradients, by their `id`."""
        found: dict[int, Tensor] = {}
        for entry in self._entries.values():
            for target, gradient in zip(entry.targets, entry.finish(entry.sums), strict=True):
                if target is not None and gradient is not None:
                    shaped, before = gradient.reshape(target.shape), found.get(id(target))
                    found[id(target)] = shaped if before is None else before + shaped
        return found


@dataclass(frozen=True)
class AccumulatedCall:
    """A call whose gradients are summed in an accumulator; `targets` are the parameters of its weights and starts."""

    accumulator: GradientAccumulator
    targets: tuple[Tensor | None, ...]


class _ThreadLocal(threading.local):
    accumulator: GradientAccumulator | None = None


_CURRENT = _ThreadLocal()


def active() -> GradientAccumulator | None:
    """The active accumulator of this thread."""
    return _CURRENT.accumulator
