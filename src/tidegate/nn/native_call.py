"""A call of a cell's kernels on torch's tensors: addresses out of tensors, tensors out of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.equations.values import Rate
from tidegate.errors import ArgumentError, NativeError
from tidegate.native.frame import Shape
from tidegate.native.kernel import Kernel
from tidegate.native.results import backward_arrays, kept_arrays, results
from tidegate.native.tables import NEVER_ADDRESS, Flags, Tables, fresh_starts, ragged, whole
from tidegate.native.target import DType
from tidegate.native.workspace import WORKSPACE, Block
from tidegate.nn.recipe import Recipe

DTYPES: dict[torch.dtype, DType] = {torch.float32: "float32", torch.float64: "float64"}
NOTHING = torch.empty(0)
Array = np.ndarray[Any, Any]


class NativeCell:
    """A cell's kernels with bound sizes."""

    def __init__(self, kernel: Kernel, recipe: Recipe) -> None:
        plan = kernel.plan
        if len(plan.fixed) != recipe.parts[0]:
            raise NativeError("a kernel is given other values of weights than were prepared for it")
        self.kernel, self.recipe = kernel, recipe
        self.dtype = torch.float32 if kernel.dtype == "float32" else torch.float64
        self.numpy_type = np.dtype(kernel.dtype)
        of_letters = Shape(1, 1, 1, False, recipe.sizes, kernel.lanes)
        self.results = results(plan, of_letters)
        self.kept, self.kept_width = kept_arrays(plan, of_letters)
        self.passing, self.passing_width = backward_arrays(plan, of_letters)
        self.names = [f"weights.{k}" for k in range(len(plan.fixed))]
        self.names += [f"input.{n}" for n in recipe.inputs]
        self.names += [f"{kind}.{n}" for kind in ("begin", "start") for n in recipe.states]
        moving = {i.name for i in recipe.graph.inputs if i.rate == Rate.INPUT}
        begin = recipe.parts[0]
        self.strided = {begin + k: f"ld.input.{n}" for k, n in enumerate(recipe.inputs) if n in moving}

    def call(self, T: int, B: int, backwards: bool, lengths: Tensor | None, reset: Tensor | None) -> Call:
        """A call of T steps and B rows."""
        kernel = self.kernel
        shape = kernel.shape(T, B, self.recipe.sizes, torch.get_num_threads())
        tables = whole(T, B, backwards) if lengths is None else ragged(_checked(lengths, T, B), shape, backwards)
        fresh = None if reset is None else fresh_starts(_array(reset), tables, backwards)
        return Call(self, shape, tables, fresh, backwards, lengths, reset)


def _array(tensor: Tensor) -> Array:
    with torch._C._DisableFuncTorch():  # within a transform even a plain tensor would be wrapped first
        found: Array = tensor.numpy()
    return found


def _checked(lengths: Tensor, T: int, B: int) -> Array:
    found = _array(lengths)
    if found.shape != (B,) or found.min() < 0 or found.max() > T:  # no Batch has seen what an exported program is given
        raise ArgumentError(f"lengths are {B} whole numbers between 0 and {T}, and {found.tolist()} came")
    return found


