"""LLVM: code is made, loaded and run, finds what is published; whatever goes wrong is one kind of error."""

import ctypes
import gc
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from llvmlite import binding

from tidegate.errors import NativeError
from tidegate.native import _llvm, target
from tidegate.native.cpu import host
from tidegate.native.target import AVX2, AVX512

INCREMENT = (
    "define void @go(ptr %a) {{ %x = load i64, ptr %a\n %y = add i64 %x, {by}\n store i64 %y, ptr %a\n ret void }}"
)
CALLER = "declare void @{name}(ptr)\ndefine void @go(ptr %a) {{ call void @{name}(ptr %a)\n ret void }}"


def loaded(text: str) -> _llvm.Loaded:
    return _llvm.Loaded(_llvm.compile_object(text, host()), host())


def result(code: _llvm.Loaded, value: int = 0) -> int:
    number = ctypes.c_int64(value)
    _llvm.function(code.address("go"))(ctypes.addressof(number))
    return number.value


def test_text_becomes_a_function() -> None:
    assert result(loaded(INCREMENT.format(by=5)), 37) == 42


def test_modules_with_the_same_names_live_side_by_side() -> None:
    several = [loaded(INCREMENT.format(by=by)) for by in (1, 10, 100)]
    assert [result(code) for code in several] == [1, 10, 100]


def test_a_module_calls_what_was_published_last() -> None:
    first, second = loaded(INCREMENT.format(by=1)), loaded(INCREMENT.format(by=2))
    caller = CALLER.format(name="tg_test_published")
    _llvm.publish("tg_test_published", first.address("go"))
    early = loaded(caller)
    assert result(early) == 1
    _llvm.publish("tg_test_published", second.address("go"))
    assert (result(loaded(caller)), result(early)) == (2, 1)


def test_a_module_may_define_what_is_published() -> None:
    other = loaded(INCREMENT.format(by=7))
    _llvm.publish("tg_test_own", other.address("go"))
    own = INCREMENT.format(by=8).replace("@go", "@tg_test_own")
    assert result(loaded(f"{own}\ndefine void @go(ptr %a) {{ call void @tg_test_own(ptr %a)\n ret void }}")) == 8


def test_the_c_library_is_at_hand() -> None:
    fill = (
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)\ndefine void @go(ptr %a) {\n"
        "%n = load i64, ptr %a\n call void @llvm.memset.p0.i64(ptr %a, i8 1, i64 %n, i1 0)\n ret void }"
    )
    assert result(loaded(fill), 8) == 0x0101010101010101


def test_code_goes_with_its_object_and_leaves_others_alone() -> None:
    stays = loaded(INCREMENT.format(by=3))
    for _ in range(10):
        assert result(loaded(INCREMENT.format(by=4))) == 4
        gc.collect()
    assert result(stays) == 3


def test_threads_compile_and_load_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda by: result(loaded(INCREMENT.format(by=by))), range(40))) == list(range(40))


