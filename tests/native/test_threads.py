"""Threads: torch's team is entered from native code, each thread knows its place, the barrier holds, nothing hangs."""

import ctypes
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from tidegate.native import _llvm
from tidegate.native.compile.builder import I32, I64, POINTER, Builder
from tidegate.native.compile.library import symbol
from tidegate.native.cpu import host
from tidegate.native.run import threads
from tidegate.native.run.self_test import trial
from tidegate.native.target import TARGETS, DType

TORCH_LIB = Path(torch.__file__).parent / "lib"
TINY = 1e-310  # a denormal number
Kernel = Callable[..., None]


def loaded(k: Builder) -> _llvm.Loaded:
    return _llvm.Loaded(_llvm.compile_object(str(k.module), host()), host())


def published_barrier(dtype: DType) -> _llvm.Loaded:
    k = Builder("library", host(), dtype)
    threads.barrier(k)
    library, name = loaded(k), symbol("barrier", host(), dtype)
    _llvm.publish(name, library.address(name))
    return library


def kernel(body: Callable[..., None], dtype: DType = "float64") -> Kernel:
    """`run(threads, *arguments)` of a body(k, arguments, me, size) that is emitted; arrays are passed by address."""
    threads.publish()
    library = published_barrier(dtype)
    k = Builder("kernel", host(), dtype)
    with k.function("body", [POINTER, I64, I64]) as f:
        body(k, *f.args)
    threads.team(k, "run", "body")
    code = loaded(k)
    run = _llvm.function(code.address("run"))

    def call(wanted: int, *arguments: object) -> None:
        given = np.array([wanted, *(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments)], np.int64)
        run(given.ctypes.data)

    call.kept = library, code  # type: ignore[attr-defined]
    return call


def integers(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int64)


def flags() -> np.ndarray:
    return integers(threads.MAX_TEAM, threads.LINE)


# the library


@pytest.mark.parametrize(
    ("mapped", "expected"),
    [
        ({"/usr/lib/libm.so.6", "[heap]", ""}, None),
        ({"/usr/lib/libgomp.so.1.0.0", "[heap]"}, "/usr/lib/libgomp.so.1.0.0"),
        ({"/a/scikit_learn.libs/libgomp-d22c30c5.so.1.0.0"}, "/a/scikit_learn.libs/libgomp-d22c30c5.so.1.0.0"),
        ({"/a/libgomp.so.1", "/z/torch/lib/libgomp.so.1"}, "/z/torch/lib/libgomp.so.1"),
        ({"/a/libgomp.so.1", "/z/torch/lib/libgomp-a34b3233.so.1"}, "/z/torch/lib/libgomp-a34b3233.so.1"),
        ({"/conda/lib/libomp.so", "/x/libomptarget.so", "/x/libcomp.so"}, "/conda/lib/libomp.so"),
        ({"/conda/lib/libiomp5.so"}, "/conda/lib/libiomp5.so"),
        ({"/a b/torch/lib/libgomp.so.1"}, "/a b/torch/lib/libgomp.so.1"),
        ({"/torch/lib/libgomp.so.1 (deleted)"}, None),
    ],
)
def test_the_openmp_library(mapped: set[str], expected: str | None) -> None:
    assert threads.chosen(mapped) == (expected and Path(expected))


def test_it_is_torchs() -> None:
    found = threads.library()
    assert found is not None
    assert found.parent == TORCH_LIB


def program(text: str, **environment: str) -> str:
    """What a process of its own prints; one that hangs fails."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_native_kernels_do_not_import_torch() -> None:
    text = "import sys; from tidegate.native.run import self_test; print(self_test.trial(3), 'torch' in sys.modules)"
    assert program(text) == "1 False"


@pytest.mark.parametrize("name", ["libgomp.so.1", "libno.so.1"])
def test_a_library_that_cannot_be_used_leaves_one_thread(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no library")
    text = f"""
from pathlib import Path
from tidegate.native.run import self_test, threads
threads.library = lambda: Path({str(tmp_path / name)!r})
print(self_test.trial(2), threads.count(2))
"""
    assert program(text) == "1 1"


def test_a_library_without_its_functions_leaves_one_thread() -> None:
    text = """