@dataclass(frozen=True, eq=False)
class Call:
    """One call: its shape, the order in which it goes through rows and steps, and what derivatives are told of it."""

    cell: NativeCell
    shape: Shape
    tables: Tables
    fresh: Flags | None
    backwards: bool
    lengths: Tensor | None
    reset: Tensor | None

    def reference(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The same by torch's own operations."""
        return self.cell.recipe.reference(tensors, self.lengths, self.reset, self.backwards)

    def forward(self, tensors: Sequence[Tensor], keeping: bool) -> list[Tensor]:
        """The output, the states at the ends, and what is kept for the backward pass."""
        cell, shape = self.cell, self.shape
        recipe, like = cell.recipe, tensors[0]
        given, alive = self._given(tensors)
        make = like.new_empty if self.lengths is None else like.new_zeros
        y = make((shape.T, shape.B, recipe.width))
        ends = [like.new_empty((shape.B, n)) for n in recipe.state_widths]
        kept = self._kept(given) if keeping else NOTHING
        given["keeping"] = int(keeping)
        given["output"], given["ld.output"] = y.data_ptr(), recipe.width
        for name, end in zip(recipe.states, ends, strict=True):
            given[f"end.{name}"] = end.data_ptr()
        cell.kernel.run("forward", shape, given)
        del alive
        return [y, *ends, kept]

    def _given(self, tensors: Sequence[Tensor]) -> tuple[dict[str, int], list[Tensor]]:
        """What both kernels are told of the call's tensors, and tensors that must live until they are done."""
        cell, tables = self.cell, self.tables
        given = {**tables.addresses, "fresh": NEVER_ADDRESS}
        if self.fresh is not None:
            given["fresh"], given["fresh.step"] = self.fresh.ctypes.data, 1
        alive = []
        for k, (name, tensor) in enumerate(zip(cell.names, tensors, strict=False)):
            ld_name = cell.strided.get(k)
            if ld_name is None:
                found = tensor if tensor.is_contiguous() else tensor.contiguous()
            else:
                found, given[ld_name] = evenly(tensor)
            if found is not tensor:
                alive.append(found)
            given[name] = found.data_ptr()
        return given, alive

    def _kept(self, given: dict[str, int]) -> Tensor:
        cell, rows = self.cell, self.shape.T * self.shape.B
        bytes_kept = rows * cell.kept_width * cell.kernel.item
        kept = torch.from_numpy(WORKSPACE.lend(bytes_kept).view(cell.numpy_type))
        self._place_kept(kept, given)
        return kept

    def _place_kept(self, kept: Tensor, given: dict[str, int]) -> None:
        base, row_bytes = kept.data_ptr(), self.shape.T * self.shape.B * self.cell.kernel.item
        for name, column in self.cell.kept:
            given[name] = base + column * row_bytes

    def backward(
        self, needs: Sequence[bool], slopes: Sequence[Tensor | None], tensors: Sequence[Tensor], kept: Tensor
    ) -> list[Tensor | None]:
        """The gradients of those tensors that need one: from those of the output and of the ends (None: zero)."""
        return _Backward(self, needs, tensors, kept).run(slopes)


class _Backward:
    """One backward pass."""

    def __init__(self, call: Call, needs: Sequence[bool], tensors: Sequence[Tensor], kept: Tensor) -> None:
        self.call, self.cell, self.shape = call, call.cell, call.shape
        self.recipe, self.kernel = call.cell.recipe, call.cell.kernel
        self.needs = self.recipe.wanted(needs, call.reset is not None)
        self.tensors, self.kept = tensors, kept
        self.like = tensors[0]
        self.given, self.alive = call._given(tensors)
        self.weights = any(self.needs[: self.recipe.parts[0]])
        if not self.weights:
            self.given["count"] = 0

    def run(self, slopes: Sequence[Tensor | None]) -> list[Tensor | None]:
        rows, item = self.shape.T * self.shape.B, self.kernel.item
        numbers = rows * self.cell.passing_width
        sums = self._sums()
        scratch = sum(n for _, n in sums) * self.shape.B
        flat_beside = 0 if self.weights else self.cell.results.total
        block = WORKSPACE.take((numbers + scratch + flat_beside) * item)
        for name, column in self.cell.passing:
            self.given[name] = block.address + column * rows * item
        self.call._place_kept(self.kept, self.given)
        self._slopes(slopes)
        flat = self._flat(block.address + (numbers + scratch) * item)
        summed_rows = self._rows(sums, block, numbers)
        found = self._inputs() + self._begins()
        self.kernel.run("backward", self.shape, self.given)
        summed = {name: self._summed(array) for name, array in summed_rows.items()}
        WORKSPACE.give(block)
        a, _, c = self.recipe.parts
        weights = [self._weight(k, flat, summed) if need else None for k, need in enumerate(self.needs[:a])]
        starts = [
            summed[f"start_gradient.{n}"].unsqueeze(0) if need else None
            for n, need in zip(self.recipe.states, self.needs[c:], strict=True)
        ]
        return [*weights, *found, *starts]

    def _slopes(self, slopes: Sequence[Tensor | None]) -> None:
        dy, *dends = slopes
        if dy is None:
            dy = self.like.new_zeros((1, 1, self.recipe.width)).expand(self.shape.T, self.shape.B, -1)
        dy, self.given["ld.output"] = evenly(dy)
        self.given["output"] = dy.data_ptr()
        self.alive.append(dy)
        for name, width, d in zip(self.recipe.states, self.recipe.state_widths, dends, strict=True):
            found = self.like.new_zeros((self.shape.B, width)) if d is None else d.contiguous()
            self.given[f"end.{name}"] = found.data_ptr()
            self.alive.append(found)

    def _flat(self, beside: int) -> Tensor:
        """The array of the weights' gradients; where none is needed, memory that nobody reads."""
        total, item = self.cell.results.total, self.kernel.item
        flat = self.like.new_zeros(total) if self.weights else NOTHING
        base = flat.data_ptr() if self.weights else beside
        for name, begin in self.cell.results.arrays:
            self.given[name] = base + begin * item
        return flat

    def _sums(self) -> list[tuple[str, int]]:
        """What is summed over rows: each slot has a row of its own, so that it does not matter who computes it."""
        found = list(self.cell.results.sums)
        wanted = zip(self.recipe.states, self.recipe.state_widths, self.needs[self.recipe.parts[2] :], strict=True)
        return found + [(f"start_gradient.{n}", width) for n, width, need in wanted if need]

    def _rows(self, sums: list[tuple[str, int]], block: Block, begin: int) -> dict[str, Array]:
        found: dict[str, Array] = {}
        memory = block.bytes[: block.size // self.kernel.item * self.kernel.item].view(self.cell.numpy_type)
        for name, width in sums:
            found[name] = memory[begin : begin + self.shape.B * width].reshape(self.shape.B, width)
            found[name][...] = 0
            self.given[name] = block.address + begin * self.kernel.item
            begin += self.shape.B * width
        return found

    def _summed(self, array: Array) -> Tensor:
        slots = self.call.tables.slots
        total = np.add.reduce(array if slots is None else array[slots], axis=0)
        return torch.from_numpy(total)

    def _inputs(self) -> list[Tensor | None]:
        a, b, _ = self.recipe.parts
        found: list[Tensor | None] = []
        for k, (name, need) in enumerate(zip(self.recipe.inputs, self.needs[a:b], strict=True), a):
            moving = k in self.cell.strided
            if not need:
                found.append(None)
                continue
            make = self.like.new_empty if moving and self.call.lengths is None else self.like.new_zeros
            gradient = make(self.tensors[k].shape)
            found.append(gradient)
            self.given[f"gradient.{name}"] = gradient.data_ptr()
            if moving:
                self.given[f"ld.gradient.{name}"] = gradient.shape[-1]
        return found

    def _begins(self) -> list[Tensor | None]:
        _, b, c = self.recipe.parts
        found: list[Tensor | None] = []
        for name, width, need in zip(self.recipe.states, self.recipe.state_widths, self.needs[b:c], strict=True):
            gradient = self.like.new_empty((self.shape.B, width))
            self.given[f"begin_gradient.{name}"] = gradient.data_ptr()
            self.alive.append(gradient)
            found.append(gradient if need else None)
        return found

    def _weight(self, k: int, flat: Tensor, summed: dict[str, Tensor]) -> Tensor:
        parts = []
        for piece in self.cell.results.pieces[k]:
            if piece.kind == "sum":
                parts.append(summed[f"sum.{piece.begin}"])
            else:
                parts.append(flat.as_strided(piece.size, piece.strides, piece.begin))
        whole_gradient = parts[0]
        for part in parts[1:]:
            whole_gradient = whole_gradient + part
        return whole_gradient


def evenly(tensor: Tensor) -> tuple[Tensor, int]:
    """A tensor `[T, B, size]`, or whole numbers `[T, B]`, whose row t * B + b is that many times so many numbers away;
    a copy if need be."""
    if tensor.dim() == 2:
        return tensor.contiguous(), 1
    T, B, size = tensor.shape
    over_t, over_b, unit = tensor.stride()
    if unit == 1 or size == 1:
        if T == 1:
            return tensor, over_b
        if B == 1:
            return tensor, over_t
        if over_t == B * over_b:
            return tensor, over_b
    return tensor.contiguous(), size

