"""A gradient rule of one's own, written here alone: by `capture` it runs on kernels as the shipped ones do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gradients.forward_cases import BATCH, HIDDEN, INPUT, STEPS, difference, loss
from tidegate.equations.values import Value
from tidegate.gradients import Forward, gradient
from tidegate.gradients.cost import Cost
from tidegate.gradients.influence import captured_run
from tidegate.gradients.influence.capture import Capture, CapturedTracker, Tracker
from tidegate.gradients.influence.captured_gradient import CapturedGradient
from tidegate.gradients.influence.captured_run import CapturedRun
from tidegate.gradients.influence.parameter_groups import ParameterGroup
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.gradients.influence.step_values import StepValues, split
from tidegate.gradients.online import online
from tidegate.nn import Recurrent
from tidegate.runtime.eligibility import TraceForm, TraceInputs, advance_traces

Tensors = dict[str, Tensor]


class Forgetful(Tracker):
    """Traces of one linear that keep the diagonal of the Jacobian and are not driven through other states."""

    def __init__(self, name: str, group: ParameterGroup, layout: ParameterLayout) -> None:
        self.name, self.group, self.layout = name, group, layout
        self.states, self.shape = group.reach, layout.shape(group)
        self.values = [*layout.read([group]), *layout.on_diagonals(self.states)]

    def cost(self, rows: int) -> Cost:
        K, V = self.shape
        return Cost((self.group.name,), f"traces {K} x {V}", "own unit and state", rows * K * V, 4 * rows * K * V, 20)

    def begin(self, rows: int, like: Tensor) -> Tensors:
        return {self.name: like.new_zeros(rows, len(self.states), *self.shape)}

    def _inputs(self, steps: StepValues, scored: Mapping[int, Tensor]) -> TraceInputs:
        own = {k: steps.diagonal(s, s) for k, s in enumerate(self.states)}
        d = {(k, k): found for k, found in own.items() if found is not None}
        into = {k: steps.into(self.group, s) for k, s in enumerate(self.states)}
        u = {k: found for k, found in into.items() if found is not None}
        form = TraceForm(len(self.states), tuple(d), tuple(u), tuple(scored))
        read = [steps.masked(steps[v]) for _, v in self.group.factors]
        return TraceInputs(form, [*d.values()], [*u.values()], read, [*scored.values()], self.group.bias is not None)

    def advance(
        self, memory: Tensors, steps: StepValues, gradients: Mapping[str, Tensor] | None
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        delta = {k: gradients[s] for k, s in enumerate(self.states) if s in gradients} if gradients else {}
        g = memory[self.name].new_zeros(self.shape)
        end = advance_traces(self._inputs(steps, delta), memory[self.name], g)
        return {self.name: end}, split(self.group, g, self.layout) if delta else {}

    def gradient(self, memory: Tensors, gradients: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        scored = [(k, s) for k, s in enumerate(self.states) if s in gradients]
        parts = [gradients[s].unsqueeze(-1) * memory[self.name][:, k] for k, s in scored]
        return split(self.group, torch.stack(parts).sum((0, 1)), self.layout) if parts else {}

    def capture(self, run: Capture) -> CapturedTracker | None:
        scored = {k: run.scored[s] for k, s in enumerate(self.states) if s in run.scored}
        traces = run.traces(self._inputs(run.steps, scored), self.shape)
        if traces is None:
            return None

        def advance(addresses: list[int], memory: Tensors | None, keep: bool) -> tuple[Tensors, dict[Value, Tensor]]:
            end, g = traces(addresses, None if memory is None else memory[self.name], keep)
            return {self.name: end}, split(self.group, g, self.layout) if scored else {}

        return advance


@dataclass(frozen=True)
class OwnRule(Forward):
    """Each weight in its own unit and state."""

    word = "own"

    def _trackers(self, found: object, layout: ParameterLayout) -> Sequence[Tracker]:
        return [Forgetful(f"own.{k}", group, layout) for k, group in enumerate(layout.structure.groups)]


def layer_of(name: str) -> Recurrent:
    layer = Recurrent(name, INPUT, HIDDEN, dtype=torch.float64)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    return layer


@pytest.mark.kernels
@pytest.mark.parametrize("name", ["min_gru", "lstm", "elman"])
def test_it_runs_on_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(name)
    x, target = torch.randn(STEPS, BATCH, INPUT).double(), torch.randn(STEPS, BATCH, HIDDEN).double()
    with monkeypatch.context() as patch:
        patch.setattr(captured_run, "_captured_run", lambda *_: None)
        right = gradient(layer, x, target, loss, rule=OwnRule())
    runs: list[tuple[str, ...] | None] = []
    advance = CapturedRun.advance

    def counted(self: CapturedRun, *given: object, **more: object) -> object:
        runs.append(given[3])  # type: ignore[arg-type]
        return advance(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(CapturedRun, "advance", counted)
    for _ in range(3):
        assert difference(gradient(layer, x, target, loss, rule=OwnRule()), right) < 1e-12
    assert runs == [("l0.h",)] * 3
    assert isinstance(layer.calls.get(OwnRule(), x, lambda: None), CapturedGradient)


@pytest.mark.kernels
def test_its_online_step_is_the_same_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of("min_gru")
    x, dy = torch.randn(STEPS, BATCH, INPUT).double(), torch.randn(BATCH, HIDDEN).double()
    found = []
    for captured in (True, False):
        with monkeypatch.context() as patch:
            if not captured:
                patch.setattr(captured_run, "_captured_run", lambda *_: None)
            stream = online(layer, OwnRule())
            memory = stream.begin(BATCH)
            for t in range(STEPS):
                y, memory = stream.step(memory, x[t])
            found.append({"y": y, **stream.gradient(memory, dy)})
    assert difference(found[0], found[1]) == 0.0
