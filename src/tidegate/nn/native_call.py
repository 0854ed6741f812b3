"""A call of a cell's kernels on torch's tensors: addresses out of tensors, tensors out of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.equations.values import Rate
from tidegate.errors import ArgumentError, NativeError
from tidegate.native.frame import PAST_CACHES, Shape
from tidegate.native.kernel import Kernel
from tidegate.native.results import backward_arrays, kept_arrays, kept_widths, results
from tidegate.native.tables import NEVER_ADDRESS, Flags, Tables, fresh_starts, ragged, whole
from tidegate.native.target import DType
from tidegate.native.workspace import OWN_BYTES, WORKSPACE, Block
from tidegate.nn.recipe import Recipe

DTYPES: dict[torch.dtype, DType] = {torch.float32: "float32", torch.float64: "float64"}
NOTHING = torch.empty(0)
MOST_SHAPES = 256
MUCH = 1 << 23  # bytes
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
        self._in_vectors = all(width % kernel.lanes == 0 for width in kept_widths(plan, of_letters))
        self.passing, self.passing_width = backward_arrays(plan, of_letters)
        self.weights = [f"weights.{k}" for k in range(len(plan.fixed))]
        moving = {i.name for i in recipe.graph.inputs if i.rate == Rate.INPUT}
        self.inputs = [(f"input.{n}", f"ld.input.{n}" if n in moving else None) for n in recipe.inputs]
        self.begins = [(f"begin.{n}", f"step.begin.{n}") for n in recipe.states]
        self.starts = [f"start.{n}" for n in recipe.states]
        self.ends = [(f"end.{n}", f"step.end.{n}") for n in recipe.states]
        self._zeros = np.zeros(max(recipe.width, *recipe.state_widths), self.numpy_type)
        self.zeros_address: int = self._zeros.ctypes.data
        self._shapes: dict[tuple[int, int, int], Shape] = {}

    def shape(self, T: int, B: int) -> Shape:
        """How a call of T steps and B rows is divided."""
        key = T, B, torch.get_num_threads()
        found = self._shapes.get(key)
        if found is None:
            if len(self._shapes) > MOST_SHAPES:
                self._shapes.clear()
            found = self._shapes[key] = self.kernel.shape(T, B, self.recipe.sizes, key[2])
        return found

    def room(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A tensor of whatever was there before; a large one in memory that is kept from call to call."""
        size = math.prod(shape) * self.kernel.item
        if size < OWN_BYTES:
            return like.new_empty(shape)
        return torch.from_numpy(WORKSPACE.lend(size).view(self.numpy_type)).view(shape)

    def keeping(self, kept: Tensor) -> int:
        """How a kernel keeps: much of it past the caches, which would not hold it until it is read."""
        return PAST_CACHES if self._in_vectors and kept.numel() * self.kernel.item >= MUCH else 1

    def call(self, T: int, B: int, backwards: bool, lengths: Tensor | None, reset: Tensor | None) -> Call:
        """A call of T steps and B rows."""
        shape = self.shape(T, B)
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


