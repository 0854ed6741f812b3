"""Runs of one shape whose kernels know everything but where tensors lie.

To look at everything as the general way does takes a millisecond for each call, and a small net a tenth of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tidegate.equations.values import Rate, Value
from tidegate.gradients.groups import add
from tidegate.gradients.local import Local
from tidegate.gradients.steps import Steps, split
from tidegate.nn import native
from tidegate.nn.held import Held
from tidegate.nn.native_call import NativeCell, evenly
from tidegate.nn.quick import possible, usable
from tidegate.nn.traces import BoundTraces, NativeTraces, traces

if TYPE_CHECKING:
    from tidegate.gradients.plan import Plan

Tensors = dict[str, Tensor]
Place = tuple[int, int, int]  # of an argument; the number of a tensor, and how many bytes behind its first one


class Known:
    """A plan's run of T steps and B rows, and the traces along it.

    `Known.made` gives None where there is no such run: masks, inputs that come once a sequence, what is read of a step
    made of other things than its vectors, or no kernels.
    """

    @staticmethod
    def made(plan: Plan, T: int, B: int, like: Tensor) -> Known | None:
        """The run, where there is one."""
        graph, run = plan.graph, plan.both or plan.following
        if not plan.reader.only_vectors or graph.masks or not T * B:
            return None
        if any(i.rate != Rate.INPUT for i in graph.inputs) or not native.fits(graph.name, [like]):
            return None
        cell = run.cell(like.dtype, indices=False)
        return None if cell is None else Known(plan, T, B, cell, like)

    def __init__(self, plan: Plan, T: int, B: int, cell: NativeCell, like: Tensor) -> None:
        self._plan, self._like, self._shape = plan, like.new_empty(0), (T, B)
        self._recipe, self._dtype = cell.recipe, like.dtype
        self._call = cell.call(T, B, backwards=False, lengths=None, reset=None)
        self._shapes = {n: (T, B, w) for n, w in self._widths(plan).items()}
        self._room = cell.room((1 + T, B, sum(plan.widths) + sum(plan.reader.widths)))
        self._read_of_weights = plan.reader.fixed if plan.reader.given else None
        self._traces: dict[tuple[str, ...] | None, list[_Traces]] = {}

    def scored_in(self, states: tuple[str, ...] | None = None) -> bool:
        """Whether gradients are found of what has adjoints in these states: a tensor for each, or one for all of them
        side by side. That takes traces of all weights, each with the same inputs for all rows."""
        if not all(isinstance(t, Local) and t.blocks == 1 for t in self._plan.trackers):
            return False
        if states not in self._traces:
            self._traces[states] = self._bound_to(states)
        return all(t.bound for t in self._traces[states])

    def _bound_to(self, states: tuple[str, ...] | None) -> list[_Traces]:
        plan, like, (T, B) = self._plan, self._like, self._shape
        reader, graph, D = plan.reader, plan.graph, sum(plan.widths)
        y = self._room()
        inputs = {n: like.new_empty(shape) for n, shape in self._shapes.items()}
        env: dict[Value, Any] = dict(zip(reader.vectors, y[1:, :, D:].split(reader.widths, -1), strict=True))
        env |= {v: inputs[n] for n, v in graph.input_values.items()}
        old = dict(zip(plan.names, y[:-1, :, :D].split(plan.widths, -1), strict=True))
        env |= {v: old[n] for n, v in graph.old.items()}
        fixed = {v: like.new_empty(plan.layout.shape_of(v)) for v in reader.given}
        env |= {v: t.expand(T, B, *t.shape) for v, t in fixed.items()}
        steps = Steps(plan.layout, env, (T, B), like)
        if states is None:
            adjoints = [like.new_empty(T, B, D)]
            scored = dict(zip(plan.names, adjoints[0].split(plan.widths, -1), strict=True))
        else:
            width = dict(zip(plan.names, plan.widths, strict=True))
            scored = {n: like.new_empty(T, B, width[n]) for n in states}
            adjoints = list(scored.values())
        given = [y, *inputs.values(), *fixed.values(), *adjoints]
        reached = [t for t in plan.trackers if isinstance(t, Local) and not scored.keys().isdisjoint(t.states)]
        return [_Traces(t, steps, scored, given) for t in reached]

    def _widths(self, plan: Plan) -> dict[str, int]:
        return {i.name: plan.layout.shape_of(plan.graph.input_values[i.name])[0] for i in plan.graph.inputs}

    def serves(self, weights: Tensors, inputs: Tensors, begin: Tensors) -> bool:
        """Whether these tensors can be given to the kernels as they are."""
        return (
            possible()
            and inputs.keys() == self._shapes.keys()
            and all(x.shape == self._shapes[n] and usable(x, self._dtype) for n, x in inputs.items())
            and all(type(w) in native.PLAIN and w.dtype is self._dtype and w.is_cpu for w in weights.values())
            and all(b.dtype is self._dtype and b.is_cpu for b in begin.values())
        )

    def follow(self, weights: Tensors, inputs: Tensors, begin: Tensors, first: Tensor) -> Tensor:
        """The states that it begins with, side by side `first` `[B, D]`, and those after each step with what trackers
        read of it, `[T + 1, B, size]`; what would be read stays open in the first row."""
        found = self._room()
        found[0, :, : first.shape[1]] = first
        self._call.forward(self._recipe.tensors(weights, inputs, begin, begin), keeping=False, y=found[1:])
        return found

    def held(self, weights: Tensors, inputs: Tensors, begin: Tensors) -> tuple[Held, Tensor]:
        """A run that begins with these states and is made again and again, and what it finds, as `follow` has it."""
        found = self._room()
        D = sum(self._plan.widths)
        found[0, :, :D] = torch.cat(list(begin.values()), -1)
        tensors = self._recipe.tensors(weights, inputs, begin, begin)
        return Held(self._call, tensors, range(len(inputs)), found[1:]), found

    def run(self, held: Held, weights: Tensors, inputs: Tensors) -> None:
        """Make it again with other weights and inputs."""
        held(self._recipe.fixed(weights), [inputs[n] for n in self._recipe.inputs])

    def pull(
        self,
        weights: Tensors,
        inputs: Tensors,
        found: Tensor,
        adjoints: Sequence[Tensor],
        states: tuple[str, ...] | None = None,
        *,
        kept: bool,
    ) -> tuple[tuple[Tensors, ...], dict[Value, Tensor]]:
        """The influence at the end, if it is to be kept, from none at the beginning; and the gradient of what has
        these adjoints in the states that it is `scored_in`, with what `follow` has `found`."""
        fixed = self._read_of_weights(weights).values() if self._read_of_weights else ()
        alive = [found, *(inputs[n] for n in self._shapes), *fixed, *(a.contiguous() for a in adjoints)]
        lie = [t.data_ptr() for t in alive]
        gradients: dict[Value, Tensor] = {}
        ends = tuple(traces.pull(lie, gradients, kept=kept) for traces in self._traces[states])
        return ends, gradients


class _Traces:
    """One tracker's kernel, bound to tensors that only show where others will lie."""

    def __init__(self, tracker: Local, steps: Steps, adjoints: Mapping[str, Tensor], given: Sequence[Tensor]) -> None:
        scored = {k: adjoints[s] for k, s in enumerate(tracker.states) if s in adjoints}
        form, d, u, pieces = tracker.moved(steps, 0, tuple(scored))
        self.tracker, self.like, self._tensors = tracker, steps.like, (d, u, pieces, list(scored.values()))
        self._kernel = traces(form, steps.like.dtype)
        self._nothing = tracker.begin(steps.B, steps.like)[tracker.name]
        self._free: list[BoundTraces] = []
        self.bound = self._kernel is not None and self._known(self._kernel, given)

    def _known(self, kernel: NativeTraces, given: Sequence[Tensor]) -> bool:
        """Find where each tensor lies within those that are `given`; constants stay where they are."""
        d, u, pieces, delta = self._tensors
        names = [*kernel.kernel.form.coefficients, *(f"v.{i}" for i in range(len(pieces)))]
        index = kernel.kernel.index(len(pieces))
        self._places: list[Place] = []
        for name, tensor in zip(names, [*d, *u, *delta, *pieces], strict=True):
            if evenly(tensor)[0].data_ptr() != tensor.data_ptr():
                return False
            found = _within(tensor, given)
            if found is None:
                return False
            self._places.append((index[name], *found))
        self._g, self._forget = index["g"], index["forget"]
        return True

    def _bind(self) -> BoundTraces:
        assert self._kernel is not None
        d, u, pieces, delta = self._tensors
        e, g = self._nothing, self.like.new_empty(self.tracker.shape)
        return self._kernel.bind(e, torch.empty_like(e), d, u, pieces, delta, g, self.tracker.bias)

    def pull(self, lie: Sequence[int], gradients: dict[Value, Tensor], *, kept: bool) -> Tensors:
        """Traces at the end, if they are to be kept, with tensors that lie there; the gradient is added to others."""
        tracker = self.tracker
        try:
            bound = self._free.pop()
        except IndexError:
            bound = self._bind()
        arguments = bound.arguments
        for place, number, offset in self._places:
            arguments[place] = lie[number] + offset
        total = self.like.new_zeros(tracker.shape)
        arguments[self._g], arguments[self._forget] = total.data_ptr(), not kept
        end = torch.empty_like(self._nothing)
        bound.move(self._nothing, end)
        self._free.append(bound)
        add(gradients, split(tracker.group, total, tracker.layout))
        return {tracker.name: end}


def _within(tensor: Tensor, given: Sequence[Tensor]) -> tuple[int, int] | None:
    """The number of the tensor whose memory this one lies in, and how far behind its first byte."""
    at = tensor.data_ptr()
    for number, whole in enumerate(given):
        if whole.data_ptr() <= at < whole.data_ptr() + whole.nbytes:
            return number, at - whole.data_ptr()
    return None