def test_threads_begin_at_once() -> None:
    """In a process that has loaded nothing yet."""
    program = f"""
import ctypes, threading
from tidegate.native import _llvm
from tidegate.native.cpu import host
barrier, right = threading.Barrier(6), []
def begin(by):
    barrier.wait()
    _llvm.publish(f"tg_test_{{by}}", by)
    code = _llvm.Loaded(_llvm.compile_object({INCREMENT!r}.format(by=by), host()), host())
    number = ctypes.c_int64()
    _llvm.function(code.address("go"))(ctypes.addressof(number))
    right.append(number.value == by)
several = [threading.Thread(target=begin, args=[by]) for by in range(1, 7)]
for thread in several: thread.start()
for thread in several: thread.join()
print(right)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == f"{[True] * 6}\n"


def test_constants_are_operands_in_memory() -> None:
    text = "define float @go(float %x) { %y = fmul float %x, 3.25\n ret float %y }"
    assert re.search(r"vmulss\s.*\(%rip\)", _llvm.assembly(text, AVX2))


def test_each_target_gets_its_own_vectors() -> None:
    text = "define <16 x float> @go(<16 x float> %x) { %y = fadd <16 x float> %x, %x\n ret <16 x float> %y }"
    assert "zmm" in _llvm.assembly(text, AVX512)
    narrow = _llvm.assembly(text, AVX2)
    assert "ymm" in narrow
    assert "zmm" not in narrow


def test_the_version_names_both_and_the_way_of_compiling() -> None:
    llvm = ".".join(map(str, binding.llvm_version_info))
    assert _llvm.version() == f"llvmlite {_llvm.llvmlite.__version__}, LLVM {llvm}, code 2, small, pic"


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (
            lambda: _llvm.compile_object("define void @go( {", host()),
            "LLVM could not compile a module: LLVM IR parsing error <string>:1:19: error: expected type "
            "define void @go( { ^. Layers use the reference path.",
        ),
        (
            lambda: _llvm.compile_object("define void @f(ptr %a) { ret void }", replace(AVX2, name="avx3", cpu="zx81")),
            "target must be avx512 or avx2, got 'avx3'.",
        ),
        (
            lambda: loaded(CALLER.format(name="tg_nowhere")).address("go"),
            "LLVM could not find go in a module, or what it calls: Failed to materialize symbols: "
            "{ (module N, { go }) }. Layers use the reference path.",
        ),
        (
            lambda: loaded(INCREMENT.format(by=1)).address("stop"),
            "LLVM could not find stop in a module, or what it calls: Symbols not found: [ stop ]. "
            "Layers use the reference path.",
        ),
        (
            lambda: _llvm.Loaded(b"no object code", host()),
            "LLVM could not load a module: The file was not recognized as a valid object file. "
            "Layers use the reference path.",
        ),
        (
            lambda: _llvm.Loaded(_llvm.compile_object(INCREMENT.format(by=1), host())[:200], host()).address("go"),
            "LLVM could not load a module: section header table goes past the end of the file: e_shoff = 0xN. "
            "Layers use the reference path.",
        ),
    ],
)
def test_whatever_goes_wrong_is_said(do: Callable[[], object], message: str) -> None:
    with pytest.raises(NativeError) as caught:
        do()
    told = re.sub("module [0-9]+", "module N", str(caught.value))
    assert re.sub("0x[0-9a-f]+", "0xN", told) == message
    assert result(loaded(INCREMENT.format(by=6))) == 6  # and all goes on


def test_a_module_that_is_not_sound_is_refused() -> None:
    undominated = (
        "define i64 @f(i1 %c) {\nbr i1 %c, label %a, label %b\na:\n%x = add i64 1, 1\nbr label %b\nb:\nret i64 %x }"
    )
    with pytest.raises(NativeError, match="Instruction does not dominate all uses!"):
        _llvm.compile_object(undominated, host())


def test_code_for_a_wider_machine_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    code = _llvm.compile_object(INCREMENT.format(by=1), AVX512)
    monkeypatch.setattr(_llvm, "host_features", lambda: frozenset(AVX2.needs))
    message = "Code for avx512 cannot run here: the processor lacks avx512f, avx512bw, avx512cd, avx512dq, avx512vl."
    with pytest.raises(NativeError, match=f"^{re.escape(message)}$"):
        _llvm.Loaded(code, AVX512)


@pytest.mark.parametrize("do", [_llvm.version, _llvm.host_features, _llvm.host_name, lambda: _llvm.assembly("", AVX2)])
def test_without_llvmlite(do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_llvm, "_absent", "No module named 'llvmlite'")
    for known in (_llvm._start, _llvm.host_features):
        known.cache_clear()
    message = (
        "Native kernels need llvmlite, which cannot be imported: No module named 'llvmlite'. Layers use the "
        "reference path; to repair it: pip install --force-reinstall --no-deps llvmlite"
    )
    with pytest.raises(NativeError, match=f"^{re.escape(message)}$"):
        do()


def test_the_choice_can_be_asked_for_without_llvmlite() -> None:
    program = (
        "import sys; sys.modules['llvmlite'] = None\n"
        "from tidegate.errors import NativeError\n"
        "from tidegate.native import cpu\nfrom tidegate.native.run import cache\n"
        "try: cpu.host()\n"
        "except NativeError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == (
        "Native kernels need llvmlite, which cannot be imported: import of llvmlite halted; None in sys.modules. "
        "Layers use the reference path; to repair it: pip install --force-reinstall --no-deps llvmlite\n"
    )


def test_targets_are_in_falling_order_of_width() -> None:
    widths = [t.bytes for t in target.TARGETS.values()]
    assert widths == sorted(widths, reverse=True)
