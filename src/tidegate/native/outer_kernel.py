"""Kernels of growing vectors over weights in this process: compiled or from disk, called with numbers and addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import lru_cache

from tidegate.native import _llvm, cache, machine, threads
from tidegate.native.outer import BACK, BLOCK, NAMES, STEPS, outer_text
from tidegate.native.target import DType, Target


class OuterKernel:
    """The kernels for one type of numbers. Raises NativeError where they cannot be made."""

    def __init__(self, dtype: DType, target: Target) -> None:
        threads.publish()
        code = cache.cached(f"outer {dtype} {target}", lambda: _llvm.compile_object(outer_text(target, dtype), target))
        self._loaded = _llvm.Loaded(code, target)
        self._functions = {name: _llvm.function(self._loaded.address(name)) for name in (STEPS, BACK)}

    def steps(self, given: Mapping[str, int], blocks: Sequence[Mapping[str, int]]) -> None:
        """Run a cell and move the blocks after each of its steps."""
        each = [block[name] for block in blocks for name in BLOCK]
        self._run(STEPS, {**given, "blocks": len(blocks)}, each)

    def back(self, given: Mapping[str, int]) -> None:
        """Find how much of each addition is in a sum."""
        self._run(BACK, given, [])

    def _run(self, name: str, given: Mapping[str, int], more: Sequence[int]) -> None:
        named = {"threads": 1, **given}
        numbers = [*(named[n] for n in NAMES[name]), *more]
        arguments = (ctypes.c_int64 * len(numbers))(*numbers)
        self._functions[name](ctypes.addressof(arguments))


@lru_cache(maxsize=4)
def outer_kernel(dtype: DType) -> OuterKernel:
    """The kernels on this machine. Raises NativeError where there are none."""
    return OuterKernel(dtype, machine.host())
