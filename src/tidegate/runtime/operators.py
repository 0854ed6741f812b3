"""Kernels as operators of torch's library, for torch.compile and torch.export: `tidegate::forward` and `::backward`.

Elsewhere nothing goes through them, for an operator costs more than a small call. An operator is told its cell as text,
so that an exported program runs in a process that has never seen the cell. Where there are no kernels, it computes by
the reference path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tidegate.nn.torchscript import refuse_onnx
from tidegate.runtime import support
from tidegate.runtime.autograd import gradients
from tidegate.runtime.kernel_call import KernelCall
from tidegate.runtime.kernel_inputs import KernelInputs, read_recipe


def operators(
    recipe: KernelInputs, tensors: list[Tensor], lengths: Tensor | None, reset: Tensor | None, backwards: bool
) -> list[Tensor]:
    """The output and the states at the ends, by an operator in what is being compiled or exported."""
    keeping = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    found: list[Tensor] = _forward(
        recipe.text, recipe.numbers, recipe.indices, backwards, keeping, tensors, lengths, reset
    )
    return found[:-1]


@torch.library.custom_op("tidegate::forward", mutates_args=())
def _forward(
    cell: str,
    sizes: Sequence[int],
    indices: bool,
    backwards: bool,
    keeping: bool,
    tensors: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
) -> list[Tensor]:
    recipe = read_recipe(cell, tuple(sizes), indices)
    recipe.check_indices(tensors, lengths)
    call = _call(recipe, tensors, lengths, reset, backwards)
    nothing = tensors[0].new_empty(0)
    if call is not None:
        found = call.forward(tensors, keeping)
        return list(found) if keeping else [*found[:-1], nothing]
    return [*(t.clone() for t in recipe.reference(tensors, lengths, reset, backwards)), nothing]


@_forward.register_fake
def _(
    cell: str,
    sizes: Sequence[int],
    indices: bool,
    backwards: bool,
    keeping: bool,
    tensors: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
) -> list[Tensor]:
    refuse_onnx()
    recipe, like = read_recipe(cell, tuple(sizes), indices), tensors[0]
    T, B = recipe.steps_and_rows(tensors)
    ends = [like.new_empty((B, width)) for width in recipe.state_widths]
    return [like.new_empty((T, B, recipe.width)), *ends, like.new_empty(T * B * recipe.kept_width if keeping else 0)]


@torch.library.custom_op("tidegate::backward", mutates_args=())
def _backward(
    cell: str,
    sizes: Sequence[int],
    indices: bool,
    backwards: bool,
    wanted: Sequence[bool],
    slopes: Sequence[Tensor],
    tensors: Sequence[Tensor],
    kept: Tensor,
    lengths: Tensor | None,
    reset: Tensor | None,
) -> list[Tensor]:
    recipe = read_recipe(cell, tuple(sizes), indices)
    wanted = recipe.wanted(wanted, reset is not None)
    call = _call(recipe, tensors, lengths, reset, backwards) if kept.numel() else None
    if call is not None:
        found = call.backward(wanted, slopes, tensors, kept)
        return [g.clone(memory_format=torch.contiguous_format) for g in found if g is not None]

    def reference(*given: Tensor) -> tuple[Tensor, ...]:
        return recipe.reference(given, lengths, reset, backwards)

    return [g.clone() for g in gradients(reference, wanted, slopes, tensors)]


@_backward.register_fake
def _(
    cell: str,
    sizes: Sequence[int],
    indices: bool,
    backwards: bool,
    wanted: Sequence[bool],
    slopes: Sequence[Tensor],
    tensors: Sequence[Tensor],
    kept: Tensor,
    lengths: Tensor | None,
    reset: Tensor | None,
) -> list[Tensor]:
    flowing = read_recipe(cell, tuple(sizes), indices).wanted(wanted, reset is not None)
    return [tensors[0].new_empty(t.shape) for t, want in zip(tensors, flowing, strict=True) if want]


def _call(
    recipe: KernelInputs, tensors: Sequence[Tensor], lengths: Tensor | None, reset: Tensor | None, backwards: bool
) -> KernelCall | None:
    inputs = tensors[recipe.parts[0] : recipe.parts[1]]
    numbers = [t for t in tensors if t.is_floating_point()]
    if not support.enabled() or not tensors[0].is_cpu or not recipe.has_steps(inputs, lengths):
        return None
    if not support.fits(recipe.graph.name, numbers):
        return None
    cell = support.native_cell(recipe, recipe.graph.name, tensors[0].dtype)
    return None if cell is None else cell.call(*recipe.steps_and_rows(tensors), backwards, lengths, reset)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *ctx.named, _, tensors, ctx.lengths, ctx.reset = inputs
    ctx.count = len(tensors)
    ctx.shapes = [(t.shape, t.dtype) for t in output[:-1]]
    ctx.save_for_backward(*tensors, output[-1])


def _differentiate(ctx: Any, slopes: list[Tensor | None]) -> tuple[Any, ...]:
    *tensors, kept = ctx.saved_tensors
    cell, sizes, indices, backwards = ctx.named
    recipe = read_recipe(cell, tuple(sizes), indices)
    wanted = recipe.wanted(ctx.needs_input_grad[5], ctx.reset is not None)
    whole = [
        tensors[0].new_zeros(shape) if d is None else d for d, (shape, _) in zip(slopes[:-1], ctx.shapes, strict=True)
    ]
    found = iter(
        _backward(cell, sizes, indices, backwards, wanted, whole, tensors, kept, ctx.lengths, ctx.reset)
        if any(wanted)
        else []
    )
    return None, None, None, None, None, [next(found) if want else None for want in wanted], None, None


_forward.register_autograd(_differentiate, setup_context=_remember)
