"""Eligibility traces of one linear: on kernels where there are some, else by torch's own operations.

Traces are what real-time recurrent learning of element-wise cells (Williams and Zipser 1989,
doi:10.1162/neco.1989.1.2.270), SnAp-1 (Menick et al. 2021, arXiv:2006.07232), RFLO (Murray 2019,
doi:10.7554/eLife.43299) and e-prop (Bellec et al. 2020, doi:10.1038/s41467-020-17236-y) carry forward in time.
`TraceForm` says how they move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tidegate.errors import ArgumentError, NativeError
from tidegate.native.eligibility.form import TraceForm
from tidegate.native.eligibility.kernel import TraceKernel, trace_kernel
from tidegate.native.run.kernel import Bound
from tidegate.native.run.row_order import NEVER_ADDRESS
from tidegate.runtime import support
from tidegate.runtime.kernel_call import DTYPES, evenly

Tensors = Sequence[Tensor]


def advance_traces(
    form: TraceForm,
    e: Tensor,
    d: Tensors,
    u: Tensors,
    v: Tensors,
    delta: Tensors,
    g: Tensor,
    bias: bool,
    reset: Tensor | None = None,
) -> Tensor:
    """The traces `[B, S, K, V]` after T steps; `e`, from before them, stays as it is.

    `d`, `u` and `delta` hold a tensor `[T, B, K]` for each of the form's `pairs`, `driven` and `scored` states. `v`
    holds the pieces `[T, B, width]` of what the linear reads; with `bias` a 1 follows them. To `g` `[K, V]`,
    contiguous, the gradient of the linear's weights is added. Where `reset` `[T, B]`, of bools, is set, the
    traces of a row of the batch count as zero before the step. Column slices of larger tensors are read in place.

    Kernels go over long sequences in blocks of 64 steps, which begin with the call and with a reset. The same steps in
    several calls give traces of the same bits where calls are cut between blocks, and where none of them has 12 steps;
    else the last bits differ. No derivatives are recorded. Raises ArgumentError where a tensor's shape is another.
    """
    _check(form, e, d, u, v, delta, g, bias, reset)
    kernel = _fitting(form, [e, g, *d, *u, *v, *delta])
    if kernel is None:
        return reference_traces(form, e, d, u, v, delta, g, bias, reset)
    return kernel(e, d, u, v, delta, g, bias, reset)


def _fitting(form: TraceForm, tensors: Tensors) -> NativeTraces | None:
    """The kernels, where there are some for such tensors; else that is said once."""
    reason = support.unfit(tensors) if support.enabled() else ""
    if reason:
        _refuse(reason)
    return traces(form, tensors[0].dtype) if reason is None else None


def traces(form: TraceForm, dtype: torch.dtype) -> NativeTraces | None:
    """The kernels of a form; where there are none, that is said once, with the reason."""
    try:
        return _kernels(form, dtype)
    except NativeError as error:
        _refuse(str(error))
        return None


@lru_cache(maxsize=256)
def _kernels(form: TraceForm, dtype: torch.dtype) -> NativeTraces:
    return NativeTraces(trace_kernel(form, DTYPES[dtype]))


def _refuse(reason: str) -> None:
    support.say_once(f"a cell's eligibility traces are computed on the reference path: {reason}")


class NativeTraces:
    """The kernels of a form, called with tensors as `advance_traces` is, but that nothing is looked at: tensors are on
    the CPU, of the kernels' type and of the right shapes."""

    def __init__(self, kernel: TraceKernel) -> None:
        self.kernel = kernel
        self._coefficients = kernel.form.coefficients

    def __call__(
        self,
        e: Tensor,
        d: Tensors,
        u: Tensors,
        v: Tensors,
        delta: Tensors,
        g: Tensor,
        bias: bool,
        reset: Tensor | None = None,
    ) -> Tensor:
        """The traces after T steps."""
        if not len((*d, *u, *delta)[0]) or not e.numel():
            return e.clone()
        end = torch.empty(e.shape, dtype=e.dtype)
        self.bind(e, end, d, u, v, delta, g, bias, reset)()
        return end

    def bind(
        self,
        e: Tensor,
        end: Tensor,
        d: Tensors,
        u: Tensors,
        v: Tensors,
        delta: Tensors,
        g: Tensor,
        bias: bool,
        reset: Tensor | None = None,
    ) -> BoundTraces:
        """A call to be made again and again, on what these tensors then hold; none of them is empty.

        The traces go to `end`, contiguous, which may be `e`. What does not lie evenly in memory is copied now.
        """
        T, B, K = (*d, *u, *delta)[0].shape
        start, flags = e.contiguous(), None if reset is None else reset.contiguous()
        given = {"start": start.data_ptr(), "end": end.data_ptr(), "g": g.data_ptr(), "bias": int(bias)}
        given["reset"] = NEVER_ADDRESS if flags is None else flags.data_ptr()
        given["reset.step"] = int(flags is not None)
        alive = [start, end, g, flags]
        for name, tensor in zip(self._coefficients, (*d, *u, *delta), strict=True):
            found, given[f"ld.{name}"] = evenly(tensor)
            given[name] = found.data_ptr()
            alive.append(found)
        for i, piece in enumerate(v):
            found, given[f"ld.v.{i}"] = evenly(piece)
            given[f"v.{i}"], given[f"width.{i}"] = found.data_ptr(), found.shape[2]
            alive.append(found)
        bound = self.kernel.bind(T, B, K, e.shape[3], len(v), torch.get_num_threads(), given)
        return BoundTraces(bound, alive, self.kernel.index(len(v)))