from tidegate.native.run import self_test, threads
threads.library = lambda: next(line.split()[-1] for line in open('/proc/self/maps') if 'libc.so' in line)
print(self_test.trial(2), threads.count(2))
"""
    assert program(text) == "1 1"


# the team


def place(k: Builder, arguments: object, me: object, size: object) -> None:
    """Each thread writes down where it is and of how many, and counts one."""
    out = k.load_pointer(arguments, 1)
    here = k.at_int(out, k.mul(me, 3))
    for offset, value in enumerate((me, size)):
        k.b.store(value, k.at_int(here, offset))
    k.b.store(k.add(k.load_int(here, 2), 1), k.at_int(here, 2))


@pytest.mark.parametrize("wanted", [2, 3, 5])
def test_each_thread_has_its_place(wanted: int) -> None:
    out = integers(8, 3)
    kernel(place)(threads.count(wanted), out)
    expected = integers(8, 3)
    expected[:wanted] = [[me, wanted, 1] for me in range(wanted)]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("wanted", [1, 0, -3])
def test_one_thread_is_alone(wanted: int) -> None:
    out = integers(2, 3)
    kernel(place)(wanted, out)
    np.testing.assert_array_equal(out, [[0, 1, 1], [0, 0, 0]])


PLACES = """
import ctypes, torch
from tidegate.native import _llvm
from tidegate.native.run import threads
from tidegate.native.compile.builder import *
from tidegate.native.cpu import host
threads.publish()
k = Builder("kernel", host(), "float32")
with k.function("inner.body", [POINTER, I64, I64]) as f:
    arguments, me, size = f.args
    out = k.load_pointer(arguments, 1)
    k.b.store(size, k.at_int(out, 2, me))
    k.b.store(me, k.at_int(out, 6, me))
threads.team(k, "inner", "inner.body")
with k.function("outer.body", [POINTER, I64, I64]) as f:
    arguments, me, size = f.args
    k.b.store(size, k.at_int(k.load_pointer(arguments, 1), me))
    with k.when(k.compare("==", me, k.sub(size, 1))):
        k.call("inner", VOID, k.at_int(arguments, 2))
threads.team(k, "outer", "outer.body")
loaded = _llvm.Loaded(_llvm.compile_object(str(k.module), host()), host())
out = (ctypes.c_int64 * 10)(*[-1] * 10)
at = ctypes.addressof(out)
arguments = (ctypes.c_int64 * 4)(2, at, {inner}, at)
_llvm.function(loaded.address("outer"))(ctypes.addressof(arguments))
print(*out)
"""


def test_a_team_inside_a_team_counts_itself() -> None:
    """Printed: the sizes that the two outer threads saw, that of the inner ones, then the inner ones' places."""
    assert program(PLACES.format(inner=1)) == "2 2 1 -1 -1 -1 0 -1 -1 -1"
    assert program(PLACES.format(inner=2), OMP_NESTED="false") == "2 2 1 -1 -1 -1 0 -1 -1 -1"
    assert program(PLACES.format(inner=2), OMP_NESTED="true") == "2 2 2 2 -1 -1 0 1 -1 -1"


@pytest.mark.parametrize(("limit", "size"), [("1", 1), ("2", 2), ("9", 3)])
def test_a_smaller_team_than_wanted_knows_it(limit: str, size: int) -> None:
    text = "import torch; from tidegate.native.run.self_test import trial; print(trial(3))"
    assert program(text, OMP_THREAD_LIMIT=limit) == str(size)


@pytest.mark.parametrize(("wanted", "given"), [(1, 1), (2, 2), (0, 1), (-1, 1), (7, 7), (100_000, threads.MAX_TEAM)])
def test_the_number_of_threads(wanted: int, given: int) -> None:
    assert threads.count(wanted) == given


# the barrier


def rounds(k: Builder, arguments: object, me: object, size: object) -> None:
    """Each thread writes its round, waits, looks at those of all, counts what is not of this round, and waits again."""
    flags, written, wrong = (k.load_pointer(arguments, n) for n in (1, 2, 3))
    first = k.load_int(arguments, 5)
    mine = k.at_int(wrong, k.mul(me, threads.LINE))
    with k.loop(0, k.load_int(arguments, 4)) as turn:
        k.b.store(turn, k.at_int(written, k.mul(me, threads.LINE)))
        threads.wait(k, flags, me, size, k.add(first, k.mul(turn, 2)))
        with k.loop(0, size) as other:
            same = k.compare("==", k.load_int(written, k.mul(other, threads.LINE)), turn)
            k.b.store(k.b.select(same, k.load_int(mine), k.add(k.load_int(mine), 1)), mine)
        threads.wait(k, flags, me, size, k.add(first, k.mul(turn, 2), 1))


