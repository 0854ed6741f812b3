"""Cached calls: the first call of a signature is checked in full; later ones only set pointers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from tidegate.reference import bound
from tidegate.runtime import autograd
from tidegate.runtime.cell_kernel import CellKernel
from tidegate.runtime.kernel_call import KernelCall
from tidegate.runtime.support import DTYPES, cell_kernel, readable
from tidegate.runtime.unroll import Unroll

MOST_CALLS = 128  # signatures of one layer, each with up to 128 KiB of working memory
_UNSEEN: Any = object()
MOST_BYTES = 1 << 28  # of buffers that the calls of one layer keep

States = Mapping[str, Tensor]


class Signature(NamedTuple):
    """What a cached call is compiled for."""

    kind: Hashable
    shape: torch.Size
    dtype: torch.dtype
    threads: int


class Compiled(Protocol):
    """A call compiled for one signature."""

    @property
    def nbytes(self) -> int:
        """The bytes of the buffers that it keeps between calls."""

    def serves(self) -> bool:
        """Whether its layer is unchanged since it was compiled."""


Found = TypeVar("Found", bound=Compiled)


class CallCache:
    """A layer's compiled calls by signature: compiled on the second call, the least recently used dropped first."""

    def __init__(self) -> None:
        self._calls: dict[Signature, Compiled | None] = {}  # the most recently used last

    def __reduce__(self) -> tuple[Any, ...]:
        return CallCache, ()  # a copy of a layer compiles its own

    def get(self, kind: Hashable, x: Tensor, compile_call: Callable[[], Found | None]) -> Found | None:
        """The call compiled for inputs like `x`; None on a signature's first call, or if it cannot be compiled."""
        signature = Signature(kind, x.shape, x.dtype, torch.get_num_threads())
        call = self._calls.pop(signature, _UNSEEN)  # another thread meanwhile takes the general path
        if call is not _UNSEEN and call is not None and call.serves():
            self._calls[signature] = call
            return cast("Found", call)
        self._calls[signature] = found = None if call is _UNSEEN else compile_call()
        self._limit()
        return found

    def _limit(self) -> None:
        """Drop the least recently used calls where there are too many, or they keep too much."""
        calls = [*self._calls.items()]
        kept = sum(call.nbytes for _, call in calls if call is not None)
        for signature, call in calls[:-1]:
            if len(self._calls) <= MOST_CALLS and kept <= MOST_BYTES:
                break
            self._calls.pop(signature, None)
            kept -= call.nbytes if call is not None else 0


class WeightSource(Protocol):
    """The source of one layer's weights in a cached call."""

    def tensors(self) -> list[Tensor] | None:
        """The weights as autograd leaves; None if a kernel cannot read them in place."""

    def call(self, call: KernelCall) -> KernelCall:
        """The call that takes these tensors."""

    def unchanged(self) -> bool:
        """Whether the modules that hold the weights are unchanged."""


class LayerCall:
    """A layer's cached call: `[T, B, I]` and initial states to `[T, B, size]` and final states.

    The weights are read, and packed, at each call.
    """

    def __init__(self, sources: Sequence[WeightSource], cells: Sequence[CellKernel], steps: int, rows: int) -> None:
        self._sources = tuple(sources)
        self._layers = [_OneLayer(s, cell, steps, rows) for s, cell in zip(sources, cells, strict=True)]

    @staticmethod
    def compile(sources: Sequence[WeightSource], unrolls: Sequence[Unroll], x: Tensor) -> LayerCall | None:
        """The call for inputs like `x`; None if it cannot run on kernels."""
        if not x.shape[0] * x.shape[1] or x.dtype not in DTYPES or not all(u.plain for u in unrolls):
            return None
        cells = [cell_kernel(u.graph, u.sizes, [x]) for u in unrolls]
        found = [c for c in cells if c is not None]
        return LayerCall(sources, found, *x.shape[:2]) if len(found) == len(cells) else None

    @property
    def nbytes(self) -> int:
        """Nothing: outputs belong to the caller."""
        return 0

    def serves(self) -> bool:
        """Whether the modules that hold the weights are unchanged."""
        return all(source.unchanged() for source in self._sources)

    def __call__(self, x: Tensor, states: Sequence[States | None]) -> tuple[Tensor, list[dict[str, Tensor]]] | None:
        """The output and each layer's final states, from its initial ones (None: the layer's own).

        None if a tensor does not fit: the general path then runs the call, or raises the error.
        """
        first = self._layers[0]
        if len(states) != len(self._layers) or not readable(x, first.x_shape, first.dtype):
            return None
        ends, ready = [], []
        for layer, state in zip(self._layers, states, strict=True):
            initial, weights = layer.initial_states(state), layer.source.tensors()
            if initial is None or weights is None:
                return None
            ready.append((weights, initial))
        for layer, (weights, initial) in zip(self._layers, ready, strict=True):
            x, end = layer(x, weights, initial)
            ends.append(end)
        return x, ends


class _OneLayer:
    def __init__(self, source: WeightSource, cell: CellKernel, steps: int, rows: int) -> None:
        inputs = cell.inputs
        self.source, self.dtype = source, cell.dtype
        self.x_shape = torch.Size((steps, rows, *bound(inputs.graph.inputs[0].size, inputs.sizes)))
        self._states = [(n, torch.Size((rows, w))) for n, w in zip(inputs.states, inputs.state_widths, strict=True)]
        starts = [s.start for s in inputs.graph.states]
        with torch.inference_mode(False):
            self._starts = [
                torch.full((1, w), start, dtype=self.dtype).expand(rows, w)
                for w, start in zip(inputs.state_widths, starts, strict=True)
            ]
        self._call = source.call(cell.call(steps, rows))

    def initial_states(self, given: States | None) -> list[Tensor] | None:
        """The initial states; None if they are not what this layer takes."""
        if given is None:
            return self._starts
        if len(given) != len(self._states):
            return None
        found = []
        for name, shape in self._states:
            tensor = given.get(name)
            if tensor is None or not readable(tensor, shape, self.dtype):
                return None
            found.append(tensor)
        return found

    def __call__(self, x: Tensor, weights: list[Tensor], states: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        y, *ends = autograd.run(self._call, [*weights, x, *states, *self._starts])
        return y, {name: end for (name, _), end in zip(self._states, ends, strict=True)}
