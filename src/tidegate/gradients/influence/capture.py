"""Trackers, and how they join a captured run: with kernels bound once to example tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tidegate.equations.values import Value
from tidegate.gradients.cost import Cost
from tidegate.gradients.influence.step_values import StepValues
from tidegate.runtime.bound_call import BoundCall, within
from tidegate.runtime.eligibility import TraceInputs, bind_traces, forget_slot

Tensors = dict[str, Tensor]


class CapturedTracker(Protocol):
    """A tracker's kernels for a run, called with the addresses of the run's buffers."""

    def __call__(self, addresses: list[int], memory: Tensors | None, keep: bool) -> tuple[Tensors, dict[Value, Tensor]]:
        """The memory after the run (undefined unless it is to `keep`) from that before (None: no influence yet), and
        the gradient of what has the run's gradients in its states."""


@dataclass(frozen=True, eq=False)
class Capture:
    """A run that trackers may join: its steps and the gradients of its scored states, as examples.

    Everything a kernel reads must be a view into the examples' `buffers`, whose addresses change from call to call, or
    into buffers that `stay`. Where there are such, every run begins without influence, and the end of it is not read.
    """

    steps: StepValues
    scored: Mapping[str, Tensor]
    buffers: Sequence[Tensor]
    stay: Sequence[Tensor] = ()

    def traces(self, given: TraceInputs, shape: tuple[int, int]) -> BoundTraces | None:
        """Eligibility traces of a linear of `shape` `[K, V]` along the run, as `advance_traces` moves them.

        None if no kernel can run, or if it reads a computed value that is not part of a buffer.
        """
        if not all(within(t, (*self.buffers, *self.stay)) for t in (*given.factors, *given.v)):
            return None
        steps = self.steps
        e = steps.like.new_zeros(steps.B, given.form.states, *shape)
        end, g = torch.empty_like(e), steps.like.new_zeros(shape)
        bind = bind_traces(given, e, end, g)
        if bind is None:
            return None
        forget = forget_slot(given.form, len(given.v))
        moving = [g] if self.stay else [g, e, end]
        return BoundTraces(BoundCall(bind, [*self.buffers, *moving]), e, bool(given.delta), forget, bool(self.stay))


class BoundTraces:
    """Traces along a run. `nothing` are the initial traces."""

    def __init__(self, call: BoundCall, nothing: Tensor, scored: bool, forget: int, stays: bool) -> None:
        self._call, self._nothing, self._stays = call, nothing, stays
        self._g, self._scored = nothing.new_zeros(nothing.shape[2:]), scored
        self._forget, self._keep = ({forget: 1}, {forget: 0})

    def __call__(self, addresses: list[int], e: Tensor | None, keep: bool) -> tuple[Tensor, Tensor]:
        """The traces `[B, S, K, V]` after the run, and the gradient `[K, V]`."""
        g = torch.zeros_like(self._g) if self._scored else self._g
        if self._stays:
            self._call([*addresses, g.data_ptr()], self._forget)
            return self._nothing, g
        start = self._nothing if e is None else e.contiguous()
        end = torch.empty_like(self._nothing)
        moving = (g.data_ptr(), start.data_ptr(), end.data_ptr())
        self._call([*addresses, *moving], self._keep if keep else self._forget)
        return end, g


class Tracker(ABC):
    """A rule applied to some of a layer's weights: its memory from step to step, and the gradients from it.

    `values` are what it reads of each step, `states` the states that its weights influence.
    """

    values: list[Value]
    states: tuple[str, ...]

    @abstractmethod
    def cost(self, rows: int) -> Cost:
        """Its memory and operations for `rows` rows."""

    @abstractmethod
    def begin(self, rows: int, like: Tensor) -> Tensors:
        """The initial memory."""

    @abstractmethod
    def advance(
        self, memory: Tensors, steps: StepValues, gradients: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The memory after some steps, and the gradient of a loss with these gradients `[T, B, n]` in the states."""

    @abstractmethod
    def gradient(self, memory: Tensors, gradients: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of a loss with these gradients `[B, n]` in the current states."""

    def capture(self, run: Capture) -> CapturedTracker | None:
        """The tracker's kernels for a run; None to use the general engine."""
        return None
