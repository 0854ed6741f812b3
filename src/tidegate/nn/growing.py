"""A cell's steps, and between them a vector over weights that grows by an outer product after each: no derivatives.

On kernels where there are some, which go through all steps in one call, else step by step by torch's own operations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tidegate.errors import NativeError
from tidegate.native.outer import WORK
from tidegate.native.outer_kernel import OuterKernel, outer_kernel
from tidegate.native.workspace import LINE_BYTES
from tidegate.nn import native
from tidegate.nn.native_call import DTYPES, Call, NativeCell
from tidegate.nn.sequence import Sequence as Run

Tensors = Mapping[str, Tensor]
WORD = 8  # bytes of an argument
NORM = "norm"


@dataclass(frozen=True, eq=False)
class Growing:
    """A part of the vector: `outer` `[B * parts, r, V]`, contiguous, and what is added to it, `rows` `[B * parts, T,
    r]` times `read` `[B * parts, T, V]`."""

    outer: Tensor
    rows: Tensor
    read: Tensor
    parts: int


def grow(
    run: Run,
    weights: Tensors,
    inputs: Tensors,
    state: Tensors,
    found: Tensor,
    once: Tensor,
    vector: Sequence[Growing],
) -> None:
    """Take T steps of a cell without lengths or resets: its output goes to `found` `[T, B, size]`.

    Its inputs are `[T, B, size]`. `state` `[B, size]` is where it begins, and is where it ends afterwards. After each
    step the vector is divided by the last number of the output, gets what is added at this step times `once` `[T, B]`,
    and its size goes to the state `norm` `[B, 1]`, which the cell itself leaves as it is.
    """
    every = [*weights.values(), *inputs.values(), *state.values(), once, *(p.outer for p in vector)]
    fits = native.enabled() and native.fits(run.graph.name, every)
    cell = run.cell(found.dtype, indices=False) if fits else None
    kernel = None if cell is None else _kernel(found.dtype)
    if cell is None or kernel is None:
        _by_steps(run, weights, inputs, state, found, once, vector)
    elif len(found) and found.shape[1]:
        _Natively(cell, kernel, weights, inputs, state, found).run(once, vector)


def shares(keep: Tensor, once: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each addition, and of the vector before, is in the sum over steps of `share` times the vector.

    All are `[T, B]`: `keep` is what the vector is divided by at a step, `once` what an addition is multiplied with.
    Given are `[T, B]` and `[B]`.
    """
    kernel = _kernel(keep.dtype) if native.enabled() and native.unfit([keep, once, share]) is None else None
    once, share = once.contiguous(), share.contiguous()
    found, carried = torch.empty_like(once), once.new_zeros(once.shape[1])
    if kernel is None:
        for t in range(len(keep) - 1, -1, -1):
            here = share[t] + carried
            found[t] = here * once[t]
            carried = here / keep[t]
        return found, carried
    T, B = keep.shape
    given = {"T": T, "B": B, "keep": keep.data_ptr(), "keep.step": keep.stride(0), "keep.row": keep.stride(1)}
    given |= {"once": once.data_ptr(), "share": share.data_ptr()}
    kernel.back({**given, "carried": carried.data_ptr(), "found": found.data_ptr()})
    return found, carried


@lru_cache(maxsize=4)
def _kernel(dtype: torch.dtype) -> OuterKernel | None:
    try:
        return outer_kernel(DTYPES[dtype])
    except NativeError as error:
        native.say_once(f"UORO runs on the reference path: {error}")
        return None


def _by_steps(
    run: Run,
    weights: Tensors,
    inputs: Tensors,
    state: Tensors,
    found: Tensor,
    once: Tensor,
    vector: Sequence[Growing],
) -> None:
    B = found.shape[1]
    for t in range(len(found)):
        with torch.no_grad():
            y, end = run(weights, {n: x[t : t + 1] for n, x in inputs.items()}, dict(state), state)
        found[t] = y[0]
        for name, after in end.items():
            state[name].copy_(after)
        squares = once.new_zeros(B)
        for part in vector:
            shrink, factor = (f.repeat_interleave(part.parts)[:, None, None] for f in (1 / found[t, :, -1], once[t]))
            added = part.rows[:, t].unsqueeze(2) * part.read[:, t].unsqueeze(1)
            part.outer.mul_(shrink).add_(added * factor)
            squares += part.outer.square().sum((1, 2)).view(B, part.parts).sum(1)
        state[NORM].copy_(squares.sqrt().unsqueeze(1))


