"""Kernels as torch operators, for torch.compile and torch.export: `tidegate::forward` and `tidegate::backward`.

Only compiled and exported programs use them: an operator costs more than a small call. The cell is an argument, as
text, so an exported program runs in a process that has never seen the cell. If kernels cannot run, operators use the
reference path.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tidegate.runtime.autograd import gradients
from tidegate.runtime.kernel_call import KernelCall
from tidegate.runtime.kernel_inputs import KernelInputs, read_kernel_inputs
from tidegate.runtime.support import cell_kernel, refuse_conversion


def operators(
    given: KernelInputs, tensors: list[Tensor], lengths: Tensor | None, reset: Tensor | None, backwards: bool
) -> list[Tensor]:
    """The output and the final states, by an operator in the compiled or exported program."""
    saving = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    found: list[Tensor] = _forward(given.text, given.numbers, given.indices, backwards, saving, tensors, lengths, reset)
    return found[:-1]


@torch.library.custom_op("tidegate::forward", mutates_args=())
def _forward(
    cell: str,
    sizes: Sequence[int],
    indices: bool,
    backwards: bool,
    saving: bool,
    tensors: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
) -> list[Tensor]:
    given = read_kernel_inputs(cell, tuple(sizes), indices)
    given.check_indices(tensors, lengths)
    call = _call(given, tensors, lengths, reset, backwards)
    nothing = tensors[0].new_empty(0)
    if call is not None:
        found = call.forward(tensors, saving)
        return list(found) if saving else [*found[:-1], nothing]
    return [*(t.clone() for t in given.reference(tensors, lengths, reset, backwards)), nothing]


@_forward.register_fake
def _(
    cell: Any, sizes: Any, indices: Any, backwards: Any, saving: Any, tensors: Any, lengths: Any, reset: Any
) -> list[Tensor]:
    if torch.onnx.is_in_onnx_export():
        refuse_conversion()
    given, like = read_kernel_inputs(cell, tuple(sizes), indices), tensors[0]
    T, B = given.steps_and_rows(tensors)
    ends = [like.new_empty((B, width)) for width in given.state_widths]
    return [like.new_empty((T, B, given.width)), *ends, like.new_empty(T * B * given.saved_width if saving else 0)]


@torch.library.custom_op("tidegate::backward", mutates_args=())
def _backward(
    cell: str,
    sizes: Sequence[int],
    indices: bool,
    backwards: bool,
    wanted: Sequence[bool],
    grads: Sequence[Tensor],
    tensors: Sequence[Tensor],
    saved: Tensor,
    lengths: Tensor | None,
    reset: Tensor | None,
) -> list[Tensor]:
    given = read_kernel_inputs(cell, tuple(sizes), indices)
    wanted = given.needs_grad(wanted, reset is not None)
    call = _call(given, tensors, lengths, reset, backwards) if saved.numel() else None
    if call is not None:
        found = call.backward(wanted, grads, tensors, saved)
        return [g.clone(memory_format=torch.contiguous_format) for g in found if g is not None]

    def reference(*some: Tensor) -> tuple[Tensor, ...]:
        return given.reference(some, lengths, reset, backwards)

    return [g.clone() for g in gradients(reference, wanted, grads, tensors)]


@_backward.register_fake
def _(cell: Any, sizes: Any, indices: Any, *given: Any) -> list[Tensor]:
    _, wanted, _, tensors, *_, reset = given
    flowing = read_kernel_inputs(cell, tuple(sizes), indices).needs_grad(wanted, reset is not None)
    return [tensors[0].new_empty(t.shape) for t, want in zip(tensors, flowing, strict=True) if want]


def _call(
    given: KernelInputs, tensors: Sequence[Tensor], lengths: Tensor | None, reset: Tensor | None, backwards: bool
) -> KernelCall | None:
    if not given.has_steps(tensors[given.parts[0] : given.parts[1]], lengths):
        return None
    numbers = [t for t in tensors if t.is_floating_point()]
    cell = cell_kernel(given.graph, given.sizes, numbers, indices=given.indices)
    return None if cell is None else cell.call(*given.steps_and_rows(tensors), backwards, lengths, reset)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *ctx.named, _, tensors, ctx.lengths, ctx.reset = inputs
    ctx.count = len(tensors)
    ctx.shapes = [(t.shape, t.dtype) for t in output[:-1]]
    ctx.save_for_backward(*tensors, output[-1])


def _differentiate(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    *tensors, saved = ctx.saved_tensors
    cell, sizes, indices, backwards = ctx.named
    given = read_kernel_inputs(cell, tuple(sizes), indices)
    wanted = given.needs_grad(ctx.needs_input_grad[5], ctx.reset is not None)
    whole = [
        tensors[0].new_zeros(shape) if d is None else d for d, (shape, _) in zip(grads[:-1], ctx.shapes, strict=True)
    ]
    found = iter(
        _backward(cell, sizes, indices, backwards, wanted, whole, tensors, saved, ctx.lengths, ctx.reset)
        if any(wanted)
        else []
    )
    return None, None, None, None, None, [next(found) if want else None for want in wanted], None, None


_forward.register_autograd(_differentiate, setup_context=_remember)
