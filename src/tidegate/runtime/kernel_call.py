"""A call of a cell's kernels on torch's tensors: addresses out of tensors, tensors out of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.equations.values import Rate
from tidegate.errors import ArgumentError, NativeError
from tidegate.native.compile.arguments import PAST_CACHES, CallShape, Pass
from tidegate.native.run.gradient_layout import Piece, backward_arrays, kept_arrays, kept_widths, results
from tidegate.native.run.kernel import PASSES, Bound, Kernel
from tidegate.native.run.row_order import NEVER_ADDRESS, Flags, Tables, fresh_starts, ragged, whole
from tidegate.native.run.workspace import OWN_BYTES, WORKSPACE, Block
from tidegate.native.target import DType
from tidegate.runtime.gradient_accumulator import GradientAccumulator, Sums
from tidegate.runtime.kernel_inputs import KernelInputs

DTYPES: dict[torch.dtype, DType] = {torch.float32: "float32", torch.float64: "float64"}
NOTHING = torch.empty(0)
MOST_SHAPES = 256
MUCH = 1 << 23  # bytes
Array = np.ndarray[Any, Any]


class CellKernel:
    """A cell's kernels with bound sizes."""

    def __init__(self, kernel: Kernel, recipe: KernelInputs) -> None:
        plan = kernel.plan
        if len(plan.fixed) != recipe.parts[0]:
            raise NativeError("a kernel is given other values of weights than were prepared for it")
        self.kernel, self.recipe = kernel, recipe
        self.dtype = torch.float32 if kernel.dtype == "float32" else torch.float64
        self.numpy_type = np.dtype(kernel.dtype)
        of_letters = CallShape(1, 1, 1, False, recipe.sizes, kernel.lanes)
        self.results = results(plan, of_letters)
        self.kept, self.kept_width = kept_arrays(plan, of_letters)
        self._in_vectors = all(width % kernel.lanes == 0 for width in kept_widths(plan, of_letters))
        self.passing, self.passing_width = backward_arrays(plan, of_letters)
        self.simple = [_only_flat(pieces) for pieces in self.results.pieces]
        self.places = {d: _ArgumentSlots(self, d) for d in PASSES}
        self._zeros = np.zeros(max(recipe.width, *recipe.state_widths), self.numpy_type)
        self.zeros_address: int = self._zeros.ctypes.data
        self.zero: Array = np.zeros((), self.numpy_type)
        self._shapes: dict[tuple[int, int, int], CallShape] = {}
        self._rooms: dict[tuple[int, ...], Allocator] = {}

    def shape(self, T: int, B: int) -> CallShape:
        """How a call of T steps and B rows is divided."""
        key = T, B, torch.get_num_threads()
        found = self._shapes.get(key)
        if found is None:
            if len(self._shapes) > MOST_SHAPES:
                self._shapes.clear()
            found = self._shapes[key] = self.kernel.shape(T, B, self.recipe.sizes, key[2])
        return found

    def room(self, shape: tuple[int, ...]) -> Allocator:
        """Tensors of whatever was there before."""
        found = self._rooms.get(shape)
        if found is None:
            if len(self._rooms) > MOST_SHAPES:
                self._rooms.clear()
            found = self._rooms[shape] = Allocator(shape, self.dtype, self.numpy_type)
        return found

    def keeping(self, kept: Tensor) -> int:
        """How a kernel keeps: much of it past the caches, which would not hold it until it is read."""
        return PAST_CACHES if self._in_vectors and kept.numel() * self.kernel.item >= MUCH else 1

    def call(self, T: int, B: int, backwards: bool, lengths: Tensor | None, reset: Tensor | None) -> KernelCall:
        """A call of T steps and B rows."""
        shape = self.shape(T, B)
        tables = whole(T, B, backwards) if lengths is None else ragged(_checked(lengths, T, B), shape, backwards)
        fresh = None if reset is None else fresh_starts(_array(reset), tables, backwards)
        return KernelCall(self, shape, tables, fresh, backwards, lengths, reset)


def _array(tensor: Tensor) -> Array:
    with torch._C._DisableFuncTorch():  # within a transform even a plain tensor would be wrapped first
        found: Array = tensor.numpy()
    return found


def _checked(lengths: Tensor, T: int, B: int) -> Array:
    found = _array(lengths)
    if found.shape != (B,) or found.min() < 0 or found.max() > T:  # no Batch has seen what an exported program is given
        raise ArgumentError(f"lengths are {B} whole numbers between 0 and {T}, and {found.tolist()} came")
    return found


