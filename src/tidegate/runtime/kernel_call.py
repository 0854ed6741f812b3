"""`KernelCall`: a call of a cell's kernels on torch's tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tidegate.native.compile.arguments import CallShape, Pass
from tidegate.native.run.kernel import PASSES, Bound
from tidegate.native.run.row_order import NEVER_ADDRESS, Flags, RowOrder
from tidegate.runtime.gradient_accumulator import AccumulatedCall, GradientAccumulator
from tidegate.runtime.kernel_backward import KernelBackward
from tidegate.runtime.tensors import rows_of, with_row_stride

if TYPE_CHECKING:
    from tidegate.runtime.cell_kernel import ArgumentSlots, CellKernel

NOTHING = torch.empty(0)


class KernelCall:
    """One call: its shape, its order of rows and steps, and the information for derivatives.

    It is reusable: whatever does not depend on its tensors is prepared once. Its tensors are one list: weights, inputs,
    initial states, starts.
    """

    def __init__(
        self,
        cell: CellKernel,
        shape: CallShape,
        order: RowOrder,
        fresh: Flags | None,
        backwards: bool,
        lengths: Tensor | None,
        reset: Tensor | None,
    ) -> None:
        self.cell, self.shape, self.order, self.fresh = cell, shape, order, fresh
        self.backwards, self.lengths, self.reset = backwards, lengths, reset
        self._bound: dict[Pass, list[Bound]] = {d: [] for d in PASSES}
        self._backward: dict[tuple[bool, ...], KernelBackward] = {}
        T, B = shape.T, shape.B
        self.allocate_output = cell.allocator((T, B, cell.inputs.width))
        self.allocate_saved = cell.allocator((T * B * cell.saved_width,))
        self.allocate_final_states = [cell.allocator((B, width)) for width in cell.inputs.state_widths]

    @property
    def count(self) -> int:
        """The number of a call's tensors that are weights; they come first."""
        return self.cell.inputs.parts[0]

    def needs_grad(self, needs: Sequence[bool]) -> list[bool]:
        """The tensors that need a gradient and get one."""
        return self.cell.inputs.needs_grad(needs, self.reset is not None)

    def reference(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The call's results by torch's own operations."""
        return self.cell.inputs.reference(tensors, self.lengths, self.reset, self.backwards)

    def accumulated(self, into: GradientAccumulator | None, tensors: Sequence[Tensor]) -> AccumulatedCall | None:
        """The accumulated form of the call, if an accumulator is active."""
        first = self.cell.inputs.parts[2] - self.cell.inputs.parts[0] + self.count
        return None if into is None else AccumulatedCall(into, into.targets([*tensors[: self.count], *tensors[first:]]))

    def weights(self, tensors: Sequence[Tensor]) -> tuple[list[int], Any]:
        """The addresses of the values of weights, and the tensors that must stay alive until a kernel has run."""
        found = [t if t.is_contiguous() else t.contiguous() for t in tensors[: self.count]]
        return [t.data_ptr() for t in found], found

    def weight_gradients(self, needs: Sequence[bool], of_value: Callable[[int], Tensor]) -> list[Tensor | None]:
        """The weights' gradients, from those of the values given to a kernel, by index."""
        return [of_value(k) if need else None for k, need in enumerate(needs)]

    def acquire(self, direction: Pass) -> Bound:
        """A kernel with this call's arguments, except its tensors."""
        try:
            return self._bound[direction].pop()
        except IndexError:
            pass
        given = self.order.addresses.copy()
        if self.fresh is None:
            given["fresh"] = NEVER_ADDRESS  # starts are read but not used
            given |= {f"start.{n}": self.cell.zeros_address for n in self.cell.inputs.states}
        else:
            given |= {"fresh": self.fresh.ctypes.data, "fresh.step": 1}
        return self.cell.kernel.bind(direction, self.shape, given)

    def release(self, direction: Pass, bound: Bound) -> None:
        """Return a kernel for reuse by the next call."""
        self._bound[direction].append(bound)

    def forward(self, tensors: Sequence[Tensor], saving: bool, y: Tensor | None = None) -> list[Tensor]:
        """The output (in `y` if given), the final states, and the values saved for the backward pass."""
        cell, slots = self.cell, self.cell.slots["forward"]
        bound = self.acquire("forward")
        arguments = bound.arguments
        alive = self.set_pointers(arguments, slots, tensors)
        y = self.allocate_output() if y is None else y
        if self.lengths is not None:
            y.zero_()
        arguments[slots.output], arguments[slots.ld_output] = y.data_ptr(), cell.inputs.width
        found = [y]
        for (slot, _), allocate in zip(slots.final_states, self.allocate_final_states, strict=True):
            end = allocate()
            arguments[slot] = end.data_ptr()
            found.append(end)
        saved = NOTHING
        if saving:
            saved = self.allocate_saved()
            self.set_saved(arguments, slots, saved)
        arguments[slots.saving] = cell.saving(saved) if saving else 0
        found.append(saved)
        bound()
        del alive
        self.release("forward", bound)
        return found

    def bind_forward(self, tensors: Sequence[Tensor], y: Tensor, final_states: Sequence[Tensor]) -> Bound:
        """Bind the forward kernel to these contiguous tensors, `y` and final states; nothing is saved."""
        bound, slots = self.acquire("forward"), self.cell.slots["forward"]
        self.set_pointers(bound.arguments, slots, tensors)
        bound.arguments[slots.output], bound.arguments[slots.ld_output] = y.data_ptr(), self.cell.inputs.width
        for (slot, _), end in zip(slots.final_states, final_states, strict=True):
            bound.arguments[slot] = end.data_ptr()
        bound.arguments[slots.saving] = 0
        return bound

    def set_pointers(self, arguments: Any, slots: ArgumentSlots, tensors: Sequence[Tensor]) -> list[Any]:
        """Set the addresses of the call's tensors; returns the copies that must stay alive until the kernel has run."""
        inputs = self.cell.inputs
        a, b, c = (n - inputs.parts[0] + self.count for n in inputs.parts)
        addresses, used = self.weights(tensors)
        for slot, address in zip(slots.weights, addresses, strict=True):
            arguments[slot] = address
        alive = [used]
        for (slot, ld), tensor in zip(slots.inputs, tensors[a:b], strict=True):
            if ld is None:
                found = tensor.contiguous()
            else:
                found, arguments[ld] = with_row_stride(tensor)
            arguments[slot] = found.data_ptr()
            alive.append(found)
        for (slot, step), tensor in zip(slots.initial_states, tensors[b:c], strict=True):
            found, arguments[step] = rows_of(tensor)
            arguments[slot] = found.data_ptr()
            alive.append(found)
        if self.fresh is not None:
            for slot, tensor in zip(slots.starts, tensors[c:], strict=True):
                found = tensor.contiguous()
                arguments[slot] = found.data_ptr()
                alive.append(found)
        return alive

    def set_saved(self, arguments: Any, slots: ArgumentSlots, saved: Tensor) -> None:
        """Set the addresses of the saved values."""
        base, row_bytes = saved.data_ptr(), self.shape.T * self.shape.B * self.cell.kernel.item
        for slot, column in slots.saved:
            arguments[slot] = base + column * row_bytes

    def backward(
        self,
        needs: Sequence[bool],
        output_gradients: Sequence[Tensor | None],
        tensors: Sequence[Tensor],
        saved: Tensor,
        accumulated: AccumulatedCall | None = None,
    ) -> list[Tensor | None]:
        """The gradients of the tensors that need one, from those of the output and of the final states (None: zero).

        With `accumulated`, gradients of weights and starts are summed there and None here.
        """
        key = tuple(needs)
        prepared = self._backward.get(key)
        if prepared is None:
            prepared = self._backward[key] = KernelBackward(self, key)
        return prepared(self, output_gradients, tensors, saved, accumulated)
