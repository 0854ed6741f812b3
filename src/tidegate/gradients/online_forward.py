"""Forward rules on a stream, step by step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.equations.values import Rate, Value
from tidegate.errors import ArgumentError
from tidegate.gradients.forward_rules import Forward
from tidegate.gradients.influence.captured_run import captured_run
from tidegate.gradients.influence.engine import InfluenceEngine, InfluenceState, detached
from tidegate.gradients.influence.parameter_groups import add
from tidegate.nn.arguments import Batch, check_types
from tidegate.nn.state import State
from tidegate.reference import Program
from tidegate.reference import torch_ops as xp

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class ForwardMemory:
    """The states, the influence of the weights on them, and the last step if the output is not a state; `begun` is
    False before the first step."""

    engine: InfluenceEngine
    past: InfluenceState
    taken: "Taken | None" = None
    begun: bool = False

    @property
    def state(self) -> State:
        """The layer's state."""
        return self.engine.flat.state(self.past.states)

    def tensors(self) -> Tensors:
        """`begun`, `state.l0.h` ..., and `influence.0.NAME` ... of each tracker; without the values that the last step
        read."""
        found = {"begun": torch.tensor(self.begun)}
        found |= {f"state.{name}": t for name, t in self.past.states.items()}
        for k, tracked in enumerate(self.past.influence):
            found |= {f"influence.{k}.{name}": t for name, t in tracked.items()}
        return found


@dataclass(frozen=True, eq=False)
class Taken:
    """One step: the influence before it, and what its output is computed from."""

    before: tuple[Tensors, ...]
    weights: Tensors
    inputs: Tensors
    old: Tensors


