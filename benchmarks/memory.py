"""The activations that are there at a time, in bytes: counted, for the memory of a process says little about them."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class _Held:
    """A tensor that autograd keeps, for as long as it does."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Activations:
    """Counts, while a call runs, the bytes of all that autograd keeps and of the tensors that are handed to `hold`.

    What several of these share counts once; what shares memory with a tensor of `apart`, such as weights and data, does
    not count.
    """

    def __init__(self, apart: Iterable[Tensor]) -> None:
        self._apart = {t.untyped_storage().data_ptr() for t in apart}
        self._holders: Counter[int] = Counter()
        self.bytes = self.most = 0

    def during(self, call: Callable[[], object]) -> int:
        """The most bytes there were at a time."""
        with saved_tensors_hooks(self._pack, lambda held: held.tensor):
            call()
        return self.most

    def hold(self, tensor: Tensor) -> Tensor:
        """Count this tensor for as long as it is there."""
        self._count(tensor, tensor)
        return tensor

    def _pack(self, tensor: Tensor) -> _Held:
        held = _Held(tensor)
        self._count(tensor, held)
        return held

    def _count(self, tensor: Tensor, holder: object) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self._apart:
            self.bytes += 0 if self._holders[place] else size
            self.most = max(self.most, self.bytes)
            self._holders[place] += 1
            weakref.finalize(holder, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        self.bytes -= 0 if self._holders[place] else size
