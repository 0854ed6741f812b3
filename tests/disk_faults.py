"""Faults of the disk: the n-th change fails, by an error of the system or by the end of the process."""

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from tidegate.files import disk

CHANGES = ("write", "sync", "rename", "shorten", "make_folder", "remove")


class KilledError(BaseException):
    """The process was killed: from here on nothing changes on the disk, whatever handlers do."""


class Faulty:
    """The functions of `tidegate.files.disk`, of which call number `at` fails; `calls` are their names in order.

    With an error number that call raises an OSError, and later ones work. Without it the call is killed half-way
    (a write is left half done) and all later ones raise too, as no later one happens in a killed process.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int | None = None, number: int | None = None) -> None:
        self.calls: list[str] = []
        self.at, self.number = at, number
        for name in CHANGES:
            patch.setattr(disk, name, self._wrapped(name, getattr(disk, name)))

    @property
    def killed(self) -> bool:
        return self.number is None and self.at is not None and len(self.calls) > self.at

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any) -> Any:
            if self.killed:
                raise KilledError
            self.calls.append(name)
            if self.at == len(self.calls) - 1:
                if name == "write":
                    function(arguments[0], arguments[1][: len(arguments[1]) // 2])
                if self.number is None:
                    raise KilledError
                raise OSError(self.number, os.strerror(self.number))
            return function(*arguments)

        return change


FULL, READ_ONLY = errno.ENOSPC, errno.EROFS
