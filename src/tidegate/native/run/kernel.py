"""A cell's kernels in this process: compiled or read from disk, called with addresses and sizes."""

import ctypes
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tidegate.equations.formats.to_json import graph_to_json
from tidegate.equations.graph import Graph
from tidegate.native import _llvm, cpu
from tidegate.native.compile import gemm, reductions
from tidegate.native.compile.arguments import CallShape, Frame, Pass, frame_of, right_factors, work_sizes
from tidegate.native.compile.builder import Builder
from tidegate.native.compile.library import FUNCTIONS, symbol
from tidegate.native.compile.lower import lower
from tidegate.native.compile.plan import KernelPlan, make_plan
from tidegate.native.run import cache, threads
from tidegate.native.run.workspace import LINE_BYTES, WORKSPACE, Block
from tidegate.native.target import ITEM_BYTES, DType, Target

PASSES: tuple[Pass, ...] = ("forward", "backward")
FLAG_BYTES = 8 * threads.LINE
MAX_LAYOUTS = 256
MAX_HELD_BYTES = 1 << 16  # of working memory that stays with a bound kernel between runs
MAX_SERIAL_STEP = 64  # rows times units of a step up to which one thread is fastest
MAX_SERIAL_CALL = 1024  # the same for all steps, of cells of fewer than MIN_SPLIT_UNITS
MAX_SERIAL_FEEDFORWARD = 1 << 14  # the same for all steps, of a cell without a recurrence
MIN_SPLIT_UNITS = 256  # units from which threads share units even where there are rows enough for each
MIN_UNCACHED_UNITS = 512  # units whose weights exceed one core's L2 cache
MAX_SPLIT_ROWS = 384  # rows of all steps up to which a core should read the weights that it packed itself
PRODUCT_ROWS = 32  # rows at which a product reaches its full speed: with fewer, several steps are multiplied together
UNCACHED_PRODUCT_ROWS = 256  # the same for weights that exceed the L2 cache


def library_text(target: Target, dtype: DType) -> str:
    """The text of the module of functions that all cells share."""
    k = Builder(f"library {dtype} {target.name}", target, dtype)
    gemm.emit(k)
    reductions.emit(k)
    threads.barrier(k)
    return str(k.module)


@lru_cache(maxsize=16)
def library(target: Target, dtype: DType) -> _llvm.Loaded:
    """Load the shared library and publish its functions to modules loaded later."""
    threads.publish()
    code = cache.cached(f"library {dtype} {target}", lambda: _llvm.compile_object(library_text(target, dtype), target))
    loaded = _llvm.Loaded(code, target)
    for function in FUNCTIONS:
        name = symbol(function, target, dtype)
        _llvm.publish(name, loaded.address(name))
    return loaded


@lru_cache(maxsize=256)
def graph_text(graph: Graph) -> str:
    """The equations as JSON: everything that kernels depend on, readable as a graph again."""
    data = graph_to_json(replace(graph, name="cell", source="", doc="", options={}, symbols={}, masks={}))
    for value in data["values"]:
        if value["op"] == "constant":
            value["attrs"] = {"value": value["attrs"]["value"]}  # without the option's name
    return json.dumps(data, sort_keys=True)


@dataclass(frozen=True)
class ArgumentLayout:
    """A call's constant arguments, and the bytes of working memory that it needs."""

    arguments: ctypes.Array[Any]
    flag_bytes: int
    size: int


