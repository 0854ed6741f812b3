"""Locks that are free in a forked child: the threads that held them do not exist there."""

import os
import threading
import weakref


class ForkSafeLock:
    """A reentrant lock that a forked child starts with unlocked."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _ALL.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Replace the lock by an unlocked one."""
        self._lock = threading.RLock()


_ALL: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_ALL):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
