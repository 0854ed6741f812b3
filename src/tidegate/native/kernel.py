"""A cell's kernels in this process: compiled or from disk, ready to be called with addresses and sizes."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tidegate.equations.graph import Graph
from tidegate.equations.serial import graph_to_json
from tidegate.native import _llvm, cache, machine, products, threads, units
from tidegate.native.builder import Builder
from tidegate.native.frame import Frame, Pass, Shape, frame_of, loop_of, right_factors, work_names, work_sizes
from tidegate.native.library import FUNCTIONS, symbol
from tidegate.native.lower import lower
from tidegate.native.plan import Plan, make_plan
from tidegate.native.target import ITEM_BYTES, DType, Target
from tidegate.native.workspace import LINE_BYTES, WORKSPACE

PASSES: tuple[Pass, ...] = ("forward", "backward")
FLAG_BYTES = 8 * threads.LINE
MOST_LAYOUTS = 256
SMALL, LARGE = 64, 512  # units


def library_text(target: Target, dtype: DType) -> str:
    """The module of what does not depend on a cell."""
    k = Builder(f"library {dtype} {target.name}", target, dtype)
    products.emit(k)
    units.emit(k)
    threads.barrier(k)
    return str(k.module)


@lru_cache(maxsize=None)
def library(target: Target, dtype: DType) -> _llvm.Loaded:
    """The library in this process, its functions known by name to modules that are loaded later."""
    threads.publish()
    code = cache.cached(f"library {dtype} {target}", lambda: _llvm.compile_object(library_text(target, dtype), target))
    loaded = _llvm.Loaded(code, target)
    for function in FUNCTIONS:
        name = symbol(function, target, dtype)
        _llvm.publish(name, loaded.address(name))
    return loaded


@dataclass(frozen=True)
class _Layout:
    """Where a kernel's working memory lies: the frame's indices, offsets in bytes, and how many bytes there are."""

    places: tuple[tuple[int, int], ...]
    size: int
    scratch: int
    products: int


class Kernel:
    """The forward and the backward kernel of a cell for one type of numbers.

    Raises NativeError where they cannot be made, or cannot run here.
    """

    def __init__(self, graph: Graph, dtype: DType, target: Target, traced: tuple[str, ...] = ()) -> None:
        self.dtype, self.target = dtype, target
        self.plan: Plan = make_plan(graph, traced)
        self._library = library(target, dtype)
        key = json.dumps([graph_to_json(graph), dtype, str(target), traced], sort_keys=True)
        self._loaded = _llvm.Loaded(cache.cached(key, self._compiled), target)
        self._functions = {d: _llvm.function(self._loaded.address(d)) for d in ("forward", "backward")}
        self.frames: dict[Pass, Frame] = {d: frame_of(self.plan, d) for d in PASSES}
        self._arrays = {d: ctypes.c_int64 * len(self.frames[d].names) for d in PASSES}
        self._layouts: dict[tuple[Pass, tuple[int, ...], bool], _Layout] = {}

    def _compiled(self) -> bytes:
        return _llvm.compile_object(lower(self.plan, self.target, self.dtype), self.target)

    def run(self, direction: Pass, shape: Shape, given: Mapping[str, int]) -> None:
        """Run a kernel on numbers and addresses by the names of its frame; what is missing is 0."""
        frame, layout = self.frames[direction], self._layout(direction, shape)
        block = WORKSPACE.take(layout.size)
        base = block.ctypes.data
        flags = FLAG_BYTES * shape.threads
        block[:flags] = 0
        arguments = self._arrays[direction]()
        index = frame.index
        for place, offset in layout.places:
            arguments[place] = base + flags + offset
        arguments[index["flags"]] = base
        arguments[index["threads"]], arguments[index["hidden"]] = shape.threads, shape.hidden
        arguments[index["T"]], arguments[index["B"]], arguments[index["chunk"]] = shape.T, shape.B, shape.chunk
        arguments[index["ld.scratch"]], arguments[index["ld.products"]] = layout.scratch, layout.products
        for letter, number in shape.sizes.items():
            if f"size.{letter}" in index:
                arguments[index[f"size.{letter}"]] = number
        for name, number in given.items():
            arguments[index[name]] = number
        self._functions[direction](ctypes.addressof(arguments))
        WORKSPACE.give(block)

    def _layout(self, direction: Pass, shape: Shape) -> _Layout:
        key = (direction, (shape.T, shape.B, shape.threads, shape.chunk, *shape.sizes.values()), shape.hidden)
        if key not in self._layouts:
            if len(self._layouts) > MOST_LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = self._laid_out(direction, shape)
        return self._layouts[key]

    def _laid_out(self, direction: Pass, shape: Shape) -> _Layout:
        item, index = ITEM_BYTES[self.dtype], self.frames[direction].index
        widths = [shape.number(v.size) for v in right_factors(self.plan)]
        scratch = max((products.scratch_numbers(n, self.target, self.dtype) for n in widths), default=0)
        sizes = work_sizes(self.plan, direction, shape, scratch)
        places, total = [], 0
        for name in dict.fromkeys(work_names(self.plan, loop_of(self.plan, direction), direction)):
            places.append((index[name], total))
            total += -(-sizes[name] * item // LINE_BYTES) * LINE_BYTES
        return _Layout(tuple(places), total + FLAG_BYTES * shape.threads, scratch, sizes["products"] // shape.threads)


@lru_cache(maxsize=256)
def kernel(graph: Graph, dtype: DType, traced: tuple[str, ...] = ()) -> Kernel:
    """The kernels of a cell on this machine. Raises NativeError where there are none."""
    return Kernel(graph, dtype, machine.host(), traced)


def split(sizes: Mapping[str, int], B: int, wanted: int) -> tuple[int, bool]:
    """How many threads a call is given, and whether they share the units instead of the rows.

    As measured: a small cell on one row is slower with company; units are shared where there are few rows, and where the
    weights of all units together do not stay in one core's cache.
    """
    widest = max(sizes.values())
    if wanted == 1 or (B == 1 and widest <= SMALL):
        return 1, False
    return wanted, B < 2 * wanted or (widest >= LARGE and B <= 32 * wanted)
