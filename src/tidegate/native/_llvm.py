"""Bindings to LLVM: compile a module's text to object code, and load object code into the process.

The only file that uses llvmlite.binding. Every failure is raised as a `NativeError`.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from tidegate.errors import NativeError
from tidegate.native.locks import ForkSafeLock
from tidegate.native.target import TARGETS, Target

try:
    import llvmlite
    from llvmlite import binding as llvm
    from llvmlite import ir  # other modules import it from here, since it may be missing
except (ImportError, OSError) as error:  # a missing or incompatible shared library is an OSError
    from tidegate.native import llvm_missing as ir  # noqa: F401

    _absent: str = str(error)
else:
    _absent = ""

_REPAIR = "Layers use the reference path; to repair it: pip install --force-reinstall --no-deps llvmlite"
_PIPELINE = "code 2, small, pic"  # part of the cache key: change it together with `_machine` and `_module`
_published: dict[str, int] = {}
_numbers = itertools.count()
_one_at_a_time = ForkSafeLock()
_inside: dict[int, int] = {}  # how deep each thread is inside LLVM
_broken: list[str] = []  # why LLVM cannot be used in this process


@lru_cache(maxsize=1)
def _start() -> None:
    if _absent:
        raise NativeError(f"Native kernels need llvmlite, which cannot be imported: {_absent}. {_REPAIR}")
    with _llvm_errors("start LLVM"):
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()


def _after_fork() -> None:
    """Mark LLVM as unusable in a child if another thread was inside it: its locks stay locked there."""
    if any(thread != threading.get_ident() for thread in _inside):
        _broken.append("another thread was compiling when this process was forked")
        for thread in [t for t in _inside if t != threading.get_ident()]:
            del _inside[thread]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _llvm_errors(what: str) -> Iterator[None]:
    if _broken:
        raise NativeError(f"LLVM cannot {what}: {_broken[0]}. Layers use the reference path.")
    thread = threading.get_ident()
    _inside[thread] = _inside.get(thread, 0) + 1
    try:
        yield
    except NativeError:
        raise
    except (RuntimeError, OSError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise NativeError(f"LLVM could not {what}: {reason}. Layers use the reference path.") from error
    finally:
        _inside[thread] -= 1
        if not _inside[thread]:
            del _inside[thread]


def version() -> str:
    """The versions of llvmlite and LLVM and the compile options, as part of the cache key."""
    _start()
    return f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(map(str, llvm.llvm_version_info))}, {_PIPELINE}"


@lru_cache(maxsize=1)
def host_features() -> frozenset[str]:
    """The features of this processor that the operating system enables."""
    _start()
    with _llvm_errors("name this processor's features"):
        return frozenset(name for name, here in llvm.get_host_cpu_features().items() if here)


def host_name() -> str:
    """LLVM's name of this processor."""
    _start()
    return str(llvm.get_host_cpu_name())


def _machine(target: Target) -> llvm.TargetMachine:
    if target not in TARGETS.values():
        raise NativeError(f"target must be {' or '.join(TARGETS)}, got {target.name!r}.")
    # small code model: constants are next to the code, so instructions read them as memory operands
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, codemodel="small", reloc="pic"
    )


def _module(text: str) -> llvm.ModuleRef:
    # No optimisation passes on the IR: they would double the compile time, and the code would be no faster.
    module = llvm.parse_assembly(text)
    module.verify()
    return module


def compile_object(text: str, target: Target) -> bytes:
    """Compile the text of a module to object code."""
    _start()
    with _llvm_errors("compile a module"):
        return bytes(_machine(target).emit_object(_module(text)))


def assembly(text: str, target: Target) -> str:
    """The assembly of a module, for people to read."""
    _start()
    with _llvm_errors("compile a module"):
        return str(_machine(target).emit_assembly(_module(text)))


@lru_cache(maxsize=1)
def _jit() -> llvm.LLJIT:
    # JITLink puts a module's sections into one piece of memory, as the small code model needs, and returns errors where
    # MCJIT ends the process
    return llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)


class Loaded:
    """Object code loaded into this process, for as long as this object lives."""

    def __init__(self, code: bytes, target: Target) -> None:
        absent = target.missing(host_features())
        if absent:
            raise NativeError(f"Code for {target.name} cannot run here: the processor lacks {', '.join(absent)}.")
        with _one_at_a_time, _llvm_errors("load a module"):
            others, self._others = _externals()
            library = llvm.JITLibraryBuilder().add_object_img(code).add_jit_library(others).add_current_process()
            self._name = f"module {next(_numbers)}"
            self._code = library.link(_jit(), self._name)
            self._found: dict[str, llvm.ResourceTracker] = {}  # the code is freed with the first of these

    def address(self, name: str) -> int:
        """The address of a function."""
        with _one_at_a_time, _llvm_errors(f"find {name} in a module, or what it calls"):
            if name not in self._found:
                self._found[name] = _jit().lookup(self._name, name)
        return int(self._found[name][name])


def publish(name: str, address: int) -> None:
    """Make the function at `address` callable by this name from modules loaded later."""
    with _one_at_a_time:
        _published[name] = address
        _externals.cache_clear()


@lru_cache(maxsize=1)
def _externals() -> tuple[str, llvm.ResourceTracker]:
    """A library of the published functions, and its name; a module's own functions take precedence."""
    library = llvm.JITLibraryBuilder()
    for name, address in _published.items():
        library.import_symbol(name, address)
    called = f"published {next(_numbers)}"
    return called, library.link(_jit(), called)


def function(address: int) -> Callable[[int], None]:
    """The function of one pointer at this address; it runs without the GIL."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