@dataclass(frozen=True)
class Carrying:
    """Where a call's sums over steps go, and the parameters that its weights and starts are."""

    to: GradientAccumulator
    targets: tuple[Tensor | None, ...]


class Allocator:
    """Tensors of a shape, of whatever was there before; large ones in memory that is kept from call to call."""

    __slots__ = ("_bytes", "_kind", "_like", "_shape")

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, kind: np.dtype[Any]) -> None:
        self._shape, self._kind, self._bytes = shape, kind, math.prod(shape) * kind.itemsize
        self._like = torch.empty(shape, dtype=dtype) if self._bytes < OWN_BYTES else None

    def __call__(self) -> Tensor:
        """One of them."""
        if self._like is not None:
            return torch.empty_like(self._like)  # half as long as to say its shape and type
        return torch.from_numpy(WORKSPACE.lend(self._bytes).view(self._kind)).view(self._shape)


class _ArgumentSlots:
    """Where a call's tensors stand among the arguments of one of a cell's kernels: their addresses and strides."""

    def __init__(self, cell: CellKernel, direction: Pass) -> None:
        recipe, plan, place = cell.recipe, cell.kernel.plan, cell.kernel.frames[direction].index
        moving = {i.name for i in recipe.graph.inputs if i.rate == Rate.INPUT}
        self.weights = [place[f"weights.{k}"] for k in range(len(plan.fixed))]
        self.inputs = [(place[f"input.{n}"], place[f"ld.input.{n}"] if n in moving else None) for n in recipe.inputs]
        self.begins = [(place[f"begin.{n}"], place[f"step.begin.{n}"]) for n in recipe.states]
        self.starts = [place[f"start.{n}"] for n in recipe.states]
        self.ends = [(place[f"end.{n}"], place[f"step.end.{n}"]) for n in recipe.states]
        self.output, self.ld_output = place["output"], place["ld.output"]
        self.keeping, self.count, self.blocks = place["keeping"], place["count"], place["block.count"]
        self.kept = [(place[name], column) for name, column in cell.kept]
        if direction == "backward":
            self.passing = [(place[name], column) for name, column in cell.passing]
            self.results = [(place[name], begin) for name, begin in cell.results.arrays]
            self.sums = [(place[name], width) for name, width in cell.results.sums]
            self.gradients = [
                (place[f"gradient.{n}"], place[f"ld.gradient.{n}"] if n in moving else None) for n in recipe.inputs
            ]
            self.begin_gradients = [place[f"begin_gradient.{n}"] for n in recipe.states]
            self.start_gradients = [place[f"start_gradient.{n}"] for n in recipe.states]


