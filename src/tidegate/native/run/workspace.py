"""Working memory reused from call to call: a fresh page costs more than the computation on it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.native.locks import ForkSafeLock

Bytes = NDArray[np.uint8]
LINE_BYTES = 64
MAX_FREE_BYTES = 1 << 30
MIN_LOAN_BYTES = 1 << 16  # smaller arrays are allocated: the C library reuses their memory


class Block:
    """Bytes aligned to a cache line."""

    __slots__ = ("address", "bytes", "size")

    def __init__(self, size: int) -> None:
        whole = np.empty(size + LINE_BYTES, np.uint8)
        start = -whole.ctypes.data % LINE_BYTES
        self.bytes: Bytes = whole[start : start + size]
        self.address: int = self.bytes.ctypes.data
        self.size = size


class Workspace:
    """Released blocks, reused for requests of about the same size."""

    def __init__(self) -> None:
        self._free: dict[int, list[Block]] = {}
        self._held = 0
        self._lock = ForkSafeLock()  # reentrant: garbage collection may end a loan while this thread holds it

    def acquire(self, size: int) -> Block:
        """An uninitialised block of at least `size` bytes."""
        rounded = _rounded(size)
        with self._lock:
            blocks = self._free.get(rounded)
            if blocks:
                self._held -= rounded
                return blocks.pop()
        return Block(rounded)

    def release(self, block: Block) -> None:
        """Return a block; it must not be used afterwards."""
        with self._lock:
            if self._held + block.size <= MAX_FREE_BYTES:
                self._held += block.size
                self._free.setdefault(block.size, []).append(block)

    def lend(self, size: int) -> Bytes:
        """An array of `size` bytes that is released with the last view of it."""
        return np.empty(size, np.uint8) if size < MIN_LOAN_BYTES else np.asarray(_Loan(self, self.acquire(size), size))

    @property
    def held(self) -> int:
        """Bytes in free blocks."""
        return self._held

    def clear(self) -> None:
        """Free all blocks."""
        with self._lock:
            self._free.clear()
            self._held = 0


class _Loan:
    """Owner of an array's borrowed block: releases it when deleted."""

    def __init__(self, owner: Workspace, block: Block, size: int) -> None:
        self._owner, self._block, self._size = owner, block, size

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self._size,), "typestr": "|u1", "data": (self._block.address, False), "version": 3}

    def __del__(self) -> None:
        self._owner.release(self._block)


def _rounded(size: int) -> int:
    """Round up to one of eight sizes between powers of two, so that similar calls share blocks."""
    step = 1 << max(12, size.bit_length() - 4)
    return -(-max(size, 1) // step) * step


WORKSPACE = Workspace()