class Call:
    """One call: its shape, the order in which it goes through rows and steps, and what derivatives are told of it."""

    __slots__ = ("backwards", "cell", "fresh", "lengths", "reset", "shape", "tables")

    def __init__(
        self,
        cell: NativeCell,
        shape: Shape,
        tables: Tables,
        fresh: Flags | None,
        backwards: bool,
        lengths: Tensor | None,
        reset: Tensor | None,
    ) -> None:
        self.cell, self.shape, self.tables, self.fresh = cell, shape, tables, fresh
        self.backwards, self.lengths, self.reset = backwards, lengths, reset

    @property
    def count(self) -> int:
        """How many of a call's tensors are weights; they come first."""
        return self.cell.recipe.parts[0]

    def wanted(self, needs: Sequence[bool]) -> list[bool]:
        """The tensors that need a gradient and get one."""
        return self.cell.recipe.wanted(needs, self.reset is not None)

    def reference(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The same by torch's own operations."""
        return self.cell.recipe.reference(tensors, self.lengths, self.reset, self.backwards)

    def weights(self, tensors: Sequence[Tensor]) -> tuple[list[int], Any]:
        """Where the values of weights stand, and what must live until a kernel is done."""
        found = [t if t.is_contiguous() else t.contiguous() for t in tensors[: self.count]]
        return [t.data_ptr() for t in found], found

    def gradients(self, needs: Sequence[bool], of_value: Callable[[int], Tensor]) -> list[Tensor | None]:
        """The weights' gradients, from those of the values that a kernel is given, by number."""
        return [of_value(k) if need else None for k, need in enumerate(needs)]

    def forward(self, tensors: Sequence[Tensor], keeping: bool) -> list[Tensor]:
        """The output, the states at the ends, and what is kept for the backward pass."""
        cell, (T, B) = self.cell, (self.shape.T, self.shape.B)
        recipe, like = cell.recipe, tensors[0]
        given, alive = self._given(tensors)
        y = cell.room(like, (T, B, recipe.width))
        if self.lengths is not None:
            y.zero_()
        given["output"], given["ld.output"] = y.data_ptr(), recipe.width
        found = [y]
        for (name, _), width in zip(cell.ends, recipe.state_widths, strict=True):
            end = like.new_empty((B, width))
            given[name] = end.data_ptr()
            found.append(end)
        kept = self._kept(like, given) if keeping else NOTHING
        found.append(kept)
        given["keeping"] = cell.keeping(kept) if keeping else 0
        cell.kernel.run("forward", self.shape, given)
        del alive
        return found

    def _given(self, tensors: Sequence[Tensor]) -> tuple[dict[str, int], list[Any]]:
        """What both kernels are told of the call's tensors, and copies that must live until they are done."""
        cell, tables = self.cell, self.tables
        a, b, c = (n - cell.recipe.parts[0] + self.count for n in cell.recipe.parts)
        given = tables.addresses.copy()
        if self.fresh is None:
            given["fresh"] = NEVER_ADDRESS
        else:
            given["fresh"], given["fresh.step"] = self.fresh.ctypes.data, 1
        addresses, used = self.weights(tensors)
        given.update(zip(cell.weights, addresses, strict=True))
        alive = [used]
        for (name, ld), tensor in zip(cell.inputs, tensors[a:b], strict=True):
            if ld is None:
                found = tensor.contiguous()
            else:
                found, given[ld] = evenly(tensor)
            given[name] = found.data_ptr()
            alive.append(found)
        for (name, step), tensor in zip(cell.begins, tensors[b:c], strict=True):
            found, given[step] = _rows(tensor)
            given[name] = found.data_ptr()
            alive.append(found)
        for name, tensor in zip(cell.starts, tensors[c:], strict=True):
            if self.fresh is None:
                given[name] = cell.zeros_address  # it is read, and not used
                continue
            found = tensor.contiguous()
            given[name] = found.data_ptr()
            alive.append(found)
        return given, alive

    def _kept(self, like: Tensor, given: dict[str, int]) -> Tensor:
        kept = self.cell.room(like, (self.shape.T * self.shape.B * self.cell.kept_width,))
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
        wanted, count = call.wanted(needs), call.count
        self.weights = any(wanted[:count])
        inputs, states = len(self.recipe.inputs), len(self.recipe.states)
        self.need_inputs = wanted[count : count + inputs]
        self.need_begins = wanted[count + inputs : count + inputs + states]
        self.need_starts = wanted[count + inputs + states :]
        self.wanted = wanted
        self.inputs, self.kept = tensors[count : count + inputs], kept
        self.like = tensors[0]
        self.given, self.alive = call._given(tensors)
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
        starts = [
            summed[f"start_gradient.{n}"].unsqueeze(0) if need else None
            for n, need in zip(self.recipe.states, self.need_starts, strict=True)
        ]
        return [*self._of_weights(flat, summed), *found, *starts]

    def _of_weights(self, flat: Tensor, summed: dict[str, Tensor]) -> list[Tensor | None]:
        needs = self.wanted[: self.call.count]
        if not self.weights:
            return [None] * len(needs)
        return self.call.gradients(needs, lambda k: self._weight(k, flat, summed))

    def _slopes(self, slopes: Sequence[Tensor | None]) -> None:
        """Where there is none, one row of zeros stands for all."""
        dy, *dends = slopes
        zeros = self.cell.zeros_address
        if dy is None:
            self.given["output"], self.given["ld.output"] = zeros, 0
        else:
            dy, self.given["ld.output"] = evenly(dy)
            self.given["output"] = dy.data_ptr()
            self.alive.append(dy)
        for (name, step), d in zip(self.cell.ends, dends, strict=True):
            if d is None:
                self.given[name] = zeros
            else:
                found, self.given[step] = _rows(d)
                self.given[name] = found.data_ptr()
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
        wanted = zip(self.recipe.states, self.recipe.state_widths, self.need_starts, strict=True)
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
        found: list[Tensor | None] = []
        for name, (_, ld), x, need in zip(
            self.recipe.inputs, self.cell.inputs, self.inputs, self.need_inputs, strict=True
        ):
            if not need:
                found.append(None)
                continue
            gradient = self.cell.room(self.like, x.shape)
            if ld is None or self.call.lengths is not None:
                gradient.zero_()
            found.append(gradient)
            self.given[f"gradient.{name}"] = gradient.data_ptr()
            if ld is not None:
                self.given[f"ld.gradient.{name}"] = gradient.shape[-1]
        return found

    def _begins(self) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for name, width, need in zip(self.recipe.states, self.recipe.state_widths, self.need_begins, strict=True):
            gradient = self.like.new_empty((self.shape.B, width)) if need else None
            found.append(gradient)
            if gradient is not None:
                self.given[f"begin_gradient.{name}"] = gradient.data_ptr()
        return found

    def _weight(self, k: int, flat: Tensor, summed: dict[str, Tensor]) -> Tensor:
        pieces = self.cell.results.pieces[k]
        if len(pieces) == 1 and pieces[0].kind == "flat":
            (piece,) = pieces
            return flat.as_strided(piece.size, piece.strides, piece.begin)
        parts = []
        for piece in pieces:
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
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if tensor.dim() == 2:
        return tensor.contiguous(), 1
    T, B, size = tensor.shape
    if tensor.is_contiguous():
        return tensor, size
    over_t, over_b, unit = tensor.stride()
    if unit == 1 or size == 1:
        if T == 1:
            return tensor, over_b
        if B == 1:
            return tensor, over_t
        if over_t == B * over_b:
            return tensor, over_b
    return tensor.contiguous(), size


def _rows(tensor: Tensor) -> tuple[Tensor, int]:
    """A tensor `[B, size]`, and how many rows each is further than the last: 1, or 0 where all are the same."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if tensor.is_contiguous():
        return tensor, 1
    if tensor.stride(0) == 0 and tensor.stride(1) == 1:
        return tensor, 0
    return tensor.contiguous(), 1