def wrong_rounds(run: Kernel, wanted: int, turns: int, first: int = 1) -> int:
    wrong = flags()
    run(threads.count(wanted), flags(), flags(), wrong, turns, first)
    return int(wrong.sum())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("wanted", "turns"), [(1, 50), (2, 1000), (3, 100), (4, 50), (5, 30), (7, 30), (8, 30)])
def test_no_thread_goes_on_before_all_have_come(wanted: int, turns: int, dtype: DType) -> None:
    assert wrong_rounds(kernel(rounds, dtype), wanted, turns) == 0


def test_the_check_sees_a_missing_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "wait", lambda *_: None)
    run = kernel(rounds)
    assert any(wrong_rounds(run, 2, 100_000) for _ in range(20))


def test_numbers_may_begin_anywhere() -> None:
    run = kernel(rounds)
    assert wrong_rounds(run, 2, 100, first=1 << 40) == 0


def lone_barrier() -> tuple[Kernel, _llvm.Loaded]:
    library = published_barrier("float32")
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    return signature(library.address(symbol("barrier", host(), "float32"))), library


def test_one_thread_waits_for_nobody() -> None:
    barrier, _kept = lone_barrier()
    barrier(None, 0, 1, 1)


FUTEX, SLEEP, WAKE = 202, 128, 129
System = Callable[[int, int, int, int, int], int]


@contextmanager
def system_calls_go_to(answer: System) -> Iterator[None]:
    """The barriers that are loaded meanwhile call this instead of the system."""
    callback = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)(answer)
    _llvm.publish("tg_system", ctypes.cast(callback, ctypes.c_void_p).value or 0)
    try:
        yield
    finally:
        threads._here.published = False
        threads.publish()


@pytest.mark.parametrize(
    ("me", "size", "waits_for"),
    [(0, 2, [1]), (1, 2, [0]), (0, 3, [2, 1]), (2, 3, [1, 0]), (1, 8, [0, 7, 5]), (5, 6, [4, 3, 1]), (3, 4, [2, 1])],
)
def test_a_waiting_thread_sleeps_until_its_flag_changes(me: int, size: int, waits_for: list[int]) -> None:
    """Alone on a team's flags: what others would write is written while it should sleep."""
    all_flags, number, slept = flags(), 17, []

    def sleep(call: int, flag: int, use: int, value: int, end: int) -> int:
        which = len(slept) // 3
        waits_at = all_flags[waits_for[which], which : which + 1]
        assert (call, flag, use, value, end) == (FUTEX, waits_at.ctypes.data, SLEEP, 2 * (number - 1) + 1, 0)
        assert waits_at[0] == value  # whoever writes next sees that it has to wake somebody
        assert all_flags[me, which] == 2 * number  # it says that it came, before it waits
        slept.append(waits_for[which])
        if len(slept) % 3 == 0:  # woken twice without a reason
            waits_at[0] = 2 * number
        return 0

    all_flags[:size, : len(waits_for)] = 2 * (number - 1)
    with system_calls_go_to(sleep):
        barrier, _kept = lone_barrier()
        barrier(all_flags.ctypes.data, me, size, number)
    assert slept == [other for other in waits_for for _ in range(3)]
    assert all_flags[me].tolist() == [2 * number] * len(waits_for) + [0] * (threads.LINE - len(waits_for))


def test_who_comes_last_wakes_whoever_sleeps() -> None:
    all_flags, woken = flags(), []
    all_flags[1] = all_flags[2] = 2 * 5  # the others are there already
    all_flags[0, :2] = 2 * 4, 2 * 4 + 1  # and one of them sleeps

    def wake(*given: int) -> int:
        woken.append(given)
        return 1

    with system_calls_go_to(wake):
        barrier, _kept = lone_barrier()
        barrier(all_flags.ctypes.data, 0, 3, 5)
    assert woken == [(FUTEX, all_flags[0, 1:].ctypes.data, WAKE, 1, 0)]
    assert all_flags[0, :3].tolist() == [10, 10, 0]