class Kernel:
    """The forward and the backward kernel of a cell for one dtype.

    Raises NativeError if they cannot be compiled or cannot run here.
    """

    def __init__(
        self, graph: Graph, dtype: DType, target: Target, traced: tuple[str, ...] = (), *, indices: bool = False
    ) -> None:
        self.dtype, self.target = dtype, target
        self.item, self.lanes = ITEM_BYTES[dtype], target.lanes(dtype)
        self.plan: KernelPlan = make_plan(graph, traced, indices=indices)
        self._library = library(target, dtype)
        key = json.dumps([graph_text(graph), dtype, str(target), traced, indices])
        self._loaded = _llvm.Loaded(
            cache.cached(key, lambda: _llvm.compile_object(lower(self.plan, target, self.dtype), target)), target
        )
        self._functions = {d: _llvm.function(self._loaded.address(d)) for d in PASSES}
        self.frames: dict[Pass, Frame] = {d: frame_of(self.plan, d) for d in PASSES}
        self._arrays = {d: ctypes.c_int64 * len(self.frames[d].names) for d in PASSES}
        self._layout = lru_cache(maxsize=MAX_LAYOUTS)(self._laid_out)

    def shape(self, T: int, B: int, sizes: Mapping[str, int], wanted: int) -> CallShape:
        """A call of T steps and B rows, divided among the fastest number of threads, at most `wanted`."""
        known = CallShape(T, B, 1, False, sizes, self.lanes)
        graph, wanted = self.plan.graph, threads.count(wanted)
        if all(v.op == "constant" for v in graph.new.values()):  # no recurrence
            widest = known.number(graph.output_size)
            count, hidden = min(wanted, B) if T * B * widest > MAX_SERIAL_FEEDFORWARD else 1, False
        else:
            widest = max(known.number(s.size) for s in graph.states)
            count, hidden = split(widest, T, B, wanted)
        rows = max(B if hidden else B // count, 1)
        few, far = rows < PRODUCT_ROWS // 2, hidden and widest >= MIN_UNCACHED_UNITS
        chunk = -(-PRODUCT_ROWS // rows) if few else UNCACHED_PRODUCT_ROWS // rows if far else 0
        return replace(known, threads=count, hidden=hidden, chunk=min(T, chunk) if T > 1 and chunk > 1 else 0)

    def bind(self, direction: Pass, shape: CallShape, given: Mapping[str, int], *, own: bool = False) -> "Bound":
        """A kernel with its arguments, numbers and addresses by the names of its frame; what is missing is 0."""
        layout, frame = self._layout(direction, shape), self.frames[direction]
        arguments, index = self._arrays[direction].from_buffer_copy(layout.arguments), frame.index
        for name, number in given.items():
            arguments[index[name]] = number
        return Bound(self._functions[direction], arguments, layout, index["flags"], self, own=own)

    def _laid_out(self, direction: Pass, shape: CallShape) -> ArgumentLayout:
        frame, flag_bytes = self.frames[direction], FLAG_BYTES * shape.threads
        widths = [shape.number(v.size) for v in right_factors(self.plan)]
        scratch = max((gemm.scratch_numbers(n, self.target, self.dtype) for n in widths), default=0)
        sizes = work_sizes(self.plan, direction, shape, scratch)
        offsets, total = {}, flag_bytes
        for name in frame.working:
            offsets[name] = total
            total += -(-sizes[name] * self.item // LINE_BYTES) * LINE_BYTES
        numbers = {
            "threads": shape.threads,
            "hidden": int(shape.hidden),
            "T": shape.T,
            "B": shape.B,
            "chunk": shape.chunk,
            "ld.scratch": scratch,
            "ld.products": sizes["products"] // shape.threads,
            **{f"size.{letter}": number for letter, number in shape.sizes.items()},
            **offsets,
        }
        arguments = self._arrays[direction](*(numbers.get(name, 0) for name in frame.names))
        return ArgumentLayout(arguments, flag_bytes, total)


class Bound:
    """A kernel with arguments that may be changed in place between runs. Not thread-safe.

    Working memory is borrowed for each run. Up to MAX_HELD_BYTES of it, or all if `own` (packed weights have to stay),
    is held until this is deleted.
    """

    _block: Block | None = None  # for __del__ after a failed __init__

    def __init__(
        self,
        function: Callable[[int], None],
        arguments: ctypes.Array[Any],
        layout: ArgumentLayout,
        flags: int,
        kernel: object,
        *,
        own: bool,
    ) -> None:
        self.arguments = arguments
        self._function, self._layout, self._flags, self._kernel = function, layout, flags, kernel
        self._address, self._several = ctypes.addressof(arguments), layout.flag_bytes > FLAG_BYTES
        self._block = self._borrow() if own or layout.size <= MAX_HELD_BYTES else None

    def _borrow(self) -> Block:
        block = WORKSPACE.acquire(self._layout.size)
        self.arguments[self._flags] = block.address
        block.bytes[: self._layout.flag_bytes] = 0
        return block

    def __call__(self) -> None:
        """Run the kernel."""
        block = self._block
        if block is None:
            block = self._borrow()
            self._function(self._address)
            WORKSPACE.release(block)
            return
        if self._several:
            block.bytes[: self._layout.flag_bytes] = 0
        self._function(self._address)

    def __del__(self) -> None:
        if self._block is not None:
            WORKSPACE.release(self._block)


@lru_cache(maxsize=256)
def kernel(graph: Graph, dtype: DType, traced: tuple[str, ...] = (), *, indices: bool = False) -> Kernel:
    """The kernels of a cell on this machine. Raises NativeError if there are none."""
    return Kernel(graph, dtype, cpu.host(), traced, indices=indices)


def split(widest: int, T: int, B: int, wanted: int) -> tuple[int, bool]:
    """The number of threads for a call, and whether they share the units instead of the rows.

    As measured: small cells on few rows and short calls are slower with several threads. Units are shared where there
    are few rows, where the weights exceed one core's cache, and in short calls of wide cells, so that a core reads the
    weights that it packed itself. `widest` is the size of the widest state.
    """
    short = T * B * widest <= MAX_SERIAL_CALL and widest < MIN_SPLIT_UNITS
    if wanted == 1 or B * widest <= MAX_SERIAL_STEP or short:
        return 1, False
    wide = widest >= MIN_UNCACHED_UNITS or (widest >= MIN_SPLIT_UNITS and (3 * wanted >= B or T * B <= MAX_SPLIT_ROWS))
    return wanted, 2 * wanted > B or (wide and 32 * wanted >= B)
