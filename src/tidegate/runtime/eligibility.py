"""Eligibility traces of one linear: on kernels if they can run, else by torch's operations.

Traces are what real-time recurrent learning of element-wise cells (Williams and Zipser 1989,
doi:10.1162/neco.1989.1.2.270), SnAp-1 (Menick et al. 2021, arXiv:2006.07232), RFLO (Murray 2019,
doi:10.7554/eLife.43299) and e-prop (Bellec et al. 2020, doi:10.1038/s41467-020-17236-y) carry forward in time.
`TraceForm` defines their update.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tidegate.errors import ArgumentError, NativeError
from tidegate.native.eligibility.arguments import argument_names
from tidegate.native.eligibility.form import TraceForm
from tidegate.native.eligibility.kernel import TraceKernel, trace_kernel
from tidegate.native.run.kernel import Bound
from tidegate.native.run.row_order import NEVER_ADDRESS
from tidegate.runtime import support
from tidegate.runtime.tensors import with_row_stride

Tensors = Sequence[Tensor]
__all__ = ["TraceForm", "TraceInputs", "advance_traces", "bind_traces", "forget_slot", "reference_traces"]


@dataclass(frozen=True, eq=False)
class TraceInputs:
    """What the traces of a linear read along T steps.

    `d`, `u` and `delta` hold a tensor `[T, B, K]` for each of the form's `pairs`, `driven` and `scored` states. `v`
    holds the pieces `[T, B, width]` of what the linear reads; with `bias` a 1 follows them. Where `reset` `[T, B]`, of
    bools, is set, the traces of a row of the batch count as zero before the step.
    """

    form: TraceForm
    d: Tensors
    u: Tensors
    v: Tensors
    delta: Tensors
    bias: bool
    reset: Tensor | None = None

    @property
    def factors(self) -> list[Tensor]:
        """The tensors `[T, B, K]`, in the order of the form's coefficients."""
        return [*self.d, *self.u, *self.delta]


def advance_traces(given: TraceInputs, e: Tensor, g: Tensor) -> Tensor:
    """The traces `[B, S, K, V]` after T steps; `e`, the initial traces, is not changed.

    To `g` `[K, V]`, contiguous, the gradient of the linear's weights is added. Column slices of larger tensors are
    read in place.

    Kernels process long sequences in blocks of 64 steps, which begin with the call and at resets. A sequence cut into
    calls gives the same bits if it is cut between blocks, or if no call has 12 steps; else the last bits differ. No
    derivatives are recorded. Raises ArgumentError for wrong shapes.
    """
    _check(given, e, g)
    kernel = _kernel(given, e, g)
    if kernel is None:
        return reference_traces(given, e, g)
    if not len(given.factors[0]) or not e.numel():
        return e.clone()
    end = torch.empty(e.shape, dtype=e.dtype)
    bound, alive = _bind(kernel, given, e, end, g)
    bound()
    del alive
    return end


def bind_traces(given: TraceInputs, e: Tensor, end: Tensor, g: Tensor) -> Callable[[], Bound] | None:
    """Bind a kernel to the arguments of `advance_traces` and to `end`, the final traces; None if it cannot run.

    Also None if a tensor has no common row stride, so that it would be copied. With the argument `forget` set, the
    kernel does not write all of `end`.
    """
    kernel = _kernel(given, e, g)
    if kernel is None or any(with_row_stride(t)[0] is not t for t in (*given.factors, *given.v)):
        return None
    return lambda: _bind(kernel, given, e, end, g)[0]


def forget_slot(form: TraceForm, pieces: int) -> int:
    """The slot of the argument `forget`: 1 if final traces are not wanted."""
    return argument_names(form, pieces).index("forget")


