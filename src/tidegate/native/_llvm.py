"""LLVM, as far as it is needed: text of a module to object code, and object code into the process.

The only file that touches llvmlite.binding. Whatever goes wrong here is a `NativeError`.
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
    from llvmlite import ir  # from here for all, for it may be absent
except (ImportError, OSError) as error:  # a shared library that is missing or unfit is an OSError
    from tidegate.native import llvm_missing as ir  # noqa: F401

    _absent: str = str(error)
else:
    _absent = ""

_REPAIR = "Layers compute by the reference path; to repair it: pip install --force-reinstall --no-deps llvmlite"
_PIPELINE = "code 2, small, pic"  # part of the key of what is cached: change it with `_machine` and `_module`
_published: dict[str, int] = {}
_numbers = itertools.count()
_one_at_a_time = ForkSafeLock()
_inside: dict[int, int] = {}  # how deep each thread is inside LLVM
_broken: list[str] = []  # why LLVM cannot be used in this process


@lru_cache(maxsize=1)
def _start() -> None:
    if _absent:
        raise NativeError(f"Native kernels need llvmlite, which cannot be imported: {_absent}. {_REPAIR}")
    with _told("start LLVM"):
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()


def _after_fork() -> None:
    """LLVM's own locks stay held in a child for ever if another thread was inside LLVM."""
    if any(thread != threading.get_ident() for thread in _inside):
        _broken.append("another thread was compiling when this process was forked")
        for thread in [t for t in _inside if t != threading.get_ident()]:
            del _inside[thread]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _told(what: str) -> Iterator[None]:
    if _broken:
        raise NativeError(f"LLVM cannot {what}: {_broken[0]}. Layers compute by the reference path.")
    thread = threading.get_ident()
    _inside[thread] = _inside.get(thread, 0) + 1
    try:
        yield
    except NativeError:
        raise
    except (RuntimeError, OSError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise NativeError(f"LLVM could not {what}: {reason}. Layers compute by the reference path.") from error
    finally:
        _inside[thread] -= 1
        if not _inside[thread]:
            del _inside[thread]


def version() -> str:
    """llvmlite's and LLVM's versions and how they are used, as they enter the key of what is cached."""
    _start()
    return f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(map(str, llvm.llvm_version_info))}, {_PIPELINE}"


@lru_cache(maxsize=1)
def host_features() -> frozenset[str]:
    """The features of the processor that this runs on, as far as the operating system lets them be used."""
    _start()
    with _told("name this processor's features"):
        return frozenset(name for name, here in llvm.get_host_cpu_features().items() if here)


def host_name() -> str:
    """The processor that this runs on, in LLVM's word."""
    _start()
    return str(llvm.get_host_cpu_name())


def _machine(target: Target) -> llvm.TargetMachine:
    if target not in TARGETS.values():
        raise NativeError(f"{target.name} is no target of native kernels: they are {' and '.join(TARGETS)}.")
    # code and constants of a module lie side by side, so that constants are operands in memory instead of loads
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, codemodel="small", reloc="pic"
    )


def _module(text: str) -> llvm.ModuleRef:
    # Passes over the text's own level would double the time: what is emitted needs none, its code comes out as fast.
    module = llvm.parse_assembly(text)
    module.verify()
    return module


def compile_object(text: str, target: Target) -> bytes:
    """A module's object code, from its text."""
    _start()
    with _told("compile a module"):
        return bytes(_machine(target).emit_object(_module(text)))


def assembly(text: str, target: Target) -> str:
    """What a module becomes, for people."""
    _start()
    with _told("compile a module"):
        return str(_machine(target).emit_assembly(_module(text)))


@lru_cache(maxsize=1)
def _jit() -> llvm.LLJIT:
    # JITLink puts a module's sections into one piece of memory, as small code needs; errors come back instead of ending
    # the process, as those of MCJIT do
    return llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)


class Loaded:
    """Object code in this process; it stays as long as this object lives."""

    def __init__(self, code: bytes, target: Target) -> None:
        absent = target.missing(host_features())
        if absent:
            raise NativeError(f"Code for {target.name} cannot run here: the processor lacks {', '.join(absent)}.")
        with _one_at_a_time, _told("load a module"):
            others, self._others = _externals()
            library = llvm.JITLibraryBuilder().add_object_img(code).add_jit_library(others).add_current_process()
            self._name = f"module {next(_numbers)}"
            self._code = library.link(_jit(), self._name)
            self._found: dict[str, llvm.ResourceTracker] = {}  # code goes with the first of these that goes

    def address(self, name: str) -> int:
        """Where a function stands."""
        with _one_at_a_time, _told(f"find {name} in a module, or what it calls"):
            if name not in self._found:
                self._found[name] = _jit().lookup(self._name, name)
        return int(self._found[name][name])


def publish(name: str, address: int) -> None:
    """Let modules that are loaded later call the function at `address` by this name."""
    with _one_at_a_time:
        _published[name] = address
        _externals.cache_clear()


@lru_cache(maxsize=1)
def _externals() -> tuple[str, llvm.ResourceTracker]:
    """A library of what is published, under its name; a module's own functions come before those of others."""
    library = llvm.JITLibraryBuilder()
    for name, address in _published.items():
        library.import_symbol(name, address)
    called = f"published {next(_numbers)}"
    return called, library.link(_jit(), called)


def function(address: int) -> Callable[[int], None]:
    """A function of one pointer, to be called from Python; the GIL is released meanwhile."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
