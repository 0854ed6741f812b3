"""Whether a call runs on native kernels, and the way there.

On a CPU, float32 and float64 run on kernels; what does not is said once, with the reason. Other devices have the
reference path by design, and so has a process with TIDEGATE_NATIVE=0, or code within `disabled()`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.errors import NativeError, TidegateNotice
from tidegate.native.run.kernel import Kernel, kernel
from tidegate.native.target import DType
from tidegate.runtime.kernel_call import DTYPES, CellKernel
from tidegate.runtime.kernel_inputs import KernelInputs

VARIABLE = "TIDEGATE_NATIVE"
PLAIN = (Tensor, torch.nn.Parameter)  # of other kinds of tensors only torch's own operations know what they mean


class _Switch:
    off = int(os.environ.get(VARIABLE) == "0")


@contextmanager
def disabled() -> Iterator[None]:
    """Everything inside computes on the reference path."""
    _Switch.off += 1
    try:
        yield
    finally:
        _Switch.off -= 1


def enabled() -> bool:
    """Whether kernels are used at all."""
    return not _Switch.off


def fits(name: str, tensors: Sequence[Tensor]) -> bool:
    """Whether kernels are made for such tensors, of numbers; where they could be, and are not, it is said once."""
    reason = unfit(tensors)
    return refuse(name, reason) if reason else reason is None


def unfit(tensors: Sequence[Tensor]) -> str | None:
    """Why there are no kernels for such tensors, of numbers; "" where that is by design, None where there are some."""
    dtype = tensors[0].dtype
    same = dtype in DTYPES
    for t in tensors:
        if not t.is_cpu or type(t) not in PLAIN:
            return ""
        same = same and t.dtype is dtype
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on, under which kernels do not run"
    if same:
        return None
    types = ", ".join(dict.fromkeys(str(t.dtype) for t in tensors))
    if ", " in types:
        return f"its tensors are of several types, {types}"
    return f"kernels are for float32 and float64, and its weights are {types}"


def refuse(name: str, reason: str) -> bool:
    """Say once that a cell computes on the reference path, and why."""
    say_once(f"cell {name!r} computes on the reference path: {reason}")
    return False


@lru_cache(maxsize=256)
def say_once(message: str) -> None:
    """A notice that comes once in a process."""
    warnings.warn(message, TidegateNotice, stacklevel=_users_level())


def _users_level() -> int:
    """How far up the caller of `warn` finds code that is neither here nor in torch."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("tidegate", "torch"):
        level, frame = level + 1, frame.f_back
    return level


@lru_cache(maxsize=1024)
def recipe(graph: Graph, sizes: tuple[tuple[str, int], ...], indices: bool) -> KernelInputs | str:
    """A cell's recipe, or why there is none."""
    try:
        return KernelInputs(graph, dict(sizes), indices=indices)
    except NativeError as error:
        return str(error)


def native_cell(
    found: KernelInputs | str, name: str, dtype: torch.dtype, traced: tuple[str, ...] = ()
) -> CellKernel | None:
    """A cell's kernels, which keep what is `traced` too; where there are none, that is said once."""
    try:
        if isinstance(found, KernelInputs):
            return CellKernel(_kernel(found.graph, DTYPES[dtype], found.indices, traced), found)
        reason = found
    except NativeError as error:
        reason = str(error)
    refuse(name, reason)
    return None


@lru_cache(maxsize=256)
def _kernel(graph: Graph, dtype: DType, indices: bool, traced: tuple[str, ...]) -> Kernel:
    return kernel(graph, dtype, traced, indices=indices)


class Batched(Exception):  # noqa: N818 - no error: a call that kernels cannot see into
    """Lengths or flags differ between the calls that vmap makes of one."""


def plain(tensor: Tensor | None) -> Tensor | None:
    """A tensor as it is below torch's transforms. Raises Batched where that depends on the call."""
    while tensor is not None and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            raise Batched
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
