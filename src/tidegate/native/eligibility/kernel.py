"""Eligibility-trace kernels in this process: compiled or read from disk, called with addresses and sizes."""

import ctypes
from collections.abc import Mapping
from functools import lru_cache

from tidegate.native import _llvm, cpu
from tidegate.native.compile.arguments import Frame
from tidegate.native.eligibility.arguments import argument_names, work_numbers
from tidegate.native.eligibility.emit import MATRIX, VECTOR, traces_text
from tidegate.native.eligibility.form import TraceForm
from tidegate.native.run import cache, threads
from tidegate.native.run.kernel import ArgumentLayout, Bound
from tidegate.native.run.workspace import LINE_BYTES
from tidegate.native.target import ITEM_BYTES, DType, Target

TEAM_ELEMENTS = 1 << 17  # steps times trace elements from which a team of threads is faster than one
MAX_LAYOUTS = 256


class TraceKernel:
    """The kernels of one form of traces for one dtype. Raises NativeError if they cannot be compiled."""

    def __init__(self, form: TraceForm, dtype: DType, target: Target) -> None:
        self.form, self.dtype = form, dtype
        self.item, self.lanes = ITEM_BYTES[dtype], target.lanes(dtype)
        threads.publish()
        code = cache.cached(
            f"traces {form} {dtype} {target}", lambda: _llvm.compile_object(traces_text(form, target, dtype), target)
        )
        self._loaded = _llvm.Loaded(code, target)
        self._functions = {name: _llvm.function(self._loaded.address(name)) for name in (MATRIX, VECTOR)}
        self._layout = lru_cache(maxsize=MAX_LAYOUTS)(self._laid_out)

    def bind(self, T: int, B: int, K: int, V: int, pieces: int, wanted: int, given: Mapping[str, int]) -> Bound:
        """Bind a kernel to its arguments, numbers and addresses by name; missing ones are 0.

        Without pieces, V is 1: a bias alone, whose `g` is contiguous. `wanted` is the number of threads.
        """
        layout, index = self._layout(T, B, K, V, pieces, threads.count(wanted))
        arguments = type(layout.arguments).from_buffer_copy(layout.arguments)
        for name, number in given.items():
            arguments[index[name]] = number
        return Bound(self._functions[MATRIX if pieces else VECTOR], arguments, layout, index["work"], self, own=False)

    def _laid_out(
        self, T: int, B: int, K: int, V: int, pieces: int, wanted: int
    ) -> tuple[ArgumentLayout, dict[str, int]]:
        frame = Frame(argument_names(self.form, pieces), ())
        count = min(wanted, K) if T * B * K * V * self.form.states >= TEAM_ELEMENTS else 1
        per_thread = -(-work_numbers(self.form, T, V, self.lanes) * self.item // LINE_BYTES) * LINE_BYTES
        numbers = {"threads": count, "T": T, "B": B, "K": K, "V": V, "pieces": pieces}
        numbers["ld.work"] = per_thread // self.item
        arguments = (ctypes.c_int64 * len(frame.names))(*(numbers.get(name, 0) for name in frame.names))
        return ArgumentLayout(arguments, 0, per_thread * count if pieces else 0), frame.index


@lru_cache(maxsize=256)
def trace_kernel(form: TraceForm, dtype: DType) -> TraceKernel:
    """The kernels of a form of traces on this machine. Raises NativeError if there are none."""
    return TraceKernel(form, dtype, cpu.host())
