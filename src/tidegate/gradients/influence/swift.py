"""One step of a layer under a rule that needs nothing but traces: kernels that are bound once, and read in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.equations.values import Rate, Value
from tidegate.gradients.influence.diagonal import DiagonalInfluence
from tidegate.gradients.influence.engine import Influence, InfluenceEngine
from tidegate.gradients.influence.step_values import StepValues
from tidegate.reference import bound
from tidegate.runtime import support
from tidegate.runtime.bound_step import NativeStep
from tidegate.runtime.eligibility import BoundTraces, traces

Tensors = dict[str, Tensor]


class Swift:
    """The step for `rows` rows. A call gives what the general way gives, to the last bit, in a tenth of the time.

    `Swift.made` gives None where there is no such step: a rule that keeps matrices, an output that is no state, inputs
    that come once a sequence, masks, learned starts, blocks, or no kernels.
    """

    @staticmethod
    def made(machine: InfluenceEngine, rows: int, weights: Mapping[str, Tensor]) -> Swift | None:
        """The step, where there is one."""
        flat, graph = machine.flat, machine.flat.graph
        numbers = list(weights.values())
        alone = all(isinstance(t, DiagonalInfluence) and t.blocks == 1 for t in machine.trackers)
        plain = alone and not graph.masks and not flat.learns_starts and machine.reader.only_vectors
        plain = plain and any(v is graph.output for v in graph.new.values())
        if not plain or not rows or any(i.rate != Rate.INPUT for i in graph.inputs):
            return None
        if not support.enabled() or not support.fits(graph.name, numbers):
            return None
        run = machine.reader.run
        cell = None if run is None else run.cell(numbers[0].dtype, False)
        return None if cell is None else Swift(machine, rows, weights, cell)

    def __init__(self, machine: InfluenceEngine, rows: int, weights: Mapping[str, Tensor], cell: Any) -> None:
        self.machine, self.rows = machine, rows
        flat, graph, self.kind = machine.flat, machine.flat.graph, cell.numpy_type
        made = {n: np.zeros((rows, w), self.kind) for n, w in zip(machine.names, machine.widths, strict=True)}
        self.old = {n: torch.from_numpy(a) for n, a in made.items()}
        ends = {n: np.zeros_like(a) for n, a in made.items()}
        self.new = {n: torch.from_numpy(a) for n, a in ends.items()}
        inputs = {i.name: np.zeros((rows, *bound(i.size, flat.sizes)), self.kind) for i in graph.inputs}
        self.inputs = {n: torch.from_numpy(a) for n, a in inputs.items()}
        output = np.zeros((rows, sum(machine.reader.widths)), self.kind)
        starts = {n: a.numpy() for n, a in flat.starts().items()}
        self.step = NativeStep(cell, weights, list(inputs.values()), made, starts, output, ends, live=True)
        self.plain = cell.recipe.as_given is not None
        self._lie = self._places(weights)
        self._traces = self._bind(torch.from_numpy(output).unsqueeze(0), weights)

    def _places(self, weights: Mapping[str, Tensor]) -> list[int]:
        return [w.data_ptr() for w in weights.values()]

    def _bind(self, output: Tensor, weights: Mapping[str, Tensor]) -> list[tuple[BoundTraces, str]]:
        """A call for each tracker, and its name."""
        graph, reader = self.machine.flat.graph, self.machine.reader
        env: dict[Value, Any] = dict(zip(reader.vectors, output.split(reader.widths, -1), strict=True))
        env |= {v: self.inputs[n].unsqueeze(0) for n, v in graph.input_values.items()}
        env |= {v: self.old[n].unsqueeze(0) for n, v in graph.old.items()}
        self.fixed = reader.fixed_buffers(weights, self.rows)
        self._refilled = any(v.op != "constant" for v in self.fixed)
        steps = StepValues(self.machine.layout, env | self.fixed, (1, self.rows), output)
        return [
            self._bound(tracker, steps) for tracker in self.machine.trackers if isinstance(tracker, DiagonalInfluence)
        ]

    def _bound(self, tracker: DiagonalInfluence, steps: StepValues) -> tuple[BoundTraces, str]:
        form, d, u, pieces = tracker.moved(steps)
        kernel = traces(form, steps.like.dtype)
        assert kernel is not None
        e = steps.like.new_zeros(self.rows, form.states, *tracker.shape)
        g = e.new_zeros(tracker.shape)
        return kernel.bind(e, torch.empty_like(e), d, u, pieces, [], g, tracker.bias), tracker.name

    def fits(self, inputs: Mapping[str, Any]) -> bool:
        """Whether these are inputs of such a step; if not, the general way says what is wrong."""
        return inputs.keys() == self.inputs.keys() and all(
            isinstance(x, Tensor) and x.shape == self.inputs[n].shape and x.dtype == self.inputs[n].dtype
            for n, x in inputs.items()
        )

    def __call__(
        self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], old: Tensors, influence: Influence
    ) -> tuple[Tensors, Influence]:
        """The new states, and the influence on them."""
        if not self.plain or self._places(weights) != self._lie:
            self.step.read(weights)
            self._lie = self._places(weights)
        if self._refilled:
            self.machine.reader.refill(self.fixed, weights)
        for name, x in inputs.items():
            self.inputs[name].copy_(x)
        for name, state in old.items():
            self.old[name].copy_(state)
        self.step()
        moved = []
        for (call, tracker), tracked in zip(self._traces, influence, strict=True):
            before = tracked[tracker]
            after = torch.empty_like(before)
            call.move(before, after)
            moved.append({tracker: after})
        return {name: a.clone() for name, a in self.new.items()}, tuple(moved)
