"""A cell's steps, and between them a vector over weights that grows by an outer product after each: no derivatives.

On kernels where there are some, which go through all steps in one call, else step by step by torch's own operations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tidegate.errors import NativeError
from tidegate.native.outer import BACK, SQUARES, STEPS, WORK
from tidegate.native.outer_kernel import OuterKernel, outer_kernel
from tidegate.native.run.workspace import LINE_BYTES
from tidegate.runtime import support
from tidegate.runtime.kernel_call import DTYPES, CellKernel
from tidegate.runtime.unroll import Unroll as Run

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


@dataclass(frozen=True, eq=False)
class Course:
    """T steps of a cell without lengths or resets.

    Its `inputs` are `[T, B, size]`, its output goes to `found` `[T, B, size]`. `state` `[B, size]` is where it begins,
    and is where it ends afterwards. After each step a vector is divided by the last number of the output, gets what is
    added at this step times `once` `[T, B]`, and its size goes to the state `norm` `[B, 1]`, which the cell itself
    leaves as it is.
    """

    inputs: Tensors
    state: Tensors
    found: Tensor
    once: Tensor


def grow(run: Run, weights: Tensors, course: Course, vector: Sequence[Growing]) -> None:
    """Take the steps, and have the vector grow between them."""
    found, once = course.found, course.once
    every = [*weights.values(), *course.inputs.values(), *course.state.values(), once, *(p.outer for p in vector)]
    fits = support.enabled() and support.fits(run.graph.name, every)
    cell = run.cell(found.dtype, indices=False) if fits else None
    kernel = None if cell is None else outer(found.dtype)
    if cell is None or kernel is None:
        _by_steps(run, weights, course, vector)
    elif len(found) and found.shape[1]:
        lines = [_in_lines(p.outer) for p in vector]
        Growth(cell, kernel, weights, replace(course, once=once.contiguous()), vector, lines)()
        for part, held in zip(vector, lines, strict=True):
            part.outer.copy_(held[..., : part.outer.shape[2]])


def shares(keep: Tensor, once: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each addition, and of the vector before, is in the sum over steps of `share` times the vector.

    All are `[T, B]`: `keep` is what the vector is divided by at a step, `once` what an addition is multiplied with.
    Given are `[T, B]` and `[B]`.
    """
    kernel = outer(keep.dtype) if support.enabled() and support.unfit([keep, once, share]) is None else None
    once, share = once.contiguous(), share.contiguous()
    found, carried = torch.empty_like(once), once.new_zeros(once.shape[1])
    if kernel is None:
        for t in range(len(keep) - 1, -1, -1):
            here = share[t] + carried
            found[t] = here * once[t]
            carried = here / keep[t]
        return found, carried
    bind_shares(kernel, keep, once, share, found, carried)()
    return found, carried


def bind_shares(
    kernel: OuterKernel, keep: Tensor, once: Tensor, share: Tensor, found: Tensor, carried: Tensor
) -> Callable[[], None]:
    """The same again and again between tensors that stay where they are, contiguous but for `keep`."""
    T, B = keep.shape
    given = {"T": T, "B": B, "keep": keep.data_ptr(), "keep.step": keep.stride(0), "keep.row": keep.stride(1)}
    given |= {"once": once.data_ptr(), "share": share.data_ptr()}
    return kernel.bind(BACK, {**given, "carried": carried.data_ptr(), "found": found.data_ptr()})


def bind_squares(kernel: OuterKernel, vector: Sequence[Growing], found: Tensor) -> Callable[[], None]:
    """The square of the size of what is added at each step, to `found` `[T, B]`, again and again as above."""
    T, B = found.shape
    return kernel.bind(SQUARES, {"T": T, "B": B, "found": found.data_ptr()}, [_block(p, p.outer) for p in vector])


@lru_cache(maxsize=4)
def outer(dtype: torch.dtype) -> OuterKernel | None:
    """The vector's kernels; where there are none, that is said once, with the reason."""
    try:
        return outer_kernel(DTYPES[dtype])
    except NativeError as error:
        support.say_once(f"UORO runs on the reference path: {error}")
        return None


def _by_steps(run: Run, weights: Tensors, course: Course, vector: Sequence[Growing]) -> None:
    state, found, once = course.state, course.found, course.once
    B = found.shape[1]
    for t in range(len(found)):
        with torch.no_grad():
            y, end = run(weights, {n: x[t : t + 1] for n, x in course.inputs.items()}, dict(state), state)
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


