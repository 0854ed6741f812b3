"""A cell's kernels with bound sizes, and the argument slots of each tensor."""

from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.equations.values import Rate
from tidegate.errors import ArgumentError, NativeError
from tidegate.native.compile.arguments import PAST_CACHES, CallShape, Pass
from tidegate.native.run.gradient_layout import Piece, backward_arrays, gradient_layout, saved_arrays, saved_widths
from tidegate.native.run.kernel import PASSES, Kernel
from tidegate.native.run.row_order import fresh_starts, ragged, whole
from tidegate.runtime.kernel_call import KernelCall
from tidegate.runtime.kernel_inputs import KernelInputs
from tidegate.runtime.tensors import Allocator

MAX_SHAPES = 256
STREAMED_BYTES = 1 << 23  # saved values of this size bypass the caches: 36.5 -> 28.6 ms at T 784, B 64, H 128
Array = np.ndarray[Any, Any]


class CellKernel:
    """A cell's kernels with bound sizes."""

    def __init__(self, kernel: Kernel, inputs: KernelInputs) -> None:
        plan = kernel.plan
        if len(plan.fixed) != inputs.parts[0]:
            raise NativeError("the kernel's plan needs other values of weights than were prepared")
        self.kernel, self.inputs = kernel, inputs
        self.dtype = torch.float32 if kernel.dtype == "float32" else torch.float64
        self.numpy_type = np.dtype(kernel.dtype)
        of_letters = CallShape(1, 1, 1, False, inputs.sizes, kernel.lanes)
        self.gradients = gradient_layout(plan, of_letters)
        self.saved, self.saved_width = saved_arrays(plan, of_letters)
        self._in_vectors = all(width % kernel.lanes == 0 for width in saved_widths(plan, of_letters))
        self.passing, self.passing_width = backward_arrays(plan, of_letters)
        self.contiguous_pieces = [_contiguous(pieces) for pieces in self.gradients.pieces]
        self.slots = {d: ArgumentSlots(self, d) for d in PASSES}
        self._zeros = np.zeros(max(inputs.width, *inputs.state_widths), self.numpy_type)
        self.zeros_address: int = self._zeros.ctypes.data
        self.zero: Array = np.zeros((), self.numpy_type)
        self._shape = lru_cache(maxsize=MAX_SHAPES)(lambda T, B, count: kernel.shape(T, B, inputs.sizes, count))
        self.allocator = lru_cache(maxsize=MAX_SHAPES)(partial(Allocator, dtype=self.dtype, kind=self.numpy_type))

    def shape(self, T: int, B: int) -> CallShape:
        """The shape of a call of T steps and B rows, divided among torch's threads."""
        return self._shape(T, B, torch.get_num_threads())

    def saving(self, saved: Tensor) -> int:
        """How a kernel writes saved values: bypassing the caches if these cannot hold them until the backward pass."""
        streamed = self._in_vectors and saved.numel() * self.kernel.item >= STREAMED_BYTES
        return PAST_CACHES if streamed else 1

    def call(
        self, T: int, B: int, backwards: bool = False, lengths: Tensor | None = None, reset: Tensor | None = None
    ) -> KernelCall:
        """A call of T steps and B rows."""
        shape = self.shape(T, B)
        order = whole(T, B, backwards) if lengths is None else ragged(_checked(lengths, T, B), shape, backwards)
        fresh = None if reset is None else fresh_starts(_array(reset), order, backwards)
        return KernelCall(self, shape, order, fresh, backwards, lengths, reset)


class ArgumentSlots:
    """The slots of a call's tensors among the arguments of one of a cell's kernels: addresses and strides."""

    def __init__(self, cell: CellKernel, direction: Pass) -> None:
        inputs, plan, slot = cell.inputs, cell.kernel.plan, cell.kernel.frames[direction].index
        moving = {i.name for i in inputs.graph.inputs if i.rate == Rate.INPUT}
        self.weights = [slot[f"weights.{k}"] for k in range(len(plan.fixed))]
        self.inputs = [(slot[f"input.{n}"], slot[f"ld.input.{n}"] if n in moving else None) for n in inputs.inputs]
        self.initial_states = [(slot[f"begin.{n}"], slot[f"step.begin.{n}"]) for n in inputs.states]
        self.starts = [slot[f"start.{n}"] for n in inputs.states]
        self.final_states = [(slot[f"end.{n}"], slot[f"step.end.{n}"]) for n in inputs.states]
        self.output, self.ld_output = slot["output"], slot["ld.output"]
        self.saving, self.count, self.blocks = slot["keeping"], slot["count"], slot["block.count"]
        self.saved = [(slot[name], column) for name, column in cell.saved]
        if direction == "backward":
            self.passing = [(slot[name], column) for name, column in cell.passing]
            self.results = [(slot[name], begin) for name, begin in cell.gradients.arrays]
            self.sums = [(slot[name], width) for name, width in cell.gradients.sums]
            self.input_gradients = [
                (slot[f"gradient.{n}"], slot[f"ld.gradient.{n}"] if n in moving else None) for n in inputs.inputs
            ]
            self.initial_gradients = [slot[f"begin_gradient.{n}"] for n in inputs.states]
            self.start_gradients = [slot[f"start_gradient.{n}"] for n in inputs.states]


def _array(tensor: Tensor) -> Array:
    with torch._C._DisableFuncTorch():  # inside a transform even plain tensors would be wrapped
        found: Array = tensor.numpy()
    return found


def _checked(lengths: Tensor, T: int, B: int) -> Array:
    found = _array(lengths)
    if found.shape != (B,) or found.min() < 0 or found.max() > T:  # the only check of lengths in an exported program
        raise ArgumentError(f"lengths must be {B} whole numbers between 0 and {T}, got {found.tolist()}")
    return found


def _contiguous(pieces: tuple[Piece, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int] | None:
    """Size, strides and offset of a gradient that is contiguous in one array."""
    if len(pieces) != 1 or pieces[0].kind != "flat":
        return None
    return pieces[0].size, pieces[0].strides, pieces[0].begin