class BoundTraces:
    """A call whose tensors stay where they are."""

    __slots__ = ("_alive", "_bound", "_end", "_start")

    def __init__(self, bound: Bound, alive: Sequence[Tensor | None], index: Mapping[str, int]) -> None:
        self._bound, self._alive = bound, alive
        self._start, self._end = index["start"], index["end"]

    @property
    def arguments(self) -> Any:
        """Where the tensors lie, by the kernel's index: to be changed by who keeps others alive there."""
        return self._bound.arguments

    def move(self, e: Tensor, end: Tensor) -> None:
        """Move other traces, contiguous and of the same shape, to another place."""
        arguments = self.arguments
        arguments[self._start], arguments[self._end] = e.data_ptr(), end.data_ptr()
        self._bound()

    def __call__(self) -> None:
        """Move the traces, and add to the gradient."""
        self._bound()


@torch.no_grad()
def reference_traces(
    form: TraceForm,
    e: Tensor,
    d: Tensors,
    u: Tensors,
    v: Tensors,
    delta: Tensors,
    g: Tensor,
    bias: bool,
    reset: Tensor | None = None,
) -> Tensor:
    """What `advance_traces` computes, step by step by torch's own operations."""
    T, B, _ = (*d, *u, *delta)[0].shape
    columns = torch.cat([*v, e.new_ones(T, B, int(bias))], dim=2)
    end = e.clone()
    for t in range(T):
        old = end if reset is None else end.masked_fill(reset[t].view(B, 1, 1, 1), 0.0)
        end = torch.zeros_like(old)
        for (s, of), factor in zip(form.pairs, d, strict=True):
            end[:, s] += factor[t].unsqueeze(2) * old[:, of]
        for s, factor in zip(form.driven, u, strict=True):
            end[:, s] += factor[t].unsqueeze(2) * columns[t].unsqueeze(1)
        for s, factor in zip(form.scored, delta, strict=True):
            g += torch.einsum("bk,bkj->kj", factor[t], end[:, s])
    return end


def _check(
    form: TraceForm,
    e: Tensor,
    d: Tensors,
    u: Tensors,
    v: Tensors,
    delta: Tensors,
    g: Tensor,
    bias: bool,
    reset: Tensor | None,
) -> None:
    wanted, came = (len(form.pairs), len(form.driven), len(form.scored)), (len(d), len(u), len(delta))
    if came != wanted:
        numbers = "{}, {} and {}".format
        raise ArgumentError(f"{form} takes {numbers(*wanted)} tensors in d, u and delta, and {numbers(*came)} came.")
    coefficients = [*d, *u, *delta]
    T, B, K = coefficients[0].shape
    V = sum(piece.shape[2] for piece in v) + int(bias)
    for t in coefficients:
        _expect("a coefficient", t, (T, B, K))
    for piece in v:
        _expect("a piece of v", piece, (T, B, piece.shape[2]))
    _expect("e", e, (B, form.states, K, V))
    _expect("g", g, (K, V))
    if reset is not None:
        _expect("reset", reset, (T, B))
        if reset.dtype is not torch.bool:
            raise ArgumentError(f"reset is a tensor of bools, and one of {reset.dtype} came: pass reset.bool().")
    if not g.is_contiguous():
        raise ArgumentError("g is contiguous, for what is added to a copy would be lost: pass a tensor of its own.")


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ArgumentError(
            f"Traces take {name} of shape {list(shape)}, as their other tensors say, and {list(tensor.shape)} came."
        )
