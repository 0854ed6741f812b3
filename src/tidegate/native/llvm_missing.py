"""Stand-in for `llvmlite.ir` where llvmlite is missing, so that the modules that emit code can be imported.

`_llvm` raises NativeError before anything is compiled.
"""

from __future__ import annotations

from typing import Any


class _Nothing:
    """Every attribute, call and union is this again."""

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *arguments: Any) -> _Nothing:
        return self

    def __or__(self, other: Any) -> _Nothing:
        return self


def __getattr__(name: str) -> Any:
    return _Nothing()
