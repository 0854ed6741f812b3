"""`InfluenceEngine`: a layer whose backward pass is a forward rule's recursion from the first step to the last.

A run first computes the states. When autograd passes in the gradients of its outputs, the influence of the weights on
the states is computed from the first step on, and the gradient is summed along the way. Inputs and states of each step
are stored, and in short runs the values that the rule reads. Anything before and after the layer (readouts, losses) is
differentiated by torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function

from tidegate.equations.values import Value
from tidegate.errors import ArgumentError
from tidegate.gradients.cost import COPIES, FREE_BYTES, free_memory, kept, too_large
from tidegate.gradients.forward_rules import Forward
from tidegate.gradients.influence.captured_run import CapturedRun, captured_run
from tidegate.gradients.influence.parameter_groups import add
from tidegate.gradients.influence.plan import plan
from tidegate.gradients.influence.step_values import StepValues
from tidegate.nn.arguments import Batch, check_types
from tidegate.nn.flatten import FRESH, FlattenedLayer, flat_inputs
from tidegate.nn.state import State
from tidegate.reference import bound, leaves
from tidegate.reference import torch_ops as xp
from tidegate.reference.unroll import UnrollArguments, refilled, valid_steps

Tensors = dict[str, Tensor]
Optional = Tensor | None
Influence = tuple[Tensors, ...]  # by tracker


@dataclass(frozen=True, eq=False)
class InfluenceState:
    """A rule's memory of a layer's past: the states, and the influence of the weights on them by tracker."""

    states: Tensors
    influence: Influence


@dataclass(frozen=True, eq=False)
class Read:
    """States, and the values that trackers read of each step, `[T, B, size]`; by a captured `run` `[T + 1, B, size]`,
    with the states before the first step."""

    found: Tensor
    run: CapturedRun | None


class InfluenceEngine:
    """A layer under a forward rule: runs of the layer, and their gradients. `whole` steps include the new states and
    the output."""

    def __init__(self, layer: nn.Module, rule: Forward, *, whole: bool = False) -> None:
        self.flat, self.rule = FlattenedLayer(layer), rule
        self.plan = plan(self.flat.graph, tuple(self.flat.sizes.items()), rule, whole, self.flat.weights)
        self.structure, self.layout, self.reader = self.plan.structure, self.plan.layout, self.plan.reader
        self.names, self.widths, self.trackers = self.plan.names, self.plan.widths, self.plan.trackers

    def check_fits(self, steps: int, rows: int, like: Tensor) -> None:
        """Raise ArgumentError if the influence for `rows` rows exceeds free memory."""
        size, graph = like.element_size(), self.flat.graph
        wanted = size * self.plan.most(steps, rows)
        if like.device.type == "cpu" and wanted > FREE_BYTES and wanted > (free := free_memory()):
            others = {r: [t.cost(rows) for t in r.trackers(self.layout)] for r in self.rule.cheaper(graph)}
            small = {
                f"{type(r).__name__}()": size * kept(c) for r, c in others.items() if size * COPIES * kept(c) <= free
            }
            name = f"{type(self.rule).__name__} of {graph.name!r}"
            raise ArgumentError(too_large(name, self.plan.costs(rows), rows, size, free, small))

    def parameters(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """The values of weights whose gradients the rule computes; torch differentiates what they are computed from."""
        if self.plan.learned is not None:
            return [weights[name] for name in self.plan.learned]
        env: dict[Value, Any] = {self.flat.graph.weights[name]: w for name, w in weights.items()}
        return [torch.as_tensor(p) for p in self.plan.parameters(xp, self.flat.sizes, env)]

    def given(self, batch: Batch, weights: Tensors, carried: bool) -> tuple[Tensors, Tensors]:
        """Weights and inputs of a call as the equations read them: masks drawn, starts flagged, padding filled."""
        like = next(iter(weights.values()))
        inputs = flat_inputs(self.flat, batch.inputs, like)
        if batch.lengths is not None:
            inputs = {n: refilled(x, batch.lengths) if n in self.plan.moving else x for n, x in inputs.items()}
        if self.flat.learns_starts:
            flags = like.new_zeros(batch.steps, batch.rows, 1) if batch.reset is None else batch.reset.unsqueeze(-1)
            flags = flags.to(like.dtype)
            if not carried and batch.steps:
                flags = torch.cat([torch.ones_like(flags[:1]), flags[1:]])
            inputs[FRESH] = flags
        return self.plan.masks.weights(weights, like), self.plan.masks.inputs(batch.steps, batch.rows, inputs, like)

    def nothing(self, rows: int, like: Tensor) -> Influence:
        """Zero influence."""
        return tuple(tracker.begin(rows, like) for tracker in self.trackers)

    def advance(
        self, influence: Influence, steps: StepValues, gradients: Mapping[str, Tensor] | None
    ) -> tuple[Influence, dict[Value, Tensor]]:
        """The influence after some steps, and the gradient of a loss with these gradients `[T, B, n]` in the states."""
        found: dict[Value, Tensor] = {}
        moved = []
        for tracker, memory in zip(self.trackers, influence, strict=True):
            new, gradient = tracker.advance(memory, steps, gradients)
            moved.append(new)
            add(found, gradient)
        return tuple(moved), found

    def gradient(self, influence: Influence, gradients: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """The gradient of a loss with these gradients `[B, n]` in the current states."""
        found: dict[Value, Tensor] = {}
        for tracker, memory in zip(self.trackers, influence, strict=True):
            add(found, tracker.gradient(memory, gradients))
        return found

    def steps(
        self,
        given: UnrollArguments,
        old: Tensors,
        read: Mapping[Value, Tensor] | None = None,
        new: Tensors | None = None,
    ) -> StepValues:
        """Steps with the values that trackers read, of which vectors may have been `read` before and `new` states
        be known; `old` are the states before each."""
        like = next(iter(old.values()))
        T, B = like.shape[:2]
        with torch.no_grad():
            env = self.reader(given, old, read)
        for name, state in (new or {}).items():
            value = self.flat.graph.new[name]
            if not value.is_leaf and self.layout.shape_of(value) == (state.shape[-1],):
                env[value] = state
        valid = None if given.lengths is None else valid_steps(T, given.lengths)
        return StepValues(self.layout, env, (T, B), like, given.reset, valid)

    def arguments(
        self, weights: Tensors, inputs: Tensors, begin: Tensors, lengths: Optional = None, reset: Optional = None
    ) -> UnrollArguments:
        """What a run of the cell from these states is given."""
        starts = begin if reset is None else self.flat.starts()
        return UnrollArguments(weights, inputs, begin, starts, lengths, reset)

    def follow(
        self, weights: Tensors, inputs: Tensors, begin: Tensors, batch: Batch, *, reading: bool
    ) -> tuple[Tensor, Read | None]:
        """All states before the first step and after each, `[T + 1, B, units]`.

        The same run computes what trackers read, if wanted and small enough to be stored.
        """
        first = torch.cat([begin[name] for name in self.names], -1)
        if not batch.steps:
            return first.unsqueeze(0), None
        both = self.plan.both if reading and batch.steps <= self.plan.at_once(batch.rows) else None
        captured = self._captured(weights, inputs, begin, batch) if both else None
        with torch.no_grad():
            if captured is not None:
                found, _ = captured.forward(weights, inputs, begin)
                return found[..., : sum(self.widths)], Read(found, captured)
            run = both or self.plan.following
            found = run(self.arguments(weights, inputs, begin, batch.lengths, batch.reset))[0]
            states = torch.cat([first.unsqueeze(0), found[..., : sum(self.widths)]])
        return states, Read(found, None) if both else None

    def _captured(self, weights: Tensors, inputs: Tensors, begin: Tensors, batch: Batch) -> CapturedRun | None:
        """The captured run of a call, if it has one."""
        if batch.lengths is not None or batch.reset is not None:
            return None
        found = captured_run(self.plan, batch.steps, batch.rows, next(iter(weights.values())))
        return found if found is not None and found.fits(weights, inputs, begin) else None

    def vectors(self, read: Read) -> dict[Value, Tensor]:
        """The values that trackers read."""
        steps = read.found if read.run is None else read.found[1:]
        parts = steps[..., sum(self.widths) :].split(self.reader.widths, -1)
        return dict(zip(self.reader.vectors, parts, strict=True))

    def before(self, old: Tensor, reset: Tensor | None) -> Tensors:
        """The states before each step, `[T, B, size]` by name, given the `old` ones before the first."""
        found = self.plan.apart(old)
        if reset is None:
            return found
        starts, chosen = self.flat.starts(), reset.unsqueeze(-1)
        return {name: torch.where(chosen, starts[name], old) for name, old in found.items()}

    def output(self, weights: Tensors, inputs: Tensors, new: Tensor, old: Sequence[Tensor], batch: Batch) -> Tensor:
        """The layer's output `[T, B, size]` from its states after each step, and before it if needed."""
        after = self.plan.apart(new)
        if self.plan.state_of_output is not None:
            y = after[self.plan.state_of_output]
        else:
            graph = self.flat.graph
            before = self.before(old[0][: batch.steps], batch.reset) if self.plan.reads_old else {}
            env = leaves(graph, weights, inputs, before)
            env |= {graph.new[name]: a for name, a in after.items() if not graph.new[name].is_leaf}
            (found,) = self.plan.outputs(xp, self.flat.sizes, env)
            y = found.expand(batch.steps, batch.rows, *bound(graph.output_size, self.flat.sizes))
        if batch.lengths is None:
            return y
        return torch.where(valid_steps(batch.steps, batch.lengths).unsqueeze(-1), y, 0.0)

    def run(
        self, x: Any, state: State | None, past: InfluenceState | None, lengths: Any = None, reset: Any = None
    ) -> "tuple[EngineRun, Tensors]":
        """The segment of a call, and the weights as autograd knows them."""
        batch = Batch(self.flat.declared, x, lengths, reset, self.flat.layer.batch_first, self.flat.sizes)
        raw = self.flat.weights()
        like = next(iter(raw.values()))
        check_types(batch, like)
        self.check_fits(batch.steps, batch.rows, like)
        weights, inputs = self.given(batch, raw, carried=state is not None)
        begin = self.flat.begin(batch.rows, state)
        given = detached(weights), detached(inputs)
        states, read = self.follow(*given, begin, batch, reading=torch.is_grad_enabled())
        return EngineRun(self, past, *given, states, read, batch), weights

    def __call__(
        self, x: Any, state: State | None, past: InfluenceState | None, lengths: Any = None, reset: Any = None
    ) -> "tuple[Any, State, EngineRun]":
        """The layer's output and state, whose gradients are the rule's, and the segment that remembers the rest."""
        segment, weights = self.run(x, state, past, lengths, reset)
        batch = segment.batch
        new, *old = _EngineFunction.apply(segment, *self.parameters(weights))
        y = self.output(weights, segment.inputs, new, old, batch)
        return batch.restore(y), self.flat.state(self.plan.apart(_ends(new, old, batch))), segment


