"""Library functions called from tests, and arrays that end where memory ends: what reads or writes beyond them dies."""

import ctypes
import mmap
from functools import lru_cache

import numpy as np
import pytest

from tidegate.native import _llvm
from tidegate.native.compile import gemm, reductions
from tidegate.native.compile.builder import Builder
from tidegate.native.compile.library import symbol
from tidegate.native.target import TARGETS, DType, Target

Array = np.ndarray
LIBC = ctypes.CDLL(None, use_errno=True)


class Calls:
    """The functions of one library by their names, and the numbers they work on."""

    def __init__(self, target: Target, dtype: DType) -> None:
        builder = Builder("library", target, dtype)
        gemm.emit(builder)
        reductions.emit(builder)
        self.target, self.dtype, self.lanes = target, dtype, target.lanes(dtype)
        self.tolerance = 2e-5 if dtype == "float32" else 2e-14
        self.text = str(builder.module)
        self.code = _llvm.Loaded(_llvm.compile_object(self.text, target), target)
        self.random = np.random.default_rng(7)

    def __call__(self, function: str, *arguments: Array | int) -> None:
        values = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        address = self.code.address(symbol(function, self.target, self.dtype))
        ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(values))(address)(*values)

    def some(self, *shape: int) -> Array:
        """Random numbers that end at a page that cannot be touched."""
        return guarded(self.random.standard_normal(shape).astype(self.dtype))

    def close(self, found: Array, expected: Array, terms: int = 1) -> bool:
        """Whether numbers are as near as sums of so many terms can be."""
        return bool(np.all(np.abs(found - expected) <= self.tolerance * max(1.0, terms**0.5)))


def guarded(array: Array) -> Array:
    """A copy whose last number is the last one before a page that cannot be touched."""
    page = mmap.PAGESIZE
    pages = -(-array.nbytes // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert LIBC.mprotect(ctypes.c_void_p(start + pages * page), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(memory, array.dtype, array.size, pages * page - array.nbytes).reshape(array.shape)
    copy[...] = array
    return copy


def rows_of(array: Array) -> Array:
    """Pointers to the rows of a matrix."""
    return guarded(array.ctypes.data + np.arange(len(array), dtype=np.int64) * array.strides[0])


@lru_cache(maxsize=4)
def calls(name: str, dtype: DType) -> Calls:
    target = TARGETS[name]
    if missing := [f for f in target.needs if f not in _llvm.host_features()]:
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    return Calls(target, dtype)


everywhere = pytest.mark.parametrize(
    "call", [(name, dtype) for name in TARGETS for dtype in ("float32", "float64")], ids="-".join, indirect=True
)
