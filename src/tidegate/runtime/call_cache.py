"""A layer's call where all is as it was before: it tells kernels nothing but addresses.

To look at everything as the first call does takes a hundred microseconds, and a small net a few.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tidegate.nn.state import Named
from tidegate.reference import bound
from tidegate.runtime import autograd, support
from tidegate.runtime.kernel_call import DTYPES, CellKernel, KernelCall
from tidegate.runtime.support import PLAIN
from tidegate.runtime.unroll import Unroll as OverTime

MOST_KINDS = 128  # each with up to 128 KiB of working memory


class Source(Protocol):
    """Where one layer's weights come from."""

    def tensors(self) -> list[Tensor] | None:
        """The weights as autograd knows them; None if they cannot be given to a kernel as they are."""

    def call(self, call: KernelCall) -> KernelCall:
        """The call that takes these tensors."""

    def still(self) -> bool:
        """Whether nothing was put in the place of what this reads."""


class Quick:
    """A call of so many steps and rows: `[T, B, I]` and states at the beginning to `[T, B, size]` and those at the end.

    The states are one mapping for each layer, or None for the layer's own start. The answer is None where something is
    out of the ordinary. The weights are read, and packed, at each call.
    """

    def __init__(self, sources: Sequence[Source], cells: Sequence[CellKernel], steps: int, rows: int) -> None:
        self._sources, self._threads = tuple(sources), torch.get_num_threads()
        self._layers = [_Layer(s, cell, steps, rows) for s, cell in zip(sources, cells, strict=True)]
        self._first = self._layers[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _forgotten, ()  # a copy of a layer makes its own

    def serves(self) -> bool:
        """Whether this still is what its layer does."""
        return torch.get_num_threads() == self._threads and all(source.still() for source in self._sources)

    def __call__(self, x: Tensor, begins: Sequence[Named | None]) -> tuple[Tensor, list[Named]] | None:
        """Run."""
        first = self._first
        if len(begins) != len(self._layers) or not _as_is(x, first.x_shape, first.dtype):
            return None
        ends, ready = [], []
        for layer, begin in zip(self._layers, begins, strict=True):
            states = layer.states(begin)
            weights = layer.source.tensors()
            if states is None or weights is None:
                return None
            ready.append((weights, states))
        for layer, (weights, states) in zip(self._layers, ready, strict=True):
            x, end = layer(x, weights, states)
            ends.append(end)
        return x, ends


def _forgotten() -> None:
    return None


class Serving(Protocol):
    """What is made once for calls of a kind."""

    def serves(self) -> bool:
        """Whether this still is what its layer does."""


Made = TypeVar("Made", bound=Serving)


class Quicks:
    """What a layer has made for calls of the last few kinds: the first call of a kind is no quick one."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Quicks, ()

    def of(self, kind: Hashable, make: Callable[[], Made | None]) -> Made | None:
        """What was made for such a call, made when there is none that still serves."""
        if kind not in self._made:
            if len(self._made) >= MOST_KINDS:
                oldest, *_ = list(self._made)
                self._made.pop(oldest, None)  # other threads may be here, too
            self._made[kind] = None
            return None
        made: Made | None = self._made.get(kind)
        if made is None or not made.serves():
            made = self._made[kind] = make()
        return made


def quicks_of(layer: Any) -> Quicks:
    """What a layer keeps for its quick calls."""
    found: Quicks = layer._quicks
    return found


def possible() -> bool:
    """Whether nothing is transformed, cast or compiled."""
    return (
        support.enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
    )


def quick(
    sources: Sequence[Source], sequences: Sequence[OverTime], dtype: torch.dtype, steps: int, rows: int
) -> Quick | None:
    """A layer's quick call, if it has one: kernels, and anything to compute."""
    if not steps * rows or dtype not in DTYPES or not all(s.plain for s in sequences):
        return None
    cells = [s.cell(dtype, indices=False) for s in sequences]
    found = [c for c in cells if c is not None]
    return Quick(sources, found, steps, rows) if len(found) == len(cells) else None


def usable(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a kernel for such numbers can read a tensor."""
    return type(tensor) in PLAIN and tensor.dtype is dtype and tensor.is_contiguous() and tensor.is_cpu


class _Layer:
    """One layer's part."""

    def __init__(self, source: Source, cell: CellKernel, steps: int, rows: int) -> None:
        recipe = cell.recipe
        self.source, self.dtype = source, cell.dtype
        self.x_shape = torch.Size((steps, rows, *bound(recipe.graph.inputs[0].size, recipe.sizes)))
        self._states = [(n, torch.Size((rows, w))) for n, w in zip(recipe.states, recipe.state_widths, strict=True)]
        starts = [s.start for s in recipe.graph.states]
        with torch.inference_mode(False):
            self._starts = [
                torch.full((1, w), start, dtype=self.dtype).expand(rows, w)
                for w, start in zip(recipe.state_widths, starts, strict=True)
            ]
        self._call = source.call(cell.call(steps, rows, backwards=False, lengths=None, reset=None))

    def states(self, begin: Named | None) -> list[Tensor] | None:
        """The states at the beginning; None if they are not what this layer takes."""
        if begin is None:
            return self._starts
        if len(begin) != len(self._states):
            return None
        found = []
        for name, shape in self._states:
            tensor = begin.get(name)
            if tensor is None or not _as_is(tensor, shape, self.dtype):
                return None
            found.append(tensor)
        return found

    def __call__(self, x: Tensor, weights: list[Tensor], states: list[Tensor]) -> tuple[Tensor, Named]:
        """Run, and let autograd know of it."""
        y, *ends = autograd.run(self._call, [*weights, x, *states, *self._starts])
        return y, {name: end for (name, _), end in zip(self._states, ends, strict=True)}


def _as_is(tensor: Tensor, shape: torch.Size, dtype: torch.dtype) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.shape == shape
        and tensor.dtype is dtype
        and tensor.is_contiguous()
        and tensor.is_cpu
        and not tensor.is_neg()
    )
