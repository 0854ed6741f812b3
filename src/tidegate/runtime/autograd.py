"""Derivatives of kernels, to any order and under all of torch's transforms.

The first backward pass has its own kernels. Everything else (forward mode, vmap, higher derivatives) differentiates the
reference path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import Function

from tidegate.runtime import gradient_accumulator
from tidegate.runtime.kernel_call import NOTHING, KernelCall

Optional = Tensor | None
Results = tuple[Tensor, ...]


def run(call: KernelCall, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The output and the final states."""
    found: Sequence[Tensor]
    if _transformed():
        found = _TransformedFunction.apply(call, *tensors)  # type: ignore[no-untyped-call]
    elif torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        found = _ForwardFunction.apply(call, *tensors)  # type: ignore[no-untyped-call]
    else:
        found = call.forward(tensors, saving=False)
    return found[:-1]


def _transformed() -> bool:
    """Whether anything besides plain reverse mode is active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


class _ForwardFunction(Function):
    """A call in plain reverse mode; its last result is what the backward pass reads.

    A Function that supports torch's transforms would cost twenty microseconds more.
    """

    @staticmethod
    def forward(ctx: Any, call: KernelCall, *tensors: Tensor) -> Results:
        output = tuple(call.forward(tensors, saving=True))
        _remember(ctx, call, tensors, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Optional) -> tuple[Optional, ...]:
        call: KernelCall = ctx.call
        needs = ctx.needs_input_grad[1:]
        if all(d is None for d in grads):
            return (None,) * (1 + len(needs))
        *tensors, saved = ctx.saved_tensors
        if torch.is_grad_enabled() or _transformed():
            wanted = tuple(call.needs_grad(needs))
            some = iter(_BackwardFunction.apply(call, wanted, saved, *grads[:-1], *tensors))  # type: ignore[no-untyped-call]
            return None, *(next(some) if need else None for need in wanted)
        return None, *call.backward(needs, grads[:-1], tensors, saved, ctx.accumulated)


def _remember(ctx: Any, call: KernelCall, tensors: Sequence[Tensor], output: Results) -> None:
    ctx.call, ctx.accumulated = call, call.accumulated(gradient_accumulator.active(), tensors)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[-1])
    ctx.save_for_backward(*tensors, output[-1])


class _TransformedFunction(Function):
    """A call under torch's transforms."""

    @staticmethod
    def forward(call: KernelCall, *tensors: Tensor) -> Results:
        return tuple(call.forward(tensors, saving=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
        call, *tensors = inputs
        _remember(ctx, call, tensors, output)
        ctx.save_for_forward(*tensors, output[-1])

    backward = _ForwardFunction.backward

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Optional) -> tuple[Optional, ...]:
        *tensors, _saved = ctx.saved_tensors
        moving = [k for k, tangent in enumerate(tangents) if tangent is not None]

        def of_moving(*some: Tensor) -> Results:
            call: KernelCall = ctx.call
            return call.reference(*_with(tensors, moving, some))

        return *_along(of_moving, [tensors[k] for k in moving], [tangents[k] for k in moving]), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], call: KernelCall, *tensors: Tensor
    ) -> tuple[Results, tuple[Any, ...]]:
        found = torch.vmap(call.reference, in_dims[1:], randomness=info.randomness)(*tensors)
        return (*found, NOTHING.new_empty(0, dtype=tensors[0].dtype)), (*(0 for _ in found), None)


class _BackwardFunction(Function):
    """The gradients of the wanted tensors, from the saved values, output gradients (None: zero), and tensors."""

    @staticmethod
    def forward(call: KernelCall, wanted: tuple[bool, ...], saved: Tensor, *given: Optional) -> Results:
        grads, tensors = _parted(call, given)
        return tuple(g for g in call.backward(wanted, grads, tensors, saved) if g is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
        ctx.call, ctx.wanted, _, *given = inputs
        ctx.save_for_backward(*given)
        if _transformed():
            ctx.save_for_forward(*given)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Optional, ...]:
        given = ctx.saved_tensors
        moving = [k for k, need in enumerate(ctx.needs_input_grad[3:]) if need]
        pull = torch.func.vjp(_of_moving(ctx.call, ctx.wanted, given, moving), *(given[k] for k in moving))[1]
        found = dict(zip(moving, pull(tuple(grads)), strict=True))
        return None, None, None, *(found.get(k) for k in range(len(given)))

    @staticmethod
    def jvp(ctx: Any, _call: None, _wanted: None, _saved: None, *tangents: Optional) -> Results:
        given = ctx.saved_tensors
        moving = [k for k, tangent in enumerate(tangents) if tangent is not None]
        function = _of_moving(ctx.call, ctx.wanted, given, moving)
        return _along(function, [given[k] for k in moving], [tangents[k] for k in moving])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], call: KernelCall, wanted: tuple[bool, ...], saved: Tensor, *given: Optional
    ) -> tuple[Results, tuple[int, ...]]:
        there = [k for k, tensor in enumerate(given) if tensor is not None]
        function = _of_moving(call, wanted, given, there)
        dims = tuple(in_dims[3 + k] for k in there)
        found: Results = torch.vmap(function, dims, randomness=info.randomness)(*(given[k] for k in there))
        return found, (0,) * len(found)


def _along(function: Callable[..., Results], points: list[Any], tangents: list[Any]) -> Results:
    """The directional derivative."""
    if torch._C._are_functorch_transforms_active():
        grads: Results = torch.func.jvp(function, tuple(points), tuple(tangents))[1]
        return grads
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        plain = [_parts(p)[0] for p in points]
        duals = [forward_ad.make_dual(p, t) for p, t in zip(plain, tangents, strict=True)]  # type: ignore[no-untyped-call]
        results = function(*duals)
        found = [_parts(r)[1] for r in results]
    return tuple(torch.zeros_like(r) if s is None else s for r, s in zip(results, found, strict=True))


def _parts(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """A tensor's value and its tangent."""
    found: tuple[Tensor, Tensor | None] = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return found


def _parted(call: KernelCall, given: Sequence[Optional]) -> tuple[list[Optional], list[Tensor]]:
    """Output gradients, and a call's tensors."""
    count = 1 + len(call.cell.inputs.states)
    return list(given[:count]), [t for t in given[count:] if t is not None]


def _of_moving(
    call: KernelCall, wanted: tuple[bool, ...], given: Sequence[Optional], moving: list[int]
) -> Callable[..., Results]:
    """The gradients by the reference path, as a function of some of the output gradients and tensors."""
    return lambda *some: gradients(call.reference, wanted, *_parted(call, _with(given, moving, some)))


def gradients(
    function: Callable[..., Results], wanted: Sequence[bool], grads: Sequence[Optional], tensors: Sequence[Tensor]
) -> Results:
    """The gradients of the wanted arguments by torch's autograd."""
    places = [k for k, want in enumerate(wanted) if want]

    def of_wanted(*some: Tensor) -> Results:
        return function(*_with(tensors, places, some))

    results, pull = torch.func.vjp(of_wanted, *(tensors[k] for k in places))[:2]
    whole = tuple(torch.zeros_like(r) if d is None else d for r, d in zip(results, grads, strict=True))
    found: Results = pull(whole)
    return found


def _with(tensors: Sequence[Any], places: list[int], some: Sequence[Any]) -> list[Any]:
    found = list(tensors)
    for k, tensor in zip(places, some, strict=True):
        found[k] = tensor
    return found
