"""Sums over the steps of a sequence that is differentiated in parts, from its end, each part by a call of its own.

A sum of rounded numbers depends on how it is grouped. So a call does not sum its own steps and hand that on to be
added: it goes on with the sums that the calls for the later steps have left. As kernels add blocks of steps from the
last to the first, all parts together then give the bits of one call for all steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

Array = np.ndarray[Any, Any]
Finish = Callable[["Sums"], Sequence[Tensor | None]]


@dataclass
class Sums:
    """What a call adds to: gradients of weights in one array; for the rest a row for each row of the batch, or 0."""

    flat: Tensor
    rows: list[Array]


@dataclass(frozen=True)
class _Entry:
    sums: Sums
    finish: Finish
    targets: tuple[Tensor | None, ...]


class GradientAccumulator:
    """The sums of all calls that are made while this is active, for gradients of these parameters."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = {id(p): p for p in parameters}
        self._entries: dict[Any, _Entry] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Calls in this thread carry their sums here, if what they differentiate by is a parameter."""
        before, _Now.carried = active(), self
        try:
            yield
        finally:
            _Now.carried = before

    def targets(self, tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """The parameters that these tensors are, or show in another shape; None for other tensors."""
        return tuple(self._target(t) for t in tensors)

    def _target(self, tensor: Tensor) -> Tensor | None:
        own = self._parameters.get(id(tensor))
        if own is not None or tensor._base is None:
            return own
        base = self._parameters.get(id(tensor._base))
        alike = base is not None and base.numel() == tensor.numel() and base.is_contiguous() and tensor.is_contiguous()
        return base if alike else None

    def sums(self, key: Any, targets: tuple[Tensor | None, ...], start: Callable[[], Sums], finish: Finish) -> Sums:
        """The sums that later calls of this kind have left; of the first one, those that it starts with."""
        whole = key, tuple(map(id, targets))
        if whole not in self._entries:
            self._entries[whole] = _Entry(start(), finish, targets)
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


class _Thread(threading.local):
    carried: GradientAccumulator | None = None


_Now = _Thread()


def active() -> GradientAccumulator | None:
    """Where calls carry their sums now."""
    return _Now.carried
