"""The backward pass of a kernel call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tidegate.native.run.workspace import WORKSPACE, Block
from tidegate.runtime.gradient_accumulator import AccumulatedCall, PartialSums
from tidegate.runtime.tensors import rows_of, with_row_stride

if TYPE_CHECKING:
    from tidegate.runtime.kernel_call import KernelCall

Array = np.ndarray[Any, Any]
Optional = Tensor | None


class KernelBackward:
    """The backward pass of a call, for the gradients that are needed."""

    def __init__(self, call: KernelCall, needs: Sequence[bool]) -> None:
        cell, count = call.cell, call.count
        self.cell, self.slots = cell, cell.slots["backward"]
        given, item, B = cell.inputs, cell.kernel.item, call.shape.B
        needed = call.needs_grad(needs)
        inputs, states = len(given.inputs), len(given.states)
        self.inputs = needed[count : count + inputs]
        self.initial_states = needed[count + inputs : count + inputs + states]
        self.starts = needed[count + inputs + states :]
        self.weights = needed[:count]
        self.any_weights = any(self.weights)
        order = call.order
        self.computed, self.blocks = (len(order.valid), len(order.blocks)) if self.any_weights else (0, 0)
        starts = zip(self.slots.start_gradients, given.state_widths, self.starts, strict=True)
        self.sums = self.slots.sums + [(slot, width) for slot, width, need in starts if need]
        # one block of memory: carried values, then sums, then unused results
        rows = call.shape.T * B
        self.passing = [(slot, column * rows * item) for slot, column in self.slots.passing]
        self.summed = rows * cell.passing_width * item
        self.beside = self.summed + sum(width for _, width in self.sums) * B * item
        self.size = self.beside + (0 if self.any_weights else cell.gradients.total * item)

    def __call__(
        self,
        call: KernelCall,
        output_gradients: Sequence[Optional],
        tensors: Sequence[Tensor],
        saved: Tensor,
        accumulated: AccumulatedCall | None,
    ) -> list[Optional]:
        """The gradients of all tensors in order, None for those that are not needed."""
        bound, block = call.acquire("backward"), WORKSPACE.acquire(self.size)
        arguments = bound.arguments
        alive = call.set_pointers(arguments, self.slots, tensors)
        call.set_saved(arguments, self.slots, saved)
        for slot, begin in self.passing:
            arguments[slot] = block.address + begin
        arguments[self.slots.count], arguments[self.slots.blocks] = self.computed, self.blocks
        of_inputs = self._input_gradients(call, arguments, tensors)
        of_states = self._initial_gradients(call, arguments)
        alive.append(self._set_output_gradients(arguments, output_gradients))
        given = self._accumulated(call, tensors[0], accumulated)
        total = self.zero_sums(tensors[0]) if given is None else given
        base = total.flat.data_ptr() if self.any_weights else block.address + self.beside
        for slot, begin in self.slots.results:
            arguments[slot] = base + begin * self.cell.kernel.item
        sums = self._set_sums(call, arguments, block, total)
        bound()
        del alive
        slots = call.order.slots
        total.rows = [s if slots is None else s[slots] for s in sums]
        call.release("backward", bound)
        if given is None:
            finished = self.finished(call, total)
        else:
            given.rows = [rows.copy() for rows in given.rows]
            finished = [None] * (call.count + len(self.starts))
        WORKSPACE.release(block)
        return [*finished[: call.count], *of_inputs, *of_states, *finished[call.count :]]

    def finished(self, call: KernelCall, total: PartialSums) -> list[Optional]:
        """The gradients of weights and starts, from the sums over all steps."""
        totals = [torch.from_numpy(np.add.reduce(rows, axis=0)) for rows in total.rows]
        of_starts = iter(totals[len(self.slots.sums) :])
        return [
            *self._weight_gradients(call, total.flat, totals),
            *(next(of_starts).unsqueeze(0) if need else None for need in self.starts),
        ]

    def zero_sums(self, like: Tensor) -> PartialSums:
        """The initial sums."""
        flat = like.new_zeros(self.cell.gradients.total if self.any_weights else 0)
        return PartialSums(flat, [self.cell.zero] * len(self.sums))

    def _accumulated(self, call: KernelCall, like: Tensor, into: AccumulatedCall | None) -> PartialSums | None:
        """The sums of later steps, if all gradients of weights and starts go to the accumulator."""
        if into is None:
            return None
        needed = (*self.weights, *self.starts)
        targets = tuple(t if need else None for t, need in zip(into.targets, needed, strict=True))
        if any(need and t is None for t, need in zip(targets, needed, strict=True)):
            return None
        key = self.cell, call.shape.B
        return into.accumulator.sums(key, targets, partial(self.zero_sums, like), partial(self.finished, call))

    def _set_output_gradients(self, arguments: Any, given: Sequence[Optional]) -> list[Tensor]:
        """Set the gradients of the output and the final states; a single row of zeros for zero gradients."""
        alive: list[Tensor] = []
        slots, (dy, *d_states) = self.slots, given
        if dy is None:
            arguments[slots.output], arguments[slots.ld_output] = self.cell.zeros_address, 0
        else:
            dy, arguments[slots.ld_output] = with_row_stride(dy)
            arguments[slots.output] = dy.data_ptr()
            alive.append(dy)
        for (slot, step), d in zip(slots.final_states, d_states, strict=True):
            if d is None:
                arguments[slot], arguments[step] = self.cell.zeros_address, 0
            else:
                found, arguments[step] = rows_of(d)
                arguments[slot] = found.data_ptr()
                alive.append(found)
        return alive

    def _set_sums(self, call: KernelCall, arguments: Any, block: Block, total: PartialSums) -> list[Array]:
        """Set the sums over rows: one row per slot, whichever thread computes it."""
        found = []
        begin, B = self.summed, call.shape.B
        for (slot, width), before in zip(self.sums, total.rows, strict=True):
            end = begin + B * width * self.cell.kernel.item
            rows = block.bytes[begin:end].view(self.cell.numpy_type).reshape(B, width)
            rows[...] = before[call.order.rows] if before.ndim else before
            arguments[slot] = block.address + begin
            found.append(rows)
            begin = end
        return found

    def _input_gradients(self, call: KernelCall, arguments: Any, tensors: Sequence[Tensor]) -> list[Optional]:
        found: list[Optional] = []
        for (slot, ld), x, need in zip(self.slots.input_gradients, tensors[call.count :], self.inputs, strict=False):
            if not need:
                arguments[slot] = 0
                found.append(None)
                continue
            gradient = self.cell.allocator(x.shape)()
            if ld is None or call.lengths is not None:
                gradient.zero_()
            arguments[slot] = gradient.data_ptr()
            if ld is not None:
                arguments[ld] = gradient.shape[-1]
            found.append(gradient)
        return found

    def _initial_gradients(self, call: KernelCall, arguments: Any) -> list[Optional]:
        found: list[Optional] = []
        slots, allocators = self.slots.initial_gradients, call.allocate_final_states
        for slot, allocate, need in zip(slots, allocators, self.initial_states, strict=True):
            gradient = allocate() if need else None
            arguments[slot] = 0 if gradient is None else gradient.data_ptr()
            found.append(gradient)
        return found

    def _weight_gradients(self, call: KernelCall, flat: Tensor, totals: Sequence[Tensor]) -> list[Optional]:
        if not self.any_weights:
            return [None] * len(self.weights)
        contiguous = self.cell.contiguous_pieces

        def of_value(k: int) -> Tensor:
            piece = contiguous[k]
            return flat.as_strided(*piece) if piece is not None else self._joined(k, flat, totals)

        return call.weight_gradients(self.weights, of_value)

    def _joined(self, k: int, flat: Tensor, totals: Sequence[Tensor]) -> Tensor:
        """The sum of a gradient's parts."""
        parts = [
            totals[piece.begin] if piece.kind == "sum" else flat.as_strided(piece.size, piece.strides, piece.begin)
            for piece in self.cell.gradients.pieces[k]
        ]
        return reduce(add, parts)