class Growth:
    """Steps of a cell's kernel, whose arguments move with them, and of the vector between, to be taken again and again.

    All tensors stay where they are; `lines` hold the parts of the vector, each row on the border of a cache's line.
    """

    def __init__(
        self,
        cell: CellKernel,
        kernel: OuterKernel,
        weights: Tensors,
        course: Course,
        vector: Sequence[Growing],
        lines: Sequence[Tensor],
    ) -> None:
        state, found, once = course.state, course.found, course.once
        recipe, item, (T, B, width) = cell.recipe, cell.kernel.item, found.shape
        steps = {name: _even(course.inputs[name]) for name in recipe.inputs}
        self._recipe, self._call = recipe, cell.alone(B)
        self._bound = bound = self._call.bind("forward", own=True)
        self._places, arguments = cell.places["forward"], bound.arguments
        with torch.no_grad():
            tensors = recipe.tensors(weights, {n: x[:1] for n, x in steps.items()}, state, state)
        alive = self._call.tell(arguments, self._places, tensors)
        for (place, _), name in zip(self._places.ends, recipe.states, strict=True):
            arguments[place] = state[name].data_ptr()
        arguments[self._places.output], arguments[self._places.ld_output] = found.data_ptr(), width
        moving = [(self._places.output, found.stride(0))]
        moving += [(place, x.stride(0)) for (place, _), x in zip(self._places.inputs, steps.values(), strict=True)]
        self._begin = [(place, arguments[place]) for place, _ in moving]
        table = [n for place, stride in moving for n in (self._at(place), stride * item)]
        moved = (ctypes.c_int64 * len(table))(*table)
        self._packed = cell.kernel.frames["forward"].index["packed"]
        keep, norm, work = found[..., -1], state[NORM], once.new_empty(B, WORK)
        given = {"T": T, "B": B, "function": bound.address, "call": self._at(0), "packed": self._at(self._packed)}
        given |= {"moving": ctypes.addressof(moved), "movers": len(table) // 2}
        given |= {"keep": keep.data_ptr(), "keep.step": keep.stride(0), "keep.row": keep.stride(1)}
        given |= {"once": once.data_ptr(), "norm": norm.data_ptr(), "work": work.data_ptr()}
        vector = [_in_rows(p) for p in vector]
        self._steps = kernel.bind(STEPS, given, [_block(p, at) for p, at in zip(vector, lines, strict=True)])
        self._alive: list[Any] = [course, steps, tensors, alive, moved, work, vector, lines]

    def _at(self, place: int) -> int:
        return ctypes.addressof(self._bound.arguments) + WORD * place

    def __call__(self) -> None:
        """All steps, once."""
        self._steps()

    def again(self, weights: Tensors) -> None:
        """All steps from the first one on, with these weights, and whatever stands in the tensors now."""
        arguments = self._bound.arguments
        addresses, alive = self._call.weights(self._recipe.fixed(weights))
        for place, address in (*zip(self._places.weights, addresses, strict=True), *self._begin, (self._packed, 0)):
            arguments[place] = address
        self._steps()
        del alive


def _block(part: Growing, at: Tensor) -> dict[str, int]:
    """What kernels are told of a part of the vector that stands there."""
    (_, height, width), line = part.outer.shape, at.shape[2]
    block = {"outer": at.data_ptr(), "parts": part.parts, "height": height, "width": width, "line": line}
    for name, x in (("rows", part.rows), ("read", part.read)):
        block |= {name: x.data_ptr(), f"{name}.step": x.stride(1), f"{name}.part": x.stride(0)}
    return block


def _in_rows(part: Growing) -> Growing:
    rows, read = (x if x.stride(2) == 1 else x.contiguous() for x in (part.rows, part.read))
    return replace(part, rows=rows, read=read)


def lines_of(shape: Sequence[int], like: Tensor) -> list[int]:
    """The shape of a part of the vector whose rows begin with lines of a cache."""
    numbers = LINE_BYTES // like.element_size()
    return [*shape[:-1], -(-shape[-1] // numbers) * numbers]


def _in_lines(outer: Tensor) -> Tensor:
    """A copy whose rows begin with lines of a cache."""
    width = outer.shape[2]
    return torch.nn.functional.pad(outer, (0, lines_of(outer.shape, outer)[-1] - width))


def _even(x: Tensor) -> Tensor:
    """A tensor whose steps and rows a kernel finds from one step's."""
    return x if x.stride(2) == 1 and not x.is_neg() else x.contiguous()
