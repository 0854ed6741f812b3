"""Kernels bound to buffers: later calls only set pointers, and steps of a stream not even these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidegate.equations.values import Rate
from tidegate.native.run import threads
from tidegate.native.run.kernel import Bound
from tidegate.native.run.row_order import NEVER_ADDRESS, RowOrder, ragged, whole
from tidegate.runtime.cell_kernel import CellKernel

Array = NDArray[Any]
__all__ = ["Bound", "BoundCall", "BoundStep", "within"]


class Pointer(NamedTuple):
    """An argument that is re-pointed at each call: its slot, the number of a dynamic tensor, a byte offset."""

    slot: int
    tensor: int
    offset: int


class BoundCall:
    """A kernel bound to buffers. Dynamic tensors are re-pointed on each call; everything else is fixed.

    `bind` binds the kernel to example tensors; every argument that is an address inside one of the `dynamic` examples
    is found and re-pointed. A call takes the addresses of tensors with the same shapes and strides, in the same order.
    Several threads may call at once.
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


class BoundStep:
    """One layer's step with a snapshot of its weights: a call reads `inputs`, updates `state`, writes `output`."""

    def __init__(
        self,
        cell: CellKernel,
        weights: Mapping[str, Tensor],
        inputs: Sequence[Array],
        state: Mapping[str, Array],
        start: Mapping[str, Array],
        output: Array,
    ) -> None:
        self._cell, self._rows = cell, len(output)
        with torch.no_grad():
            fixed = cell.inputs.fixed(weights)
        self._fixed = [t.clone(memory_format=torch.contiguous_format) for t in fixed]
        self._alive = [inputs, state, start, output]
        self._given = {f"weights.{k}": t.data_ptr() for k, t in enumerate(self._fixed)}
        for name, array in state.items():
            self._given |= {f"begin.{name}": _address(array), f"end.{name}": _address(array), f"step.begin.{name}": 1}
        self._given |= {f"start.{n}": _address(a) for n, a in start.items()}
        self._given |= {"output": _address(output), "ld.output": output.shape[1], "fresh": NEVER_ADDRESS}
        for i, array in zip(cell.inputs.graph.inputs, inputs, strict=True):
            self._given[f"input.{i.name}"] = _address(array)
            if i.rate == Rate.INPUT:
                self._given[f"ld.input.{i.name}"] = array.shape[1] if array.ndim == 2 else 1
        self._bind()

    def _bind(self) -> None:
        kernel = self._cell.kernel
        self._shape = self._cell.shape(1, self._rows)
        self._order = whole(1, self._rows, backwards=False)
        self._run = kernel.bind("forward", self._shape, self._given | self._order.addresses, own=True)
        self._slots = kernel.frames["forward"].index
        self._packed = False

    def __call__(self) -> None:
        """Advance all rows by one step."""
        if self._shape.threads > 1 and threads.count(self._shape.threads) == 1:
            self._bind()  # a forked process has no team of threads
        self._run()
        if not self._packed:
            self._packed = True
            self._run.arguments[self._slots["packed"]] = 1

    def move(self, active: NDArray[np.bool_]) -> None:
        """Advance the active rows by one step; the others keep their state, and their output is not written."""
        self._set_order(ragged(active.astype(np.int64), self._shape, backwards=False))
        try:
            self()
        finally:
            self._set_order(self._order)

    def _set_order(self, order: RowOrder) -> None:
        self._current = order
        for name, number in order.addresses.items():
            self._run.arguments[self._slots[name]] = number


def _address(array: Array) -> int:
    return int(array.ctypes.data)
