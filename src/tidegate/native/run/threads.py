"""Threads: kernels run in torch's OpenMP team, entered from native code, and synchronise at a barrier of their own.

There is no thread pool here. The OpenMP library that torch has loaded is found in the process's memory map, so torch
need not be imported, the caller passes on `torch.set_num_threads`, and no core is oversubscribed.
Without such a library, and in a forked process, there is one thread.
"""

import ctypes
import os
import re
from pathlib import Path

from tidegate.native import _llvm
from tidegate.native._llvm import ir
from tidegate.native.compile.builder import I1, I32, I64, POINTER, VOID, Builder, Int
from tidegate.native.compile.library import symbol
from tidegate.native.cpu import host

LINE = 8  # 64-bit integers of a cache line
MAX_TEAM = 1 << LINE  # threads: their flags fill one line, and a barrier takes log2(n) rounds
SPINS = 2000  # polls of a flag before a waiting thread sleeps

_FLUSH = 0x8040  # in mxcsr: denormal results and operands are 0
_PARALLEL, _THREAD, _SIZE, _SYSTEM = _NAMES = "tg_parallel", "tg_thread", "tg_team_size", "tg_system"
_FORKED = "tg_forked"
_FUTEX, _SLEEP, _WAKE = 202, 128, 129  # Linux on x86-64: the number of the call, and its two uses inside one process
_OPENMP = re.compile(r"/lib(?:gomp|omp5?|iomp5)(?:-\w+)?\.so[.\d]*$")
_ALONE = f"""
define void @{_PARALLEL}(ptr %body, ptr %data, i32 %threads, i32 %flags) {{
  call void %body(ptr %data)
  ret void
}}
define i32 @{_THREAD}() {{
  ret i32 0
}}
define i32 @{_SIZE}() {{
  ret i32 1
}}
define i64 @{_SYSTEM}(i64 %call, ptr %flag, i64 %use, i64 %value, i64 %time) {{
  ret i64 0
}}
"""


# finding and publishing


