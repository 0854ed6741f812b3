"""Whether a call runs on native kernels, and the way there.

On a CPU, float32 and float64 run on kernels; what does not is said once, with the reason. Other devices have the
reference path by design, and so has a process with TIDEGATE_NATIVE=0, or code within `disabled()`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.errors import NativeError, TidegateNotice
from tidegate.native.kernel import Kernel, kernel
from tidegate.native.target import DType
from tidegate.nn.native_call import DTYPES, NativeCell
from tidegate.nn.recipe import Recipe

VARIABLE = "TIDEGATE_NATIVE"


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
    """Whether kernels are made for such tensors; where they could be, and are not, it is said once."""
    like = tensors[0]
    dtype = like.dtype
    if not all(t.dtype is dtype and t.is_cpu for t in tensors) or type(like) not in (Tensor, torch.nn.Parameter):
        return _unlike(name, tensors)
    if dtype not in DTYPES:
        return refuse(name, f"kernels are for float32 and float64, and its weights are {dtype}")
    if torch.is_autocast_enabled("cpu"):
        return refuse(name, "autocast is on, under which kernels do not run")
    return True


def _unlike(name: str, tensors: Sequence[Tensor]) -> bool:
    if all(t.is_cpu for t in tensors):
        types = ", ".join(dict.fromkeys(str(t.dtype) for t in tensors))
        return refuse(name, f"its tensors are of several types, {types}")
    return False


def refuse(name: str, reason: str) -> bool:
    """Say once that a cell computes on the reference path, and why."""
    _say_once(f"cell {name!r} computes on the reference path: {reason}")
    return False


@lru_cache(maxsize=256)
def _say_once(message: str) -> None:
    warnings.warn(message, TidegateNotice, stacklevel=5)


def native_cell(recipe: Recipe, dtype: torch.dtype) -> NativeCell | None:
    """The kernels of a cell, unless there are none."""
    found = _kernel(recipe.graph, DTYPES[dtype])
    if isinstance(found, Kernel):
        return NativeCell(found, recipe)
    refuse(recipe.graph.name, found)
    return None


@lru_cache(maxsize=256)
def _kernel(graph: Graph, dtype: DType) -> Kernel | str:
    try:
        return kernel(graph, dtype)
    except NativeError as error:
        return str(error)