def _kernel(given: TraceInputs, e: Tensor, g: Tensor) -> TraceKernel | None:
    """The kernel for such tensors; None if it cannot run, which warns once unless it is by design."""
    reason = support.unsupported(None, [e, g, *given.factors, *given.v])
    if reason is None:
        try:
            return trace_kernel(given.form, support.DTYPES[e.dtype])
        except NativeError as error:
            reason = support.Unsupported(str(error))
    if not reason.by_design:
        support.warn_once(f"a cell's eligibility traces are computed on the reference path: {reason}")
    return None


def _bind(kernel: TraceKernel, given: TraceInputs, e: Tensor, end: Tensor, g: Tensor) -> tuple[Bound, list[Any]]:
    """The kernel on these tensors, and the copies that must stay alive until it is done."""
    factors, v = given.factors, given.v
    T, B, K = factors[0].shape
    start, flags = e.contiguous(), None if given.reset is None else given.reset.contiguous()
    numbers = {"start": start.data_ptr(), "end": end.data_ptr(), "g": g.data_ptr(), "bias": int(given.bias)}
    numbers["reset"] = NEVER_ADDRESS if flags is None else flags.data_ptr()
    numbers["reset.step"] = int(flags is not None)
    alive: list[Any] = [start, flags]
    names = [*kernel.form.coefficients, *(f"v.{i}" for i in range(len(v)))]
    for name, tensor in zip(names, (*factors, *v), strict=True):
        found, numbers[f"ld.{name}"] = with_row_stride(tensor)
        numbers[name] = found.data_ptr()
        alive.append(found)
    numbers |= {f"width.{i}": piece.shape[2] for i, piece in enumerate(v)}
    return kernel.bind(T, B, K, e.shape[3], len(v), torch.get_num_threads(), numbers), alive


@torch.no_grad()
def reference_traces(given: TraceInputs, e: Tensor, g: Tensor) -> Tensor:
    """`advance_traces` step by step, by torch's operations."""
    form, reset = given.form, given.reset
    T, B, _ = given.factors[0].shape
    columns = torch.cat([*given.v, e.new_ones(T, B, int(given.bias))], dim=2)
    end = e.clone()
    for t in range(T):
        old = end if reset is None else end.masked_fill(reset[t].view(B, 1, 1, 1), 0.0)
        end = torch.zeros_like(old)
        for (s, of), factor in zip(form.pairs, given.d, strict=True):
            end[:, s] += factor[t].unsqueeze(2) * old[:, of]
        for s, factor in zip(form.driven, given.u, strict=True):
            end[:, s] += factor[t].unsqueeze(2) * columns[t].unsqueeze(1)
        for s, factor in zip(form.scored, given.delta, strict=True):
            g += torch.einsum("bk,bkj->kj", factor[t], end[:, s])
    return end


def _check(given: TraceInputs, e: Tensor, g: Tensor) -> None:
    form, reset = given.form, given.reset
    wanted = len(form.pairs), len(form.driven), len(form.scored)
    got = len(given.d), len(given.u), len(given.delta)
    if got != wanted:
        numbers = "{}, {} and {}".format
        raise ArgumentError(f"{form} takes {numbers(*wanted)} tensors in d, u and delta, got {numbers(*got)}.")
    T, B, K = given.factors[0].shape
    V = sum(piece.shape[2] for piece in given.v) + int(given.bias)
    for t in given.factors:
        _expect("a coefficient", t, (T, B, K))
    for piece in given.v:
        _expect("a piece of v", piece, (T, B, piece.shape[2]))
    _expect("e", e, (B, form.states, K, V))
    _expect("g", g, (K, V))
    if reset is not None:
        _expect("reset", reset, (T, B))
        if reset.dtype is not torch.bool:
            raise ArgumentError(f"reset must be a tensor of bools, got {reset.dtype}: pass reset.bool().")
    if not g.is_contiguous():
        raise ArgumentError("g must be contiguous, since the gradient is added in place: pass a contiguous tensor.")


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ArgumentError(
            f"{name} must have the shape {list(shape)} to match the other tensors, got {list(tensor.shape)}."
        )