class KernelCall:
    """One call: its shape, the order in which it goes through rows and steps, and what derivatives are told of it.

    It may be made again and again; what does not depend on its tensors is prepared once.
    """

    __slots__ = (
        "_backward",
        "_bound",
        "backwards",
        "cell",
        "ends",
        "fresh",
        "kept",
        "lengths",
        "output",
        "reset",
        "shape",
        "tables",
    )

    def __init__(
        self,
        cell: CellKernel,
        shape: CallShape,
        tables: Tables,
        fresh: Flags | None,
        backwards: bool,
        lengths: Tensor | None,
        reset: Tensor | None,
    ) -> None:
        self.cell, self.shape, self.tables, self.fresh = cell, shape, tables, fresh
        self.backwards, self.lengths, self.reset = backwards, lengths, reset
        self._bound: dict[Pass, list[Bound]] = {d: [] for d in PASSES}
        self._backward: dict[tuple[bool, ...], KernelBackward] = {}
        T, B = shape.T, shape.B
        self.output, self.kept = cell.room((T, B, cell.recipe.width)), cell.room((T * B * cell.kept_width,))
        self.ends = [cell.room((B, width)) for width in cell.recipe.state_widths]

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

    def carrying(self, to: GradientAccumulator | None, tensors: Sequence[Tensor]) -> Carrying | None:
        """How the call's sums go there."""
        first = self.cell.recipe.parts[2] - self.cell.recipe.parts[0] + self.count
        return None if to is None else Carrying(to, to.targets([*tensors[: self.count], *tensors[first:]]))

    def weights(self, tensors: Sequence[Tensor]) -> tuple[list[int], Any]:
        """Where the values of weights stand, and what must live until a kernel is done."""
        found = [t if t.is_contiguous() else t.contiguous() for t in tensors[: self.count]]
        return [t.data_ptr() for t in found], found

    def gradients(self, needs: Sequence[bool], of_value: Callable[[int], Tensor]) -> list[Tensor | None]:
        """The weights' gradients, from those of the values that a kernel is given, by number."""
        return [of_value(k) if need else None for k, need in enumerate(needs)]

    def take(self, direction: Pass) -> Bound:
        """A kernel whose arguments are those of this call but for its tensors."""
        try:
            return self._bound[direction].pop()
        except IndexError:
            return self.bind(direction)

    def bind(self, direction: Pass) -> Bound:
        """The same, and not one that was given back."""
        given = self.tables.addresses.copy()
        if self.fresh is None:
            given["fresh"] = NEVER_ADDRESS  # starts are read, and not used
            given |= {f"start.{n}": self.cell.zeros_address for n in self.cell.recipe.states}
        else:
            given |= {"fresh": self.fresh.ctypes.data, "fresh.step": 1}
        return self.cell.kernel.bind(direction, self.shape, given)

    def give(self, direction: Pass, bound: Bound) -> None:
        """Put a kernel back, for the next call."""
        self._bound[direction].append(bound)

    def forward(self, tensors: Sequence[Tensor], keeping: bool, y: Tensor | None = None) -> list[Tensor]:
        """The output, in `y` if that is given, the states at the ends, and what is kept for the backward pass."""
        cell, places = self.cell, self.cell.places["forward"]
        bound = self.take("forward")
        arguments = bound.arguments
        alive = self.tell(arguments, places, tensors)
        y = self.output() if y is None else y
        if self.lengths is not None:
            y.zero_()
        arguments[places.output], arguments[places.ld_output] = y.data_ptr(), cell.recipe.width
        found = [y]
        for (place, _), room in zip(places.ends, self.ends, strict=True):
            end = room()
            arguments[place] = end.data_ptr()
            found.append(end)
        kept = NOTHING
        if keeping:
            kept = self.kept()
            self.tell_kept(arguments, places, kept)
        arguments[places.keeping] = cell.keeping(kept) if keeping else 0
        found.append(kept)
        bound()
        del alive
        self.give("forward", bound)
        return found

    def tell(self, arguments: Any, places: _ArgumentSlots, tensors: Sequence[Tensor]) -> list[Any]:
        """Tell a kernel where the call's tensors stand; returned are copies that must live until it is done."""
        recipe = self.cell.recipe
        a, b, c = (n - recipe.parts[0] + self.count for n in recipe.parts)
        addresses, used = self.weights(tensors)
        for place, address in zip(places.weights, addresses, strict=True):
            arguments[place] = address
        alive = [used]
        for (place, ld), tensor in zip(places.inputs, tensors[a:b], strict=True):
            if ld is None:
                found = tensor.contiguous()
            else:
                found, arguments[ld] = evenly(tensor)
            arguments[place] = found.data_ptr()
            alive.append(found)
        for (place, step), tensor in zip(places.begins, tensors[b:c], strict=True):
            found, arguments[step] = rows_of(tensor)
            arguments[place] = found.data_ptr()
            alive.append(found)
        if self.fresh is not None:
            for place, tensor in zip(places.starts, tensors[c:], strict=True):
                found = tensor.contiguous()
                arguments[place] = found.data_ptr()
                alive.append(found)
        return alive

    def tell_kept(self, arguments: Any, places: _ArgumentSlots, kept: Tensor) -> None:
        """Tell a kernel where stands what is kept."""
        base, row_bytes = kept.data_ptr(), self.shape.T * self.shape.B * self.cell.kernel.item
        for place, column in places.kept:
            arguments[place] = base + column * row_bytes

    def backward(
        self,
        needs: Sequence[bool],
        slopes: Sequence[Tensor | None],
        tensors: Sequence[Tensor],
        kept: Tensor,
        carried: Carrying | None = None,
    ) -> list[Tensor | None]:
        """The gradients of those tensors that need one: from those of the output and of the ends (None: zero).

        What is `carried` is None here, and gathered there.
        """
        key = tuple(needs)
        prepared = self._backward.get(key)
        if prepared is None:
            prepared = self._backward[key] = KernelBackward(self, key)
        return prepared.run(self, slopes, tensors, kept, carried)