def totals(
    learned: Sequence[Tensor], direct: Iterable[Optional], pairs: Iterable[tuple[Tensor, Optional]]
) -> list[Tensor]:
    """The gradients of the parameters: the `direct` ones plus those through values computed from parameters."""
    found = {id(t): g for t, g in zip(learned, direct, strict=True) if g is not None}
    made = []
    for tensor, gradient in pairs:
        if gradient is None or not tensor.requires_grad:
            continue
        if tensor.is_leaf:
            known = found.get(id(tensor))
            found[id(tensor)] = gradient if known is None else known + gradient
        else:
            made.append((tensor, gradient))
    if made:
        through = torch.autograd.grad([t for t, _ in made], learned, [g for _, g in made], allow_unused=True)
        return totals(learned, through, zip(learned, map(found.get, map(id, learned)), strict=True))
    return [torch.zeros_like(t) if id(t) not in found else found[id(t)] for t in learned]


def _ends(new: Tensor, old: Sequence[Tensor], batch: Batch) -> Tensor:
    """The states at the end of each row."""
    if batch.lengths is None and batch.steps:
        return new[-1]
    (before,) = old
    if batch.lengths is None:
        return before[0]
    return torch.cat([before[:1], new])[batch.lengths, torch.arange(batch.rows)]


