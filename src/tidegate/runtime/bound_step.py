"""A stepper's kernel: bound to a stream's arrays, weights packed once, states moved in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidegate.equations.values import Rate
from tidegate.native.run import threads
from tidegate.native.run.row_order import NEVER_ADDRESS, RowOrder, ragged, whole
from tidegate.runtime.cell_kernel import CellKernel

Array = NDArray[Any]


class BoundStep:
    """One layer's step with a snapshot of its weights: each call reads `inputs`, moves `state` and writes `output`."""

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
        """Move all rows by one step."""
        if self._shape.threads > 1 and threads.count(self._shape.threads) == 1:
            self._bind()  # a forked process has no team of threads
        self._run()
        if not self._packed:
            self._packed = True
            self._run.arguments[self._slots["packed"]] = 1

    def move(self, active: NDArray[np.bool_]) -> None:
        """Move the active rows by one step; the others keep their state, and their output is not written."""
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
