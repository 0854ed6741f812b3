"""Self-test: whether native code can be compiled and run here, and by how many threads."""

import ctypes

from tidegate.errors import NativeError
from tidegate.native import _llvm
from tidegate.native.compile.builder import I64, POINTER, Builder
from tidegate.native.cpu import host
from tidegate.native.run import threads

_FACTOR, _SHIFT = 3.0, 0.5


def trial(wanted: int) -> int:
    """Compile and run x * 3 + 0.5 on a vector for each thread of a team; returns the team's size."""
    target = host()
    k = Builder("trial", target, "float32")
    _emit(k)
    threads.publish()
    loaded = _llvm.Loaded(_llvm.compile_object(str(k.module), target), target)
    numbers = (ctypes.c_float * (k.lanes * max(1, wanted)))(*range(k.lanes * max(1, wanted)))
    arguments = (ctypes.c_int64 * 3)(threads.count(wanted), ctypes.addressof(numbers), 0)
    _llvm.function(loaded.address("trial"))(ctypes.addressof(arguments))
    size = arguments[2]
    right = [i * _FACTOR + _SHIFT if i < size * k.lanes else float(i) for i in range(len(numbers))]
    if list(numbers) != right or not size:
        raise NativeError(f"The self-test kernel for {target.name} returned a wrong result.")
    return size


def _emit(k: Builder) -> None:
    with k.function("trial.body", [POINTER, I64, I64]) as body:
        arguments, me, size = body.args
        here = k.at(k.load_pointer(arguments, 1), k.mul(me, k.lanes))
        k.store(k.fma(k.load(here), k.splat_constant(_FACTOR), k.splat_constant(_SHIFT)), here)
        with k.when(k.compare("==", me, 0)):
            k.b.store(size, k.at_int(arguments, 2))
    threads.team(k, "trial", "trial.body")