def detached(tensors: Mapping[str, Tensor]) -> Tensors:
    """Tensors by name, through which no gradient flows."""
    return {name: t.detach() for name, t in tensors.items()}


@dataclass(eq=False)
class EngineRun:
    """One call of a layer: its states, and the influence that a rule finds along them."""

    engine: InfluenceEngine
    past: InfluenceState | None
    weights: Tensors
    inputs: Tensors
    states: Tensor
    read: Read | None
    batch: Batch
    _end: InfluenceState | None = None

    @property
    def end(self) -> InfluenceState:
        """The memory at its end."""
        if self._end is None:
            self.pull(None)
        assert self._end is not None
        return self._end

    def parts(self) -> tuple[Tensor, ...]:
        """The states after each step, and where the output wants them those before each, of no step at all those at the
        beginning. They are apart from each other, for torch takes a slice back by adding it to zeros."""
        T, batch = self.batch.steps, self.batch
        wanted = self.engine.plan.reads_old or batch.lengths is not None or not T
        return (self.states[1:], self.states[: max(T, 1)]) if wanted else (self.states[1:],)

    def gradients(self, after: Tensor | None, before: Tensor | None = None) -> list[Tensor | None]:
        """The gradients of what has these gradients in its parts, by parameter."""
        first = None
        if before is not None:
            first, later = before[0], before[1:]
            after = torch.zeros_like(before) if after is None else after.clone()
            after[:-1] += later
        found = self.pull(after, first)
        return [found.get(v) for v in self.engine.structure.parameters]

    def scored(self, weights: Tensors, score: Callable[[Any], Tensor], learned: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of the score of the layer's output, for these tensors: the same as autograd through a call.

        Here the layer is not part of autograd's graph, where small nets spend most of their time.
        """
        engine = self.engine
        leaves = [part.detach().requires_grad_() for part in self.parts()]
        new, *old = [leaf.clone() for leaf in leaves]  # clones, since the score may change them in place
        value = score(self.batch.restore(engine.output(weights, self.inputs, new, old, self.batch)))
        values = engine.parameters(weights)
        again = not all(v.is_leaf for v in values)
        gradients = torch.autograd.grad(value, [*leaves, *learned], allow_unused=True, retain_graph=again)
        found = self.gradients(*gradients[: len(leaves)])
        return totals(learned, gradients[len(leaves) :], zip(values, found, strict=True))

    def pull(self, gradients: Tensor | None, first: Tensor | None = None) -> dict[Value, Tensor]:
        """The gradients of what has these gradients `[T, B, units]` in the states after the steps, and `[B, units]` in
        those before the `first`, by value of weights."""
        engine, T = self.engine, self.batch.steps
        if gradients is not None and self.past is None and self.read and self.read.run and self.read.run.captures(None):
            return self._pull_captured(self.read.run, self.read.found, gradients)
        influence = engine.nothing(self.batch.rows, self.states) if self.past is None else self.past.influence
        found: dict[Value, Tensor] = {}
        if first is not None and self.past is not None:
            add(found, engine.gradient(influence, engine.plan.apart(first)))
        named = None if gradients is None else engine.plan.apart(gradients)
        width = engine.plan.at_once(self.batch.rows)
        for start in range(0, T, width):
            steps = self._steps(start, min(start + width, T))
            part = None if named is None else {n: a[start : start + steps.T] for n, a in named.items()}
            influence, more = engine.advance(influence, steps, part)
            add(found, more)
        self._end = InfluenceState(engine.plan.apart(self.states[-1]), influence)
        return found

    def _pull_captured(self, run: CapturedRun, found: Tensor, gradients: Tensor) -> dict[Value, Tensor]:
        keep = self.engine.rule.every is not None  # another segment may continue from here
        influence, total = run.advance(
            self.weights, self.inputs, found, None, [gradients.contiguous()], None, keep=keep
        )
        if keep:
            self._end = InfluenceState(self.engine.plan.apart(self.states[-1]), influence)
        return total

    def _steps(self, start: int, stop: int) -> StepValues:
        engine, batch = self.engine, self.batch
        reset = None if batch.reset is None else batch.reset[start:stop]
        lengths = None if batch.lengths is None else (batch.lengths - start).clamp(0, stop - start)
        inputs = {n: x[start:stop] if n in engine.plan.moving else x for n, x in self.inputs.items()}
        begin = engine.plan.apart(self.states[start])
        old = engine.before(self.states[start:stop], reset)
        read = None if self.read is None else engine.vectors(self.read)
        new = engine.plan.apart(self.states[start + 1 : stop + 1])
        return engine.steps(engine.arguments(self.weights, inputs, begin, lengths, reset), old, read, new)


class _EngineFunction(Function):
    """The parts of a segment as a function of the weights, by the derivative that a rule finds."""

    @staticmethod
    def forward(ctx: Any, segment: EngineRun, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.segment = segment
        ctx.save_for_backward(*parameters, *segment.weights.values(), *segment.inputs.values())
        ctx.set_materialize_grads(False)
        return tuple(part.clone() for part in segment.parts())  # clones, since the caller may change them in place

    @staticmethod
    def backward(ctx: Any, after: Tensor | None, before: Tensor | None = None) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # torch raises here if one was changed in place
        return None, *ctx.segment.gradients(after, before)
