"""Memory that is kept from call to call: a fresh page costs more than what is computed on it."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
LINE_BYTES = 64
KEPT_BYTES = 1 << 30


class Workspace:
    """Blocks that were given back, to be taken again by whoever needs about as much."""

    def __init__(self) -> None:
        self._free: dict[int, list[Bytes]] = {}
        self._held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> Bytes:
        """A block of at least so many bytes, on the border of a cache line; nothing is known of what it holds."""
        rounded = _rounded(size)
        with self._lock:
            blocks = self._free.get(rounded)
            if blocks:
                self._held -= rounded
                return blocks.pop()
        return _aligned(rounded)

    def give(self, block: Bytes) -> None:
        """Put a block back, which nobody may use any more."""
        with self._lock:
            if self._held + block.size <= KEPT_BYTES:
                self._held += block.size
                self._free.setdefault(block.size, []).append(block)

    def clear(self) -> None:
        """Give everything back to the system."""
        with self._lock:
            self._free.clear()
            self._held = 0


def _rounded(size: int) -> int:
    """Up to the next of eight sizes between powers of two, so that similar calls share blocks."""
    step = 1 << max(12, size.bit_length() - 4)
    return -(-max(size, 1) // step) * step


def _aligned(size: int) -> Bytes:
    whole = np.empty(size + LINE_BYTES, np.uint8)
    start = -whole.ctypes.data % LINE_BYTES
    return whole[start : start + size]


WORKSPACE = Workspace()
