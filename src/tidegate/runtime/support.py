"""Whether a call can run on native kernels, and why not.

Kernels support float32 and float64 on the CPU. A call that falls back for another reason warns once and says why.
Other devices use the reference path by design, and so does a process with TIDEGATE_NATIVE=0, or code inside
`disabled()`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tidegate.equations.graph import Graph
from tidegate.errors import ArgumentError, NativeError, TidegateNotice
from tidegate.native.run.kernel import Kernel, kernel
from tidegate.native.target import DType
from tidegate.runtime.cell_kernel import CellKernel
from tidegate.runtime.kernel_inputs import KernelInputs

VARIABLE = "TIDEGATE_NATIVE"
DTYPES: dict[torch.dtype, DType] = {torch.float32: "float32", torch.float64: "float64"}
PLAIN = (Tensor, torch.nn.Parameter)  # only torch's operations support other subclasses


class Unsupported(str):
    """Why kernels cannot run; no warning if `by_design`."""

    by_design: bool

    def __new__(cls, reason: str, *, by_design: bool = False) -> Unsupported:
        """The reason as text."""
        found = super().__new__(cls, reason)
        found.by_design = by_design
        return found


class _Switch:
    off = int(os.environ.get(VARIABLE) == "0")


_DISABLED = Unsupported("kernels are disabled", by_design=True)
_DEVICE = Unsupported("its tensors are on another device than the CPU", by_design=True)
_KIND = Unsupported("its tensors are of a subclass of torch.Tensor", by_design=True)


@contextmanager
def disabled() -> Iterator[None]:
    """Calls inside the block use the reference path."""
    _Switch.off += 1
    try:
        yield
    finally:
        _Switch.off -= 1


def enabled() -> bool:
    """Whether kernels are used at all."""
    return not _Switch.off


def unsupported(graph: Graph | None, tensors: Sequence[Tensor], *, indices: bool = False) -> Unsupported | None:
    """Why a cell cannot run on kernels with these floating-point tensors; None if it can.

    With `indices` its first input is given as indices of one-hots. Without a graph only the tensors are checked.
    """
    found = _DISABLED if _Switch.off else _unsupported_tensors(tensors)
    if found is not None or graph is None:
        return found
    made = compiled(graph, tensors[0].dtype, indices, ())
    return made if isinstance(made, Unsupported) else None


def _unsupported_tensors(tensors: Sequence[Tensor]) -> Unsupported | None:
    dtype = tensors[0].dtype
    same = dtype in DTYPES
    for t in tensors:
        if not t.is_cpu:
            return _DEVICE
        if type(t) not in PLAIN:
            return _KIND
        same = same and t.dtype is dtype
    if torch.is_autocast_enabled("cpu"):
        return Unsupported("autocast is on, under which kernels do not run")
    if same:
        return None
    types = ", ".join(dict.fromkeys(str(t.dtype) for t in tensors))
    if ", " in types:
        return Unsupported(f"its tensors have several types: {types}")
    return Unsupported(f"kernels are for float32 and float64, got weights of {types}")


def supports(name: str, reason: Unsupported | None) -> bool:
    """Whether the reason is None; warns once unless it is by design."""
    if reason is not None and not reason.by_design:
        warn_once(f"cell {name!r} computes on the reference path: {reason}")
    return reason is None


def cell_kernel(
    graph: Graph,
    sizes: Mapping[str, int],
    tensors: Sequence[Tensor],
    *,
    indices: bool = False,
    traced: tuple[str, ...] = (),
) -> CellKernel | None:
    """The kernels of a cell for such tensors; None if `unsupported`, which warns once unless it is by design.

    Values named in `traced` are additional outputs of the kernel.
    """
    if not supports(graph.name, unsupported(graph, tensors, indices=indices)):
        return None
    return _cell_kernel(graph, tuple(sizes.items()), tensors[0].dtype, indices, traced)


@lru_cache(maxsize=512)
def _cell_kernel(
    graph: Graph, sizes: tuple[tuple[str, int], ...], dtype: torch.dtype, indices: bool, traced: tuple[str, ...]
) -> CellKernel:
    made = compiled(graph, dtype, indices, traced)
    assert isinstance(made, Kernel)
    return CellKernel(made, kernel_inputs(graph, sizes, indices))


@lru_cache(maxsize=512)
def compiled(graph: Graph, dtype: torch.dtype, indices: bool, traced: tuple[str, ...]) -> Kernel | Unsupported:
    """A graph's kernels, or why they cannot be compiled."""
    try:
        return kernel(graph, DTYPES[dtype], traced, indices=indices)
    except NativeError as error:
        return Unsupported(str(error))


@lru_cache(maxsize=1024)
def kernel_inputs(graph: Graph, sizes: tuple[tuple[str, int], ...], indices: bool) -> KernelInputs:
    """The inputs of a cell's kernel. Raises NativeError if it cannot be planned."""
    return KernelInputs(graph, dict(sizes), indices=indices)


def eager() -> bool:
    """Whether kernels are enabled and torch neither compiles nor transforms nor casts: cached calls need this."""
    return (
        not _Switch.off
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
    )


def readable(tensor: Tensor, shape: torch.Size, dtype: torch.dtype) -> bool:
    """Whether a kernel bound for this shape and dtype can read a tensor in place."""
    return (
        type(tensor) in PLAIN
        and tensor.shape == shape
        and tensor.dtype is dtype
        and tensor.is_contiguous()
        and tensor.is_cpu
        and not tensor.is_neg()
    )


@lru_cache(maxsize=256)
def warn_once(message: str) -> None:
    """Warn with a TidegateNotice, once per process and message."""
    warnings.warn(message, TidegateNotice, stacklevel=_users_level())


def _users_level() -> int:
    """The stack level of the first caller outside of Tidegate and torch."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("tidegate", "torch"):
        level, frame = level + 1, frame.f_back
    return level


class Batched(Exception):  # noqa: N818 - not an error: control flow
    """Lengths or flags differ between the calls that vmap makes of one."""


def unwrapped(tensor: Tensor | None) -> Tensor | None:
    """The tensor below torch's transforms. Raises Batched if it differs between vmap's calls."""
    while tensor is not None and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            raise Batched
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def refuse_conversion() -> NoReturn:
    """Raise ArgumentError with the alternatives to torch.jit and torch.onnx."""
    raise ArgumentError(
        "torch.jit and torch.onnx cannot convert tidegate layers, since they do not see native kernels: "
        "tg.unswap(model) turns each tg.LSTM, tg.GRU and tg.RNN into torch's own module, which they convert; for other "
        "layers use torch.export.export(model, args)"
    )
