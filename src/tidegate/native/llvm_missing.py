"""What stands for `llvmlite.ir` where it cannot be imported: modules that emit with it load, and emit nothing.

`_llvm` refuses whatever would be made with it.
"""

from __future__ import annotations

from typing import Any


class _Nothing:
    """Every attribute of it, every call and every choice with it is nothing again."""

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *arguments: Any) -> _Nothing:
        return self

    def __or__(self, other: Any) -> _Nothing:
        return self


def __getattr__(name: str) -> Any:
    return _Nothing()
