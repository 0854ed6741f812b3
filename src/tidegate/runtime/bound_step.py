"""One step at a time by a kernel whose arguments stay where they are: weights packed once, states moved in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidegate.equations.values import Rate
from tidegate.native.run import threads
from tidegate.native.run.row_order import NEVER_ADDRESS, Tables, ragged, whole
from tidegate.runtime.kernel_call import CellKernel

Array = NDArray[Any]


class NativeStep:
    """A layer's step. `inputs`, `state` and `output` are the arrays that each call reads and writes; a snapshot of the
    weights is made now. With `ends` the new states are written there and not over the old ones; with `live` the weights
    are no snapshot, but read where they lie at each call."""

    def __init__(
        self,
        cell: CellKernel,
        weights: Mapping[str, Tensor],
        inputs: Sequence[Array],
        state: Mapping[str, Array],
        start: Mapping[str, Array],
        output: Array,
        ends: Mapping[str, Array] | None = None,
        *,
        live: bool = False,
    ) -> None:
        self._cell, self._rows, self._live = cell, len(output), live
        with torch.no_grad():
            fixed = cell.recipe.fixed(weights)
        self._fixed = [t.contiguous() if live else t.clone(memory_format=torch.contiguous_format) for t in fixed]
        self._held = [inputs, state, start, output, ends]
        self._given = {f"weights.{k}": t.data_ptr() for k, t in enumerate(self._fixed)}
        self._given |= {f"begin.{n}": _address(a) for n, a in state.items()}
        self._given |= {f"step.begin.{n}": 1 for n in state}
        written = state if ends is None else ends
        self._given |= {f"end.{n}": _address(a) for n, a in written.items()}  # each thread reads what it writes later
        self._given |= {f"start.{n}": _address(a) for n, a in start.items()}
        self._given |= {"output": _address(output), "ld.output": output.shape[1], "fresh": NEVER_ADDRESS}
        for i, array in zip(cell.recipe.graph.inputs, inputs, strict=True):
            self._given[f"input.{i.name}"] = _address(array)
            if i.rate == Rate.INPUT:
                self._given[f"ld.input.{i.name}"] = array.shape[1] if array.ndim == 2 else 1
        self._bind()

    def _bind(self) -> None:
        kernel = self._cell.kernel
        self._shape = self._cell.shape(1, self._rows)
        self._tables = whole(1, self._rows, backwards=False)
        self._run = kernel.bind("forward", self._shape, self._given | self._tables.addresses, own=True)
        self._place = kernel.frames["forward"].index
        self._packed = False

    def __call__(self) -> None:
        """Move by one step."""
        if self._shape.threads > 1 and threads.count(self._shape.threads) == 1:
            self._bind()  # in a process that was forked there is no team
        self._run()
        if not (self._packed or self._live):
            self._packed = True
            self._run.arguments[self._place["packed"]] = 1

    def read(self, weights: Mapping[str, Tensor]) -> None:
        """Have these weights read from now on; for a step with live ones."""
        with torch.no_grad():
            self._fixed = [t.contiguous() for t in self._cell.recipe.fixed(weights)]
        for k, tensor in enumerate(self._fixed):
            self._given[f"weights.{k}"] = self._run.arguments[self._place[f"weights.{k}"]] = tensor.data_ptr()

    def some(self, moves: NDArray[np.bool_]) -> None:
        """Move the flagged rows by one step; the others keep their state, and their output is not written."""
        self._tell(ragged(moves.astype(np.int64), self._shape, backwards=False))
        try:
            self()
        finally:
            self._tell(self._tables)

    def _tell(self, tables: Tables) -> None:
        self._moving = tables
        for name, number in tables.addresses.items():
            self._run.arguments[self._place[name]] = number


def _address(array: Array) -> int:
    return int(array.ctypes.data)