def test_a_thread_that_need_not_wait_asks_nobody() -> None:
    all_flags = flags()
    all_flags[1:4] = 2 * 6  # the others are ahead
    asked: list[tuple[int, ...]] = []
    with system_calls_go_to(lambda *given: len(asked.append(given) or [])):
        barrier, _kept = lone_barrier()
        for number in range(1, 7):
            barrier(all_flags.ctypes.data, 0, 4, number)
    assert asked == []


def test_a_thread_looks_often_before_it_sleeps() -> None:
    k = Builder("library", host(), "float32")
    threads.barrier(k)
    text = str(k.module)
    assert len(re.findall(rf"icmp slt i64 \S+, {threads.SPINS}\b", text)) == 1
    assert text.count('call void @"llvm.x86.sse2.pause"') == 1
    assert len(re.findall(r"load atomic .* acquire", text)) == 1
    assert len(re.findall(r"atomicrmw xchg .* acq_rel", text)) == 1
    assert len(re.findall(r"cmpxchg .* acq_rel acquire", text)) == 1


def late(k: Builder, arguments: object, me: object, size: object) -> None:
    """The last thread sleeps before each barrier."""
    with k.loop(0, k.load_int(arguments, 2)) as turn:
        with k.when(k.compare("==", me, k.sub(size, 1))):
            k.call("usleep", I32, I32(100_000))
        threads.wait(k, k.load_pointer(arguments, 1), me, size, k.add(turn, 1))


@pytest.mark.parametrize("size", [2, 3])
def test_waiting_burns_nothing(size: int) -> None:
    """Of 0.5 s that are waited for, almost nothing is this process's own time, however slow the machine."""
    run = kernel(late)
    run(size, flags(), 1)
    before = time.process_time()
    run(size, flags(), 5)
    assert time.process_time() - before < 0.1


# company


@contextmanager
def burners(count: int) -> Iterator[None]:
    """Processes that want whole cores; they end by themselves, should nobody end them."""
    text = "import time\nend = time.monotonic() + 100\nwhile time.monotonic() < end: pass"
    started = [subprocess.Popen([sys.executable, "-c", text]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_call_ends_beside_processes_that_hold_the_cores() -> None:
    run = kernel(rounds)
    with burners(2):
        time.sleep(0.2)
        assert wrong_rounds(run, 2, 500) == 0
        assert wrong_rounds(run, 4, 50) == 0


def test_beside_busy_python_threads() -> None:
    run, over = kernel(rounds), threading.Event()

    def busy() -> None:
        while not over.is_set():
            sum(range(100))

    several = [threading.Thread(target=busy, daemon=True) for _ in range(3)]
    for thread in several:
        thread.start()
    try:
        assert [wrong_rounds(run, 2, 200) for _ in range(3)] == [0] * 3
    finally:
        over.set()
        for thread in several:
            thread.join()


def test_several_python_threads_call_at_once() -> None:
    run = kernel(rounds)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: wrong_rounds(run, 2 + n % 2, 40, first=1 + n), range(24)))
    assert found == [0] * 24


def test_torch_goes_on_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        a = torch.rand(300, 300)
        expected, run = a @ a, kernel(rounds)
        for _ in range(20):
            assert wrong_rounds(run, 2, 20) == 0
            assert torch.equal(a @ a, expected)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


FORK = """
import ctypes, os, signal, torch
from tidegate.native import _llvm
from tidegate.native.run import self_test, threads
torch.set_num_threads(2)
assert (threads.count(2), self_test.trial(2)) == (2, 2)
child = os.fork()
if not child:
    signal.alarm(30)
    {before}
    os._exit(10 * threads.count(2) + self_test.trial(2))
ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(ended, threads.count(2), self_test.trial(2))
"""


@pytest.mark.parametrize(
    ("before", "ended"),
    [
        ("", 11),
        ("threads.count = lambda wanted: wanted", 21),  # arguments that were made before the fork still say 2
        ("if os.fork(): os._exit(os.waitstatus_to_exitcode(os.wait()[1]))", 11),
    ],
)
def test_a_forked_child_computes_by_itself(before: str, ended: int) -> None:
    assert program(FORK.format(before=before)) == f"{ended} 2 2"


# numbers too small


