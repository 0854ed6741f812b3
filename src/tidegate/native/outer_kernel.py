"""Kernels of growing vectors over weights in this process: compiled or from disk, called with numbers and addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from tidegate.native import _llvm, cpu
from tidegate.native.outer import BLOCK, NAMES, outer_text
from tidegate.native.run import cache, threads
from tidegate.native.target import DType, Target


class OuterKernel:
    """The kernels for one type of numbers. Raises NativeError where they cannot be made."""

    def __init__(self, dtype: DType, target: Target) -> None:
        threads.publish()
        code = cache.cached(f"outer {dtype} {target}", lambda: _llvm.compile_object(outer_text(target, dtype), target))
        self._loaded = _llvm.Loaded(code, target)
        self._functions = {name: _llvm.function(self._loaded.address(name)) for name in NAMES}

    def bind(self, name: str, given: Mapping[str, int], blocks: Sequence[Mapping[str, int]] = ()) -> Callable[[], None]:
        """A call of one of them, to be made again and again."""
        named = {"threads": 1, "blocks": len(blocks), **given}
        each = [block[part] for block in blocks for part in BLOCK]
        numbers = [*(named[n] for n in NAMES[name]), *each]
        arguments, function = (ctypes.c_int64 * len(numbers))(*numbers), self._functions[name]

        def call() -> None:
            function(ctypes.addressof(arguments))

        return call


@lru_cache(maxsize=4)
def outer_kernel(dtype: DType) -> OuterKernel:
    """The kernels on this machine. Raises NativeError where there are none."""
    return OuterKernel(dtype, cpu.host())