class _Natively:
    """A call of the cell's kernel for one step, whose arguments move with the steps."""

    def __init__(
        self,
        cell: NativeCell,
        kernel: OuterKernel,
        weights: Tensors,
        inputs: Tensors,
        state: Tensors,
        found: Tensor,
    ) -> None:
        self.kernel, self.found, self.state = kernel, found, state
        recipe, item, (_, B, width) = cell.recipe, cell.kernel.item, found.shape
        steps = {name: _even(inputs[name]) for name in recipe.inputs}
        call: Call = cell.alone(B)
        self.bound = bound = call.bind("forward", own=True)
        places, arguments = cell.places["forward"], bound.arguments
        with torch.no_grad():
            tensors = recipe.tensors(weights, {n: x[:1] for n, x in steps.items()}, state, state)
        self._alive: list[Any] = [call, steps, tensors, call.tell(arguments, places, tensors)]
        for (place, _), name in zip(places.ends, recipe.states, strict=True):
            arguments[place] = state[name].data_ptr()
        arguments[places.output], arguments[places.ld_output] = found.data_ptr(), width
        moving = [(places.output, found.stride(0))]
        moving += [(place, x.stride(0)) for (place, _), x in zip(places.inputs, steps.values(), strict=True)]
        table = [n for place, stride in moving for n in (self._at(place), stride * item)]
        self._moving = (ctypes.c_int64 * len(table))(*table)
        self._packed = cell.kernel.frames["forward"].index["packed"]

    def _at(self, place: int) -> int:
        return ctypes.addressof(self.bound.arguments) + WORD * place

    def run(self, once: Tensor, vector: Sequence[Growing]) -> None:
        """All steps."""
        (T, B, _), keep, norm = self.found.shape, self.found[..., -1], self.state[NORM]
        once = once.contiguous()
        given = {"T": T, "B": B, "function": self.bound.address, "call": self._at(0), "packed": self._at(self._packed)}
        given |= {"moving": ctypes.addressof(self._moving), "movers": len(self._moving) // 2}
        given |= {"keep": keep.data_ptr(), "keep.step": keep.stride(0), "keep.row": keep.stride(1)}
        work = once.new_empty(B, WORK)
        given |= {"once": once.data_ptr(), "norm": norm.data_ptr(), "work": work.data_ptr()}
        alive, blocks, copies = [once, work], [], []
        for part in vector:
            lines = _in_lines(part.outer)
            copies.append((part.outer, lines))
            rows, read = (x if x.stride(2) == 1 else x.contiguous() for x in (part.rows, part.read))
            alive += [rows, read]
            (_, height, width), line = part.outer.shape, lines.shape[2]
            block = {"outer": lines.data_ptr(), "parts": part.parts}
            block |= {"height": height, "width": width, "line": line}
            for name, x in (("rows", rows), ("read", read)):
                block |= {name: x.data_ptr(), f"{name}.step": x.stride(1), f"{name}.part": x.stride(0)}
            blocks.append(block)
        self.kernel.steps(given, blocks)
        for outer, lines in copies:
            outer.copy_(lines[..., : outer.shape[2]])


def _in_lines(outer: Tensor) -> Tensor:
    """A copy whose rows begin with lines of a cache."""
    numbers = LINE_BYTES // outer.element_size()
    width = outer.shape[2]
    return torch.nn.functional.pad(outer, (0, -width % numbers))


def _even(x: Tensor) -> Tensor:
    """A tensor whose steps and rows a kernel finds from one step's."""
    return x if x.stride(2) == 1 and not x.is_neg() else x.contiguous()