def product(k: Builder, arguments: object, me: object, size: object) -> None:
    """A denormal result and a denormal operand, for each thread."""
    numbers, results = (k.load_pointer(arguments, n) for n in (1, 2))
    small, tiny, big = (k.scalar(numbers, n) for n in range(3))
    here = k.at(results, k.mul(me, threads.LINE))
    for offset, value in enumerate((k.b.fmul(small, small), k.b.fmul(tiny, big))):
        k.b.store(value, k.at(here, offset))


def in_numpy(numbers: np.ndarray) -> list[float]:
    return [float(numbers[0] * numbers[0]), float(numbers[1] * numbers[2])]


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_denormals_are_zero_inside_and_as_before_outside(wanted: int) -> None:
    numbers, results = np.array([1e-155, TINY, 1e10]), np.ones((8, threads.LINE))
    outside = in_numpy(numbers)
    assert outside[0] == pytest.approx(TINY)
    assert outside[1] == pytest.approx(1e-300)
    kernel(product)(threads.count(wanted), numbers, results)
    assert results[:wanted, :2].tolist() == [[0.0, 0.0]] * wanted
    assert in_numpy(numbers) == outside


MODE = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @tg_parallel(ptr, ptr, i32, i32)
declare i32 @tg_thread()
define void @read(ptr %a) { call void @llvm.x86.sse.stmxcsr(ptr %a)
 ret void }
define void @write(ptr %a) { call void @llvm.x86.sse.ldmxcsr(ptr %a)
 ret void }
define void @here(ptr %a) { %n = call i32 @tg_thread()
 %p = getelementptr i32, ptr %a, i32 %n
 call void @llvm.x86.sse.stmxcsr(ptr %p)
 ret void }
define void @read_all(ptr %a) { call void @tg_parallel(ptr @here, ptr %a, i32 3, i32 0)
 ret void }
"""


@pytest.fixture
def mode() -> Iterator[_llvm.Loaded]:
    """Functions that read and write the mode of this thread, and read that of a team's; it is put back."""
    threads.publish()
    functions = _llvm.Loaded(_llvm.compile_object(MODE, host()), host())
    saved = np.zeros(1, np.int32)
    _llvm.function(functions.address("read"))(saved.ctypes.data)
    yield functions
    _llvm.function(functions.address("write"))(saved.ctypes.data)


@pytest.mark.parametrize("set_before", [0x1F80, 0x1F80 | 0x6000, 0x1F80 | 0x3F, 0x9FC0, 0x1F80 | 0x0001])
@pytest.mark.parametrize("wanted", [1, 2])
def test_the_mode_of_the_caller_comes_back_whole(set_before: int, wanted: int, mode: _llvm.Loaded) -> None:
    """Rounding, masks, flags and a caller's own flushing of denormals."""
    numbers, results, run = np.array([1e-155, TINY, 1e10]), np.ones((8, threads.LINE)), kernel(product)
    given, found = np.array([set_before], np.int32), np.zeros(1, np.int32)
    arguments = np.array([wanted, numbers.ctypes.data, results.ctypes.data], np.int64)
    entry = _llvm.function(run.kept[1].address("run"))  # type: ignore[attr-defined]
    read, write = (_llvm.function(mode.address(name)) for name in ("read", "write"))
    at = arguments.ctypes.data, given.ctypes.data, found.ctypes.data
    write(at[1])
    entry(at[0])
    read(at[2])
    assert found[0] == set_before
    assert results[0, 0] == 0


def test_the_mode_of_the_other_threads_comes_back(mode: _llvm.Loaded) -> None:
    read_all, before, after = _llvm.function(mode.address("read_all")), np.zeros(3, np.int32), np.zeros(3, np.int32)
    read_all(before.ctypes.data)
    numbers, results = np.array([1e-155, TINY, 1e10]), np.ones((8, threads.LINE))
    kernel(product)(3, numbers, results)
    read_all(after.ctypes.data)
    assert results[:3, 0].tolist() == [0.0] * 3
    assert (before & 0xFFC0).tolist() == (after & 0xFFC0).tolist() == [0x1F80] * 3


# the trial


@pytest.mark.parametrize("name", ["avx2", "avx512"])
@pytest.mark.parametrize("wanted", [1, 2, 4])
def test_the_trial_runs_on_each_target(wanted: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = TARGETS[name].missing(_llvm.host_features())
    if absent:
        pytest.skip(f"this machine lacks {', '.join(absent)}")
    monkeypatch.setenv("TIDEGATE_TARGET", name)
    assert trial(wanted) == wanted