class KernelBackward:
    """The backward pass of a call, for the gradients that are needed."""

    def __init__(self, call: KernelCall, needs: Sequence[bool]) -> None:
        cell, count = call.cell, call.count
        self.cell, self.places = cell, cell.places["backward"]
        recipe, item, B = cell.recipe, cell.kernel.item, call.shape.B
        self.wanted = call.wanted(needs)
        inputs, states = len(recipe.inputs), len(recipe.states)
        self.inputs = self.wanted[count : count + inputs]
        self.begins = self.wanted[count + inputs : count + inputs + states]
        self.starts = self.wanted[count + inputs + states :]
        self.of_weights = self.wanted[:count]
        self.any_weights = any(self.of_weights)
        tables = call.tables
        self.computed, self.blocks = (len(tables.valid), len(tables.blocks)) if self.any_weights else (0, 0)
        wanted = zip(self.places.start_gradients, recipe.state_widths, self.starts, strict=True)
        self.sums = self.places.sums + [(place, width) for place, width, need in wanted if need]
        # one block of memory: what passes from step to step, then sums, then results that nobody reads
        rows = call.shape.T * B
        self.passing = [(place, column * rows * item) for place, column in self.places.passing]
        self.summed = rows * cell.passing_width * item
        self.beside = self.summed + sum(width for _, width in self.sums) * B * item
        self.size = self.beside + (0 if self.any_weights else cell.results.total * item)

    def run(
        self,
        call: KernelCall,
        slopes: Sequence[Tensor | None],
        tensors: Sequence[Tensor],
        kept: Tensor,
        carried: Carrying | None,
    ) -> list[Tensor | None]:
        """The gradients, of all tensors in their order."""
        bound, block = call.take("backward"), WORKSPACE.take(self.size)
        arguments = bound.arguments
        alive = call.tell(arguments, self.places, tensors)
        call.tell_kept(arguments, self.places, kept)
        of_inputs, of_begins = self.tell(call, arguments, tensors, block)
        given = self._given(call, tensors[0], carried)
        total = self.go(call, bound, slopes, block, self.nothing(call, tensors[0]) if given is None else given)
        del alive
        call.give("backward", bound)
        if given is None:
            finished = self.finished(call, total)
        else:
            given.rows = [rows.copy() for rows in given.rows]
            finished = [None] * (call.count + len(self.starts))
        WORKSPACE.give(block)
        return [*finished[: call.count], *of_inputs, *of_begins, *finished[call.count :]]

    def tell(
        self, call: KernelCall, arguments: Any, tensors: Sequence[Tensor], block: Block
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Tell a kernel where its working memory is, and where the gradients of inputs and beginnings go."""
        for place, begin in self.passing:
            arguments[place] = block.address + begin
        arguments[self.places.count], arguments[self.places.blocks] = self.computed, self.blocks
        return self._inputs(call, arguments, tensors), self._begins(call, arguments)

    def go(self, call: KernelCall, bound: Bound, slopes: Sequence[Tensor | None], block: Block, total: Sums) -> Sums:
        """Run, from these slopes; sums are added to those in total, which then lie in the block in part."""
        arguments = bound.arguments
        alive = _tell_slopes(self.cell, arguments, self.places, slopes)
        base = total.flat.data_ptr() if self.any_weights else block.address + self.beside
        for place, begin in self.places.results:
            arguments[place] = base + begin * self.cell.kernel.item
        sums = self._sums(call, arguments, block, total)
        bound()
        del alive
        slots = call.tables.slots
        total.rows = [s if slots is None else s[slots] for s in sums]
        return total

    def finished(self, call: KernelCall, total: Sums) -> list[Tensor | None]:
        """The gradients of weights and of starts, from the sums over all steps."""
        totals = [torch.from_numpy(np.add.reduce(rows, axis=0)) for rows in total.rows]
        of_starts = iter(totals[len(self.places.sums) :])
        return [
            *self._weights(call, total.flat, totals),
            *(next(of_starts).unsqueeze(0) if need else None for need in self.starts),
        ]

    def _given(self, call: KernelCall, like: Tensor, carried: Carrying | None) -> Sums | None:
        """The sums that later steps have left, where all that is wanted of them can be gathered."""
        if carried is None:
            return None
        wanted = (*self.of_weights, *self.starts)
        targets = tuple(t if want else None for t, want in zip(carried.targets, wanted, strict=True))
        if any(want and t is None for t, want in zip(targets, wanted, strict=True)):
            return None
        key = self.cell, call.shape.B
        return carried.to.sums(key, targets, partial(self.nothing, call, like), partial(self.finished, call))

    def nothing(self, call: KernelCall, like: Tensor) -> Sums:
        """What sums begin with."""
        flat = like.new_zeros(self.cell.results.total) if self.any_weights else NOTHING
        return Sums(flat, [self.cell.zero] * len(self.sums))

    def _sums(self, call: KernelCall, arguments: Any, block: Block, total: Sums) -> list[Array]:
        """What is summed over rows: each slot has a row of its own, so that it does not matter who computes it."""
        found = []
        begin, B = self.summed, call.shape.B
        for (place, width), before in zip(self.sums, total.rows, strict=True):
            end = begin + B * width * self.cell.kernel.item
            rows = block.bytes[begin:end].view(self.cell.numpy_type).reshape(B, width)
            rows[...] = before[call.tables.rows] if before.ndim else before
            arguments[place] = block.address + begin
            found.append(rows)
            begin = end
        return found

    def _inputs(self, call: KernelCall, arguments: Any, tensors: Sequence[Tensor]) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for (place, ld), x, need in zip(self.places.gradients, tensors[call.count :], self.inputs, strict=False):
            if not need:
                arguments[place] = 0
                found.append(None)
                continue
            gradient = self.cell.room(x.shape)()
            if ld is None or call.lengths is not None:
                gradient.zero_()
            arguments[place] = gradient.data_ptr()
            if ld is not None:
                arguments[ld] = gradient.shape[-1]
            found.append(gradient)
        return found

    def _begins(self, call: KernelCall, arguments: Any) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for place, room, need in zip(self.places.begin_gradients, call.ends, self.begins, strict=True):
            gradient = room() if need else None
            arguments[place] = 0 if gradient is None else gradient.data_ptr()
            found.append(gradient)
        return found

    def _weights(self, call: KernelCall, flat: Tensor, totals: Sequence[Tensor]) -> list[Tensor | None]:
        if not self.any_weights:
            return [None] * len(self.of_weights)
        simple = self.cell.simple

        def of_value(k: int) -> Tensor:
            piece = simple[k]
            return flat.as_strided(*piece) if piece is not None else self._joined(k, flat, totals)

        return call.gradients(self.of_weights, of_value)

    def _joined(self, k: int, flat: Tensor, totals: Sequence[Tensor]) -> Tensor:
        """A gradient of several parts."""
        parts = [
            totals[piece.begin] if piece.kind == "sum" else flat.as_strided(piece.size, piece.strides, piece.begin)
            for piece in self.cell.results.pieces[k]
        ]
        whole_gradient = parts[0]
        for part in parts[1:]:
            whole_gradient = whole_gradient + part
        return whole_gradient


def _only_flat(pieces: Sequence[Piece]) -> tuple[tuple[int, ...], tuple[int, ...], int] | None:
    """Size, strides and beginning of a gradient that lies in one piece."""
    if len(pieces) != 1 or pieces[0].kind != "flat":
        return None
    return pieces[0].size, pieces[0].strides, pieces[0].begin


def _tell_slopes(
    cell: CellKernel, arguments: Any, places: _ArgumentSlots, slopes: Sequence[Tensor | None]
) -> list[Tensor]:
    """Tell a kernel the gradients of outputs; where there is none, one row of zeros stands for all."""
    alive: list[Tensor] = []
    dy, *dends = slopes
    if dy is None:
        arguments[places.output], arguments[places.ld_output] = cell.zeros_address, 0
    else:
        dy, arguments[places.ld_output] = evenly(dy)
        arguments[places.output] = dy.data_ptr()
        alive.append(dy)
    for (place, step), d in zip(places.ends, dends, strict=True):
        if d is None:
            arguments[place], arguments[step] = cell.zeros_address, 0
        else:
            found, arguments[step] = rows_of(d)
            arguments[place] = found.data_ptr()
            alive.append(found)
    return alive


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


def rows_of(tensor: Tensor) -> tuple[Tensor, int]:
    """A tensor `[B, size]`, and how many rows each is further than the last: 1, or 0 where all are the same."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if tensor.is_contiguous():
        return tensor, 1
    if tensor.stride(0) == 0 and tensor.stride(1) == 1:
        return tensor, 0
    return tensor.contiguous(), 1
