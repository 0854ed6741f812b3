"""Runs of one shape whose kernels know everything but where tensors lie.

To look at everything as the general way does takes a millisecond for each call, and a small net a tenth of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tidegate.equations.values import Rate, Value
from tidegate.gradients.influence.diagonal import DiagonalInfluence
from tidegate.gradients.influence.parameter_groups import add
from tidegate.gradients.influence.step_values import StepValues, split
from tidegate.native.run.workspace import LINE_BYTES
from tidegate.runtime import support
from tidegate.runtime.bound_call import Held
from tidegate.runtime.call_cache import possible, usable
from tidegate.runtime.eligibility import BoundTraces, NativeTraces, traces
from tidegate.runtime.kernel_call import CellKernel, evenly

if TYPE_CHECKING:
    from tidegate.gradients.influence.plan import RulePlan

Tensors = dict[str, Tensor]
Place = tuple[int, int, int]  # of an argument; the number of a tensor, and how many bytes behind its first one


class Known:
    """A plan's run of T steps and B rows, and the traces along it.

    `Known.made` gives None where there is no such run: masks, inputs that come once a sequence, what is read of a step
    made of other things than its vectors, or no kernels.
    """

    @staticmethod
    def made(plan: RulePlan, T: int, B: int, like: Tensor) -> Known | None:
        """The run, where there is one."""
        graph, run = plan.graph, plan.both or plan.following
        if not plan.reader.only_vectors or graph.masks or not T * B:
            return None
        if any(i.rate != Rate.INPUT for i in graph.inputs) or not support.fits(graph.name, [like]):
            return None
        cell = run.cell(like.dtype, indices=False)
        return None if cell is None else Known(plan, T, B, cell, like)

    def __init__(self, plan: RulePlan, T: int, B: int, cell: CellKernel, like: Tensor) -> None:
        self._plan, self._like, self._shape = plan, like.new_empty(0), (T, B)
        self._recipe, self._dtype = cell.recipe, like.dtype
        self._call = cell.call(T, B, backwards=False, lengths=None, reset=None)
        self._shapes = {n: (T, B, w) for n, w in self._widths(plan).items()}
        self._room = cell.room((1 + T, B, sum(plan.widths) + sum(plan.reader.widths)))
        self._read_of_weights = plan.reader.fixed if plan.reader.given else None
        self._traces: list[_Traces] | None = None

    @property
    def traced(self) -> bool:
        """Whether the rule keeps traces of all weights, each with the same inputs for all rows, moved by kernels."""
        if self._traces is None:
            D, (T, B), like = sum(self._plan.widths), self._shape, self._like
            adjoints = like.new_empty(T, B, D)
            each = dict(zip(self._plan.names, adjoints.split(self._plan.widths, -1), strict=True))
            inputs = {n: like.new_empty(shape) for n, shape in self._shapes.items()}
            self._traces = self._bound_to(self._room(), inputs, each, [adjoints])
        return bool(self._traces)

    def _bound_to(self, found: Tensor, inputs: Tensors, scored: Tensors, adjoints: Sequence[Tensor]) -> list[_Traces]:
        """The traces that reach what is scored, none if there are no kernels for one of them. Tensors that are given to
        them lie in what was found, the inputs, what weights alone make, and the adjoints."""
        plan, like, (T, B) = self._plan, self._like, self._shape
        if not all(isinstance(t, DiagonalInfluence) and t.blocks == 1 for t in plan.trackers):
            return []
        reader, graph, D = plan.reader, plan.graph, sum(plan.widths)
        env: dict[Value, Any] = dict(zip(reader.vectors, found[1:, :, D:].split(reader.widths, -1), strict=True))
        env |= {v: inputs[n] for n, v in graph.input_values.items()}
        old = dict(zip(plan.names, found[:-1, :, :D].split(plan.widths, -1), strict=True))
        env |= {v: old[n] for n, v in graph.old.items()}
        fixed = {v: like.new_empty(plan.layout.shape_of(v)) for v in reader.given}
        env |= {v: t.expand(T, B, *t.shape) for v, t in fixed.items()}
        steps = StepValues(plan.layout, env, (T, B), like)
        given = [found, *inputs.values(), *fixed.values(), *adjoints]
        reached = [
            t for t in plan.trackers if isinstance(t, DiagonalInfluence) and not scored.keys().isdisjoint(t.states)
        ]
        traces = [_Traces(t, steps, scored, given) for t in reached]
        return traces if all(t.bound for t in traces) else []

    def _widths(self, plan: RulePlan) -> dict[str, int]:
        return {i.name: plan.layout.shape_of(plan.graph.input_values[i.name])[0] for i in plan.graph.inputs}

    def serves(self, weights: Tensors, inputs: Tensors, begin: Tensors) -> bool:
        """Whether these tensors can be given to the kernels as they are."""
        return (
            possible()
            and inputs.keys() == self._shapes.keys()
            and all(x.shape == self._shapes[n] and usable(x, self._dtype) for n, x in inputs.items())
            and all(type(w) in support.PLAIN and w.dtype is self._dtype and w.is_cpu for w in weights.values())
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

    def held_traces(self, found: Tensor, inputs: Tensors, adjoints: Tensors, *, still: bool) -> HeldTraces:
        """The traces along what `held` finds, for adjoints `[T, B, n]` in some states, which always lie there if they
        are `still`."""
        made = self._bound_to(found, inputs, adjoints, list(adjoints.values()))
        moving = len(inputs) + len(self._plan.reader.given) + (0 if still else len(adjoints))
        return HeldTraces(made, moving, self._like)

    def pull(
        self, weights: Tensors, inputs: Tensors, found: Tensor, adjoints: Tensor, *, kept: bool
    ) -> tuple[tuple[Tensors, ...], dict[Value, Tensor]]:
        """The influence at the end, if it is to be kept, from none at the beginning; and the gradient of what has
        these adjoints `[T, B, D]`, with what `follow` has `found`."""
        alive = [found, *self.moving(weights, inputs), adjoints.contiguous()]
        lie = [t.data_ptr() for t in alive]
        gradients: dict[Value, Tensor] = {}
        ends = tuple(traces.pull(lie, gradients, kept=kept) for traces in self._traces or ())
        return ends, gradients

    def moving(self, weights: Tensors, inputs: Tensors) -> list[Tensor]:
        """What traces read besides what was found: inputs, and what weights alone make."""
        fixed = self._read_of_weights(weights).values() if self._read_of_weights else ()
        return [*(inputs[n] for n in self._shapes), *fixed]


class HeldTraces:
    """Traces between tensors that stay where they are, but for the first few behind what was found."""

    def __init__(self, traces: Sequence[_Traces], moving: int, like: Tensor) -> None:
        self._like, self._calls, self._size = like, [t.bind() for t in traces], 0
        self.nbytes = sum(t.nbytes for t in traces)
        self._places: list[tuple[Any, list[Place], int, int]] = []
        self._parts: list[tuple[Value, torch.Size, tuple[int, ...], int]] = []
        self._rest: list[tuple[DiagonalInfluence, int]] = []
        for each, call in zip(traces, self._calls, strict=True):
            places = [(place, number - 1, offset) for place, number, offset in each.places if 0 < number <= moving]
            self._places.append((call.arguments, places, each.g, self._size * like.element_size()))
            call.arguments[each.forget] = 1
            self._part(each.tracker)

    def _part(self, tracker: DiagonalInfluence) -> None:
        """Find where each parameter's gradient lies in one tensor for all of them."""
        (K, V), begin = tracker.shape, self._size
        self._size += -(-K * V // LINE_BYTES) * LINE_BYTES
        whole = torch.empty(self._size)
        parts = split(tracker.group, whole[begin : begin + K * V].view(K, V), tracker.layout)
        if any(t.untyped_storage().data_ptr() != whole.data_ptr() for t in parts.values()):
            self._rest.append((tracker, begin))  # one of them is a sum
        else:
            self._parts += [(v, t.shape, t.stride(), int(t.storage_offset())) for v, t in parts.items()]

    def __call__(self, moving: Sequence[Tensor]) -> dict[Value, Tensor]:
        """The gradient, with what has moved there."""
        lie, total = [t.data_ptr() for t in moving], self._like.new_zeros(self._size)
        base = total.data_ptr()
        for (arguments, places, g, begin), call in zip(self._places, self._calls, strict=True):
            for place, number, offset in places:
                arguments[place] = lie[number] + offset
            arguments[g] = base + begin
            call()
        found: dict[Value, Tensor] = {}
        for value, shape, stride, begin in self._parts:
            part = total.as_strided(shape, stride, begin)
            found[value] = found[value] + part if value in found else part
        for tracker, begin in self._rest:
            K, V = tracker.shape
            add(found, split(tracker.group, total[begin : begin + K * V].view(K, V), tracker.layout))
        return found


class _Traces:
    """One tracker's kernel, bound to tensors that only show where others will lie: `places` of those among `given`."""

    def __init__(
        self, tracker: DiagonalInfluence, steps: StepValues, adjoints: Mapping[str, Tensor], given: Sequence[Tensor]
    ) -> None:
        scored = {k: adjoints[s] for k, s in enumerate(tracker.states) if s in adjoints}
        form, d, u, pieces = tracker.moved(steps, 0, tuple(scored))
        self.tracker, self.like, self._tensors = tracker, steps.like, (d, u, pieces, list(scored.values()))
        self._kernel = traces(form, steps.like.dtype)
        self._nothing = tracker.begin(steps.B, steps.like)[tracker.name]
        self.nbytes = 2 * self._nothing.nbytes
        self._free: list[BoundTraces] = []
        self.bound = self._kernel is not None and self._known(self._kernel, given)

    def _known(self, kernel: NativeTraces, given: Sequence[Tensor]) -> bool:
        """Find where each tensor lies within those that are `given`; constants stay where they are."""
        d, u, pieces, delta = self._tensors
        names = [*kernel.kernel.form.coefficients, *(f"v.{i}" for i in range(len(pieces)))]
        index = kernel.kernel.index(len(pieces))
        self.places: list[Place] = []
        for name, tensor in zip(names, [*d, *u, *delta, *pieces], strict=True):
            if evenly(tensor)[0].data_ptr() != tensor.data_ptr():
                return False
            found = _within(tensor, given)
            if found is None:
                return False
            self.places.append((index[name], *found))
        self.g, self.forget = index["g"], index["forget"]
        return True

    def bind(self) -> BoundTraces:
        """A call of the kernel between these tensors, from no influence on."""
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
            bound = self.bind()
        arguments = bound.arguments
        for place, number, offset in self.places:
            arguments[place] = lie[number] + offset
        total, end = self.like.new_zeros(tracker.shape), torch.empty_like(self._nothing)
        arguments[self.g], arguments[self.forget] = total.data_ptr(), not kept
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
