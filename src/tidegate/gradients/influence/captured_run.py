"""Runs of one shape on kernels: the states, the values that trackers read, and the trackers.

The first call of a shape binds every kernel; later ones set pointers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.values import Rate, Value
from tidegate.gradients.cost import kept
from tidegate.gradients.influence.capture import Capture, CapturedTracker
from tidegate.gradients.influence.parameter_groups import add
from tidegate.gradients.influence.plan import RulePlan
from tidegate.gradients.influence.step_values import StepValues
from tidegate.runtime.bound_call import Bound, BoundCall
from tidegate.runtime.cell_kernel import CellKernel
from tidegate.runtime.support import cell_kernel, eager, readable, unsupported

Tensors = dict[str, Tensor]
Influence = tuple[Tensors, ...]


class CapturedRun:
    """A plan's run of T steps and B rows.

    Its result is one tensor `[T + 1, B, D + R]`: the states before the first step and after each, side by side, and
    behind them what trackers read of each step (undefined in the first row). With a `start` every run begins with these
    states, without influence, in buffers that stay: then it is for one caller at a time.
    """

    def __init__(
        self, plan: RulePlan, T: int, B: int, cell: CellKernel, like: Tensor, start: Tensors | None = None
    ) -> None:
        self._plan, self._like, self._shape = plan, like.new_empty(0), (T, B)
        self._inputs, self._call, self._D = cell.inputs, cell.call(T, B), sum(plan.widths)
        graph, layout = plan.graph, plan.layout
        widths = {i.name: layout.shape_of(graph.input_values[i.name])[0] for i in graph.inputs}
        self._shapes = {n: torch.Size((T, B, w)) for n, w in widths.items()}
        self._allocate = cell.allocator((1 + T, B, self._D + sum(plan.reader.widths)))
        self.found = self._allocate()
        self._states = {n: like.new_zeros(B, w) for n, w in zip(plan.names, plan.widths, strict=True)}
        self._stays = start is not None
        if start is not None:
            for name, state in self._states.items():
                state.copy_(start[name])
            self.found[0, :, : self._D] = torch.cat(list(self._states.values()), 1)
        self._forward = self._bound_forward()
        self._spare: list[tuple[Tensor, Tensor]] = []
        self._trackers: dict[tuple[str, ...] | None, list[CapturedTracker | None] | None] = {}

    @property
    def nbytes(self) -> int:
        """The bytes of its buffers."""
        return self.found.nbytes + 2 * kept(self._plan.costs(self._shape[1])) * self.found.element_size()

    def starting(self, start: Tensors) -> CapturedRun:
        """Another such run that always begins with these states."""
        return CapturedRun(self._plan, *self._shape, self._call.cell, self._like, start)

    def fits(self, weights: Tensors, inputs: Tensors, begin: Tensors) -> bool:
        """Whether the kernels can read these tensors in place."""
        if not eager() or inputs.keys() != self._shapes.keys():
            return False
        if not all(readable(x, self._shapes[name], self._like.dtype) for name, x in inputs.items()):
            return False
        return unsupported(None, [self._like, *weights.values(), *begin.values()]) is None

    def forward(self, weights: Tensors, inputs: Tensors, begin: Tensors) -> tuple[Tensor, Tensors]:
        """What the run finds from these states on (or from its start), and the final states by name."""
        if self._stays:
            alive = self._given(weights, inputs)
            self._forward([t.data_ptr() for t in alive])
            return self.found, {}
        found = self._allocate()
        return found, self._run_into(found, self._first(found), weights, inputs, begin)

    def _first(self, found: Tensor) -> Tensor:
        """The states before the first step, side by side."""
        return found.as_strided((found.shape[1], self._D), found.stride()[1:])

    def _run_into(self, found: Tensor, first: Tensor, weights: Tensors, inputs: Tensors, begin: Tensors) -> Tensors:
        states = [begin[n].contiguous() for n in self._plan.names]
        first.copy_(states[0] if len(states) == 1 else torch.cat(states, 1))
        ends = [torch.empty_like(s) for s in states]
        alive = [*self._given(weights, inputs), found, *states, *ends]
        self._forward([t.data_ptr() for t in alive])
        return dict(zip(self._plan.names, ends, strict=True))

    def move(
        self, weights: Tensors, inputs: Tensors, begin: Tensors, influence: Influence
    ) -> tuple[Tensors, Influence]:
        """The states and the influence after the run: what a step of a stream needs."""
        try:
            found, first = self._spare.pop()
        except IndexError:
            found = self._allocate()
            first = self._first(found)
        states = self._run_into(found, first, weights, inputs, begin)
        after, _ = self.advance(weights, inputs, found, (), [], influence, keep=True)
        self._spare.append((found, first))
        return states, after

    def _given(self, weights: Tensors, inputs: Tensors) -> list[Tensor]:
        """What the forward kernel reads besides states."""
        fixed = [t if t.is_contiguous() else t.contiguous() for t in self._fixed(weights)]
        return [*fixed, *[inputs[n] for n in self._inputs.inputs]]

    def _fixed(self, weights: Tensors) -> list[Tensor]:
        """The values of weights that the kernel is given."""
        if self._inputs.as_given is not None:
            return self._inputs.fixed(weights)
        with torch.no_grad():
            return self._inputs.fixed(weights)

    def _bound_forward(self) -> BoundCall:
        """The forward kernel; values of weights and inputs are dynamic, without a start also states and findings."""
        fixed = [self._like.new_zeros(shape) for shape in self._inputs.fixed_shapes]
        inputs = [self._like.new_zeros(self._shapes[n]) for n in self._inputs.inputs]
        ends = {n: torch.empty_like(s) for n, s in self._states.items()}
        order = self._inputs.states
        initial, final = [self._states[n] for n in order], [ends[n] for n in order]
        tensors = [*fixed, *inputs, *initial, *initial]

        def bind() -> Bound:
            return self._call.bind_forward(tensors, self.found[1:], final)

        moving = () if self._stays else (self.found, *self._states.values(), *ends.values())
        return BoundCall(bind, [*fixed, *inputs, *moving])

    def captures(self, scored: tuple[str, ...] | None) -> bool:
        """Whether all trackers join, with gradients in these states (None: in all, side by side in one tensor)."""
        if scored not in self._trackers:
            self._trackers[scored] = self._captured(scored)
        return self._trackers[scored] is not None

    def _captured(self, scored: tuple[str, ...] | None) -> list[CapturedTracker | None] | None:
        """The trackers bound to example tensors; None for those that no scored state depends on."""
        plan, reader, graph, (T, B) = self._plan, self._plan.reader, self._plan.graph, self._shape
        found = self.found
        inputs = {n: self._like.new_zeros(shape) for n, shape in self._shapes.items()}
        fixed = {v: self._like.new_zeros(plan.layout.shape_of(v)) for v in reader.given}
        env: dict[Value, Any] = dict(zip(reader.vectors, found[1:, :, self._D :].split(reader.widths, -1), strict=True))
        env |= {v: inputs[n] for n, v in graph.input_values.items()}
        old = plan.apart(found[:-1, :, : self._D])
        env |= {v: old[n] for n, v in graph.old.items()}
        env |= {v: t.expand(T, B, *t.shape) for v, t in fixed.items()}
        gradients, named = self._examples(scored)
        buffers = [*inputs.values(), *fixed.values(), *gradients, *(() if self._stays else (found,))]
        stay = (found,) if self._stays else ()
        run = Capture(StepValues(plan.layout, env, (T, B), self._like), named, buffers, stay)
        trackers: list[CapturedTracker | None] = []
        for tracker in plan.trackers:
            if named and named.keys().isdisjoint(tracker.states):
                trackers.append(None)
                continue
            captured = tracker.capture(run)
            if captured is None:
                return None
            trackers.append(captured)
        return trackers

    def _examples(self, scored: tuple[str, ...] | None) -> tuple[list[Tensor], Tensors]:
        """Example gradients of states as they are given, and by name."""
        plan, (T, B) = self._plan, self._shape
        if scored is None:
            joined = self._like.new_zeros(T, B, self._D)
            return [joined], plan.apart(joined)
        widths = dict(zip(plan.names, plan.widths, strict=True))
        named = {n: self._like.new_zeros(T, B, widths[n]) for n in scored}
        return list(named.values()), named

    def advance(
        self,
        weights: Tensors,
        inputs: Tensors,
        found: Tensor,
        scored: tuple[str, ...] | None,
        gradients: Sequence[Tensor],
        influence: Influence | None,
        *,
        keep: bool,
    ) -> tuple[Influence, dict[Value, Tensor]]:
        """The influence after the run, if it is to `keep`, from that before it (None: none), and the gradient of what
        has these contiguous `gradients` in its `scored` states."""
        trackers = self._trackers[scored]
        assert trackers is not None
        reader = self._plan.reader
        fixed = reader.fixed(weights).values() if reader.given else ()
        alive = [*[inputs[n] for n in self._shapes], *fixed, *gradients]
        if not self._stays:
            alive.append(found)
        addresses = [t.data_ptr() for t in alive]
        total: dict[Value, Tensor] = {}
        ends = []
        for k, tracker in enumerate(trackers):
            end, gradient = (
                ({}, {}) if tracker is None else tracker(addresses, None if influence is None else influence[k], keep)
            )
            ends.append(end)
            add(total, gradient)
        return tuple(ends), total


def captured_run(plan: RulePlan, T: int, B: int, like: Tensor) -> CapturedRun | None:
    """The run of this shape; None if kernels cannot run, or a step reads more than vectors and inputs."""
    return _captured_run(plan, T, B, like.dtype, torch.get_num_threads()) if eager() and like.is_cpu else None


@lru_cache(maxsize=16)  # of up to some 100 MiB each
def _captured_run(plan: RulePlan, T: int, B: int, dtype: torch.dtype, threads: int) -> CapturedRun | None:
    graph, run, like = plan.graph, plan.both or plan.following, torch.empty(0, dtype=dtype)
    if not plan.reader.only_vectors or graph.masks or not T * B or any(i.rate != Rate.INPUT for i in graph.inputs):
        return None
    cell = cell_kernel(run.graph, run.sizes, [like])
    return None if cell is None else CapturedRun(plan, T, B, cell, like)
