"""Memory that is kept from call to call: a fresh page costs more than what is computed on it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.native.locks import ForkSafeLock

Bytes = NDArray[np.uint8]
LINE_BYTES = 64
KEPT_BYTES = 1 << 30
OWN_BYTES = 1 << 16  # below, what lasts is not worth lending: the C library has such memory at hand


class Block:
    """Bytes on the border of a cache line."""

    __slots__ = ("address", "bytes", "size")

    def __init__(self, size: int) -> None:
        whole = np.empty(size + LINE_BYTES, np.uint8)
        start = -whole.ctypes.data % LINE_BYTES
        self.bytes: Bytes = whole[start : start + size]
        self.address: int = self.bytes.ctypes.data
        self.size = size


class Workspace:
    """Blocks that were given back, to be taken again by whoever needs about as much."""

    def __init__(self) -> None:
        self._free: dict[int, list[Block]] = {}
        self._held = 0
        self._lock = ForkSafeLock()  # reentrant: a loan may end, in the same thread, while a block is taken

    def acquire(self, size: int) -> Block:
        """A block of at least so many bytes; nothing is known of what it holds."""
        rounded = _rounded(size)
        with self._lock:
            blocks = self._free.get(rounded)
            if blocks:
                self._held -= rounded
                return blocks.pop()
        return Block(rounded)

    def release(self, block: Block) -> None:
        """Put a block back, which nobody may use any more."""
        with self._lock:
            if self._held + block.size <= KEPT_BYTES:
                self._held += block.size
                self._free.setdefault(block.size, []).append(block)

    def lend(self, size: int) -> Bytes:
        """So many bytes that come back by themselves once neither the array nor a view of it is alive."""
        return np.empty(size, np.uint8) if size < OWN_BYTES else np.asarray(_Loan(self, self.acquire(size), size))

    @property
    def held(self) -> int:
        """How many bytes lie ready."""
        return self._held

    def clear(self) -> None:
        """Give everything back to the system."""
        with self._lock:
            self._free.clear()
            self._held = 0


class _Loan:
    """What an array of borrowed bytes holds on to; it gives them back when it goes."""

    def __init__(self, owner: Workspace, block: Block, size: int) -> None:
        self._owner, self._block, self._size = owner, block, size

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self._size,), "typestr": "|u1", "data": (self._block.address, False), "version": 3}

    def __del__(self) -> None:
        self._owner.release(self._block)


def _rounded(size: int) -> int:
    """Up to the next of eight sizes between powers of two, so that similar calls share blocks."""
    step = 1 << max(12, size.bit_length() - 4)
    return -(-max(size, 1) // step) * step


WORKSPACE = Workspace()
