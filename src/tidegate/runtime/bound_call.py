"""Kernels bound to buffers: a later call only sets pointers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from tidegate.native.run.kernel import Bound

__all__ = ["Bound", "BoundCall", "within"]


class Pointer(NamedTuple):
    """An argument that is re-pointed at each call: its slot, the number of a dynamic tensor, a byte offset."""

    slot: int
    tensor: int
    offset: int


class BoundCall:
    """A kernel bound to buffers. Dynamic tensors are re-pointed on each call; everything else is fixed.

    `bind` makes the kernel on example tensors; every argument that is an address inside one of the `dynamic` examples
    is found and re-pointed. A call takes their addresses in the same order, of tensors with the same shapes and
    strides. Several threads may call at once.
    """

    def __init__(self, bind: Callable[[], Bound], dynamic: Sequence[Tensor]) -> None:
        self._bind, first = bind, bind()
        self._free, self.pointers = [first], tuple(_pointers(first.arguments, dynamic))

    def __call__(self, addresses: Sequence[int], numbers: Mapping[int, int] = MappingProxyType({})) -> None:
        """Run the kernel on the tensors at these addresses, with these other arguments by slot."""
        try:
            bound = self._free.pop()
        except IndexError:
            bound = self._bind()
        arguments = bound.arguments
        for slot, tensor, offset in self.pointers:
            arguments[slot] = addresses[tensor] + offset
        for slot, number in numbers.items():
            arguments[slot] = number
        bound()
        self._free.append(bound)


def within(tensor: Tensor, buffers: Sequence[Tensor]) -> bool:
    """Whether a tensor is a view into one of these buffers."""
    return any(b.data_ptr() <= tensor.data_ptr() < b.data_ptr() + span_bytes(b) for b in buffers)


def _pointers(arguments: Iterable[int], dynamic: Sequence[Tensor]) -> list[Pointer]:
    spans = [(k, t.data_ptr(), t.data_ptr() + span_bytes(t)) for k, t in enumerate(dynamic) if t.numel()]
    return [
        Pointer(slot, k, value - begin)
        for slot, value in enumerate(arguments)
        for k, begin, end in spans
        if begin <= value < end
    ]


def span_bytes(tensor: Tensor) -> int:
    """The bytes from a tensor's first element to its last one."""
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()