class OnlineForward:
    """A layer under a forward rule, one step at a time.

    A step costs one step of the rule's recursion, and a memory holds the rule's influence: neither grows. The
    parameters are those of the layer that require a gradient when this is created.
    """

    def __init__(self, layer: nn.Module, rule: Forward) -> None:
        self.layer, self.engine = layer, InfluenceEngine(layer, rule, whole=True)
        graph = self.engine.flat.graph
        self._state = next((name for name, v in graph.new.items() if v is graph.output), None)
        self._output = graph.new[self._state] if self._state else graph.output
        self._learned = {name: p for name, p in layer.named_parameters() if p.requires_grad}
        flat = self.engine.flat
        self._weights = flat.weights()
        own = dict(layer.named_parameters()) | dict(layer.named_buffers())
        self._plain = all(own.get(name) is w for name, w in self._weights.items())
        leaves = [v for v in self.engine.structure.parameters if v.op == "weight"]
        self._names = {v: v.attrs["name"] for v in leaves if v.attrs["name"] in self._learned} if self._plain else {}

    def begin(self, batch: int = 1) -> ForwardMemory:
        """The initial state with zero influence. Raises ArgumentError if there is not enough free memory."""
        states = self.engine.flat.begin(batch, None)
        like = next(iter(states.values()))
        self.engine.check_fits(1, batch, like)
        return ForwardMemory(self.engine, InfluenceState(states, self.engine.nothing(batch, like)))

    def step(self, memory: ForwardMemory, x_t: Any) -> tuple[Tensor, ForwardMemory]:
        """One step with `x_t` `[B, I]`: the output `[B, size]`, detached, and the new memory."""
        flat = self.engine.flat
        named = x_t if isinstance(x_t, Mapping) else {flat.graph.inputs[0].name: x_t}
        weights = self._weights if self._plain else detached(flat.weights())
        if self._state and not flat.learns_starts:
            found = self._captured(memory, named, weights)
            if found is not None:
                return found
        return self._step(memory, named, detached(weights))

    def _captured(
        self, memory: ForwardMemory, named: Mapping[str, Any], weights: Tensors
    ) -> tuple[Tensor, ForwardMemory] | None:
        """The step as a captured run of one step; None if the inputs do not fit one."""
        plan, old = self.engine.plan, memory.past.states
        like = next(iter(old.values()))
        run = captured_run(plan, 1, len(like), like)
        if run is None or not run.captures(()) or not all(isinstance(x, Tensor) for x in named.values()):
            return None
        inputs = {n: x.unsqueeze(0) for n, x in named.items()}
        if not run.fits(weights, inputs, old):
            return None
        new, influence = run.move(weights, inputs, old, memory.past.influence)
        return new[str(self._state)], ForwardMemory(self.engine, InfluenceState(new, influence), None, True)

    def _step(self, memory: ForwardMemory, named: Mapping[str, Any], raw: Tensors) -> tuple[Tensor, ForwardMemory]:
        engine, flat = self.engine, self.engine.flat
        once = {i.name for i in flat.graph.inputs if i.rate == Rate.SEQUENCE}
        timed = {n: x if n in once else x.unsqueeze(0) for n, x in named.items()}
        batch = Batch(flat.declared, timed, None, None, False, flat.sizes)
        rows = len(next(iter(memory.past.states.values())))
        if batch.rows != rows:
            raise ArgumentError(
                f"x_t must have {rows} rows as the memory has, got {batch.rows}: or call begin({batch.rows})"
            )
        check_types(batch, next(iter(raw.values())))
        with torch.no_grad():
            weights, inputs = engine.given(batch, raw, carried=memory.begun)
            old = memory.past.states
            before = {n: t.unsqueeze(0) for n, t in old.items()}
            steps = engine.steps(engine.arguments(weights, inputs, old), before)
            influence, _ = engine.advance(memory.past.influence, steps, None)
            new = {s.name: steps.state(s.name).squeeze(0) for s in flat.graph.states}
            y = new[self._state] if self._state else steps[self._output].squeeze(0)
        taken = None if self._state else Taken(memory.past.influence, weights, inputs, old)
        return y, ForwardMemory(engine, InfluenceState(new, influence), taken, True)

    def gradient(self, memory: ForwardMemory, dy: Tensor) -> Tensors:
        """The gradients by parameter, sums over the rows, of a loss with gradient `dy` `[B, size]` in the output."""
        if self._state:
            found = self._of_weights(self.engine.gradient(memory.past.influence, {self._state: dy}))
        elif memory.taken is not None:
            found = self._of_output(memory, dy)
        else:
            found = {}
        return {name: found[name] if name in found else torch.zeros_like(p) for name, p in self._learned.items()}

    def _of_output(self, memory: ForwardMemory, dy: Tensor) -> Tensors:
        """Gradients through the states, and those of weights that the output reads directly."""
        assert memory.taken is not None
        new, old, found = self._pulled(memory, dy)
        of_values = self.engine.gradient(memory.past.influence, new)
        add(of_values, self.engine.gradient(memory.taken.before, old))
        for name, gradient in self._of_weights(of_values).items():
            found[name] = found[name] + gradient
        return found

    def _pulled(self, memory: ForwardMemory, dy: Tensor) -> tuple[Tensors, Tensors, Tensors]:
        """The vjp of an output that is not a state: gradients of new states, old states and weights."""
        graph, taken = self.engine.flat.graph, memory.taken
        assert taken is not None
        with torch.enable_grad():
            raw = self.engine.flat.weights()
            new = {n: t.clone().requires_grad_() for n, t in memory.past.states.items()}
            old = {n: t.clone().requires_grad_() for n, t in taken.old.items()}
            env: dict[Value, Any] = {graph.weights[n]: raw.get(n, w) for n, w in taken.weights.items()}
            env |= {v: taken.inputs[n] for n, v in graph.input_values.items()}
            env |= {v: old[n].unsqueeze(0) for n, v in graph.old.items()}
            env |= {graph.new[n]: a.unsqueeze(0) for n, a in new.items() if not graph.new[n].is_leaf}
            (y,) = Program([graph.output], given=env)(xp, self.engine.flat.sizes, env)
        parameters = self._learned
        leaves = [*new.values(), *old.values(), *parameters.values()]
        gradients = torch.autograd.grad(y.expand(1, *dy.shape), leaves, dy.unsqueeze(0), materialize_grads=True)
        names = iter(gradients)
        return ({n: next(names) for n in new}, {n: next(names) for n in old}, {n: next(names) for n in parameters})

    def _of_weights(self, found: Mapping[Value, Tensor]) -> Tensors:
        """The gradients of the parameters, from those of the values of weights that a step reads."""
        if all(v in self._names for v in found):
            return {self._names[v]: g for v, g in found.items()}
        raw, parameters = self.engine.flat.weights(), self._learned
        with torch.enable_grad():
            values = dict(zip(self.engine.structure.parameters, self.engine.parameters(raw), strict=True))
        wanted = [(values[v], g) for v, g in found.items() if values[v].requires_grad]
        outputs, given = [w for w, _ in wanted], [g for _, g in wanted]
        gradients = torch.autograd.grad(outputs, list(parameters.values()), given, materialize_grads=True)
        return dict(zip(parameters, gradients, strict=True))

    def restored(self, tensors: Mapping[str, Tensor]) -> ForwardMemory:
        """The memory whose `tensors()` these are. Raises ArgumentError for other tensors."""
        states = {n: tensors[f"state.{n}"] for n in self.engine.names if f"state.{n}" in tensors}
        if len(states) != len(self.engine.names):
            raise self._strange(tensors)
        own = self.begin(next(iter(states.values())).shape[0])
        if _forms(own.tensors()) != _forms(tensors):
            raise self._strange(tensors)
        influence = [
            {name: tensors[f"influence.{k}.{name}"] for name in tracked} for k, tracked in enumerate(own.past.influence)
        ]
        return ForwardMemory(self.engine, InfluenceState(states, tuple(influence)), None, bool(tensors["begun"]))

    def _strange(self, tensors: Mapping[str, Tensor]) -> ArgumentError:
        return ArgumentError(
            f"expected the tensors of a memory of this layer under {self.engine.rule}, got {len(tensors)} tensors that "
            "do not fit: pass those of a memory of the same layer and rule"
        )

    def bytes(self, batch: int = 1) -> int:
        """The bytes of one memory: the influence of two steps if the output reads old states, else of one."""
        return sum(t.nbytes for t in self.begin(batch).tensors().values())


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: (t.shape, t.dtype) for name, t in tensors.items()}
