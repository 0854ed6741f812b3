"""The gradient of a whole sequence by a forward rule, on a captured run from the layer's initial state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.equations.values import Value
from tidegate.gradients.cost import FREE_BYTES
from tidegate.gradients.influence.captured_run import CapturedRun, captured_run
from tidegate.gradients.influence.engine import InfluenceEngine, totals
from tidegate.gradients.influence.output import OutputCell

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Buffers:
    """A run whose buffers stay: the output in them where it is a state, or the states that the output reads."""

    run: CapturedRun
    y: Tensor
    states: Tensors


class CapturedGradient:
    """A layer under a rule, for inputs of one shape. `parameters` are the layer's by name."""

    @staticmethod
    def compile(engine: InfluenceEngine, x: Tensor) -> CapturedGradient | None:
        """The gradient for inputs like `x` `[T, B, I]`.

        None where the layer draws masks, learns starts, computes its weights, is batch-first or reads several inputs,
        where the rule makes several updates, or its trackers do not take part.
        """
        flat, plan = engine.flat, engine.plan
        if flat.layer.batch_first or flat.learns_starts or flat.graph.masks or len(flat.graph.inputs) != 1:
            return None
        if not all(w.attrs["learn"] for w in flat.graph.weights.values()):  # else a plan depends on their values
            return None
        if x.dim() != 3 or not 0 < x.shape[0] <= plan.at_once(x.shape[1]):
            return None
        if engine.rule.every is not None and engine.rule.every < x.shape[0]:
            return None
        if plan.most(x.shape[0], x.shape[1]) * x.element_size() > FREE_BYTES:  # then free memory is looked at
            return None
        T, B = x.shape[:2]
        run = captured_run(plan, T, B, x)
        output = None if run is None or plan.state_of_output else OutputCell.compile(plan, T, B, x)
        scored = (plan.state_of_output,) if plan.state_of_output else output.states if output else ()
        if run is None or not scored or not run.captures(scored):
            return None
        found = CapturedGradient(engine, run, output, scored, x.shape[1])
        return found if found.plain else None

    def __init__(
        self, engine: InfluenceEngine, run: CapturedRun, output: OutputCell | None, scored: tuple[str, ...], rows: int
    ) -> None:
        self._engine, self._output, self._scored = engine, output, scored
        flat = engine.flat
        self._input = flat.graph.inputs[0].name
        self._begin = flat.begin(rows, None)
        self._run, self._free = run, list[_Buffers]()
        self._values = engine.structure.parameters
        self.parameters: Tensors = dict(flat.layer.named_parameters())
        self._weights = flat.weights()
        hooked = any(m._forward_pre_hooks for m in flat.layer.modules())
        self.plain = not hooked and all(self.parameters.get(name) is w for name, w in self._weights.items())

    @property
    def nbytes(self) -> int:
        """The bytes of its runs' buffers: what they find, and the influence before and after."""
        return (1 + len(self._free)) * self._run.nbytes

    def serves(self) -> bool:
        """Whether the layer still has the same modules, tensors and options."""
        return self._engine.flat.unchanged()

    def __call__(self, x: Tensor, score: Callable[[Tensor], Tensor], learned: Sequence[Tensor]) -> list[Tensor] | None:
        """The gradients of `score(output)` by parameter; None if a tensor does not fit the kernels."""
        weights, inputs = self._weights, {self._input: x.detach()}
        if not self._run.fits(weights, inputs, self._begin):
            return None
        buffers = self._acquire()
        with torch.no_grad():
            found, _ = buffers.run.forward(weights, inputs, self._begin)
            y, forward = buffers.y, list[Tensor]()
            if self._output is not None:
                y, forward = self._output.forward(weights, inputs, buffers.states)
        leaf = y.detach().requires_grad_()
        value = score(leaf.clone())  # which may be changed in place
        dy, *direct = torch.autograd.grad(value, [leaf, *learned], allow_unused=True)
        pairs: list[tuple[Tensor, Tensor | None]] = []
        if dy is not None:
            with torch.no_grad():
                of_values, of_output = self._pulled(buffers.run, weights, inputs, found, dy, forward)
            pairs = [(weights[name], gradient) for name, gradient in of_output.items()]
            pairs += zip(self._engine.parameters(weights), map(of_values.get, self._values), strict=True)
        self._free.append(buffers)
        return totals(learned, direct, pairs)

    def _acquire(self) -> _Buffers:
        """A run from the layer's initial state that no other call uses."""
        try:
            return self._free.pop()
        except IndexError:
            run = self._run.starting(self._begin)
            run.captures(self._scored)
        found = run.found
        if self._output is None:
            return _Buffers(run, found[1:, :, self._engine.plan.places[self._scored[0]]], {})
        return _Buffers(run, found, self._output.states_of(found))

    def _pulled(
        self, run: CapturedRun, weights: Tensors, inputs: Tensors, found: Tensor, dy: Tensor, forward: list[Tensor]
    ) -> tuple[dict[Value, Tensor], dict[str, Tensor | None]]:
        """The gradients through the states, by value, and those of weights that the output reads directly."""
        of_output: dict[str, Tensor | None] = {}
        of_states = {self._scored[0]: dy}
        if self._output is not None:
            of_output, of_states = self._output.backward(dy, forward)
        gradients = [of_states[n].contiguous() for n in self._scored]
        return run.advance(weights, inputs, found, self._scored, gradients, None, keep=False)[1], of_output