def library() -> Path | None:
    """The OpenMP library in this process; torch's, if there are several."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return chosen({line.split(maxsplit=5)[-1] for line in lines})


def chosen(mapped: set[str]) -> Path | None:
    """The OpenMP library in a process's memory map; torch's, if there are several."""
    found = sorted((path for path in mapped if _OPENMP.search(path)), key=lambda p: ("/torch/lib/" not in p, p))
    return Path(found[0]) if found else None


class _Process:
    """The state of threading in this process."""

    def __init__(self) -> None:
        self.forked = ctypes.c_int64(0)  # kernels read it too
        self.openmp: Path | None = None
        self.published = False
        self.kept: list[object] = []


_here = _Process()


def _after_fork() -> None:
    _here.forked.value = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def publish() -> None:
    """Publish the entry points of the team to modules loaded from now on."""
    if _here.published:
        return
    path = library()
    found = _addresses(path) if path else None
    if found is None:
        alone = _llvm.Loaded(_llvm.compile_object(_ALONE, host()), host())
        _here.kept.append(alone)
        path, found = None, [alone.address(name) for name in _NAMES]
    for name, address in zip(_NAMES, found, strict=True):
        _llvm.publish(name, address)
    _llvm.publish(_FORKED, ctypes.addressof(_here.forked))
    _here.openmp, _here.published = path, True


def _addresses(openmp: Path) -> list[int] | None:
    try:
        loaded = ctypes.CDLL(str(openmp), mode=ctypes.DEFAULT_MODE | getattr(os, "RTLD_NOLOAD", 0))
        functions = loaded.GOMP_parallel, loaded.omp_get_thread_num, loaded.omp_get_num_threads
        return [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in (*functions, ctypes.CDLL(None).syscall)]
    except (OSError, AttributeError):  # it is gone, or has other entry points
        return None


def count(wanted: int) -> int:
    """The number of threads to request from the team, if `wanted` are wanted; at least 1.

    A forked child gets one: its copy of the team has no threads, and OpenMP would wait for them for ever.
    """
    publish()
    return 1 if _here.forked.value or _here.openmp is None else max(1, min(wanted, MAX_TEAM))


# emission


def team(k: Builder, name: str, body: str) -> None:
    """Emit the public function `name(arguments)`, which runs `body(arguments, me, size)` on each thread of a team.

    `arguments` points to 64-bit integers, the first of them the wanted number of threads. `size` is the actual number
    (always 1 in a forked child); `me` counts from 0. Denormals are 0 inside the body.
    """
    forked = k.module.globals.get(_FORKED) or ir.GlobalVariable(k.module, I64, _FORKED)
    with k.function(f"{name}.run", [POINTER, I64, I64]) as run:
        _flushed(k, body, *run.args)
    with k.function(f"{name}.member", [POINTER]) as member:
        me, size = (k.b.sext(k.call(f, I32), I64) for f in (_THREAD, _SIZE))
        k.b.call(run, [member.args[0], me, size])
    with k.function(name, [POINTER], public=True) as entry:
        arguments = entry.args[0]
        wanted = k.load_int(arguments)
        several = k.b.and_(k.compare(">", wanted, 1), k.compare("==", k.b.load(forked, typ=I64), 0))
        with k.b.if_else(several) as (many, one):
            with many:
                k.call(_PARALLEL, VOID, member, arguments, k.b.trunc(wanted, I32), I32(0))
            with one:
                k.b.call(run, [arguments, I64(0), I64(1)])


def _flushed(k: Builder, body: str, *arguments: ir.Value) -> None:
    before, flushing = k.b.alloca(I32), k.b.alloca(I32)
    k.call("llvm.x86.sse.stmxcsr", VOID, before)
    k.b.store(k.b.or_(k.b.load(before, typ=I32), I32(_FLUSH)), flushing)
    k.call("llvm.x86.sse.ldmxcsr", VOID, flushing)
    k.call(body, VOID, *arguments)
    k.call("llvm.x86.sse.ldmxcsr", VOID, before)


def wait(k: Builder, flags: ir.Value, me: Int, size: Int, number: Int) -> None:
    """Call the library's barrier: continue when every thread of the team has reached this number.

    `flags` has `LINE` integers for each thread, 0 before the first barrier; `number` is 1 there or more, and grows.
    """
    name = symbol("barrier", k.target, k.dtype)
    k.call(name, VOID, flags, *(k.int(value) for value in (me, size, number)))


def barrier(k: Builder) -> None:
    """Emit the library's barrier(flags, me, size, number).

    A dissemination barrier: in round r a thread sets its own flag and waits for that of the thread 2^r before it.
    Numbers only grow, so flags are never reset. A flag holds twice the number, and is odd while the one thread that
    waits for it sleeps.
    """
    with k.function(symbol("barrier", k.target, k.dtype), [POINTER, I64, I64, I64], public=True) as f:
        flags, me, size, number = f.args
        b, said = k.b, k.mul(number, 2)
        start, turn, done = (f.append_basic_block(name) for name in ("start", "round", "done"))
        b.branch(start)
        b.position_at_end(start)
        b.cbranch(k.compare(">", size, 1), turn, done)
        b.position_at_end(turn)
        which, step = b.phi(I64), b.phi(I64)
        _say(k, k.at_int(flags, k.mul(me, LINE), which), said)
        before = k.rem(k.add(me, k.sub(size, step)), size)
        _hear(k, k.at_int(flags, k.mul(before, LINE), which), said)
        further = k.mul(step, 2)
        for phi, first, later in ((which, I64(0), k.add(which, 1)), (step, I64(1), further)):
            phi.add_incoming(first, start)
            phi.add_incoming(later, b.block)
        b.cbranch(k.compare("<", further, size), turn, done)
        b.position_at_end(done)


def _say(k: Builder, flag: ir.Value, said: ir.Value) -> None:
    sleeping = k.b.trunc(k.b.atomic_rmw("xchg", flag, said, "acq_rel"), I1)
    with k.b.if_then(sleeping, likely=False):
        k.call(_SYSTEM, I64, I64(_FUTEX), flag, I64(_WAKE), I64(1), I64(0))


def _hear(k: Builder, flag: ir.Value, said: ir.Value) -> None:
    """Poll a flag until it reaches the number; after SPINS polls mark it, and sleep unless it has changed."""
    b, f, before = k.b, k.b.function, k.b.block
    look, again, rest, mark, sleep, heard = (
        f.append_basic_block(name) for name in ("look", "again", "rest", "mark", "sleep", "heard")
    )
    b.branch(look)
    b.position_at_end(look)
    looks = b.phi(I64)
    found = b.load_atomic(flag, "acquire", 8, typ=I64)
    b.cbranch(k.compare(">=", found, said), heard, again)
    b.position_at_end(again)
    b.cbranch(k.compare("<", looks, SPINS), rest, mark)
    b.position_at_end(rest)
    k.call("llvm.x86.sse2.pause", VOID)
    looks.add_incoming(I64(0), before)
    looks.add_incoming(k.add(looks, 1), rest)
    b.branch(look)
    b.position_at_end(mark)
    marked = b.or_(found, I64(1))
    unchanged = b.extract_value(b.cmpxchg(flag, found, marked, "acq_rel", "acquire"), 1)
    looks.add_incoming(looks, mark)
    b.cbranch(unchanged, sleep, look)
    b.position_at_end(sleep)
    k.call(_SYSTEM, I64, I64(_FUTEX), flag, I64(_SLEEP), b.and_(marked, I64(0xFFFFFFFF)), I64(0))
    looks.add_incoming(looks, sleep)
    b.branch(look)
    b.position_at_end(heard)
