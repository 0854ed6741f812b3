"""A rule at work on a sequence: which steps run when, and where the state is cut from the graph."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from tidegate.gradients.forward_rules import Forward
from tidegate.gradients.influence.captured_gradient import CapturedGradient
from tidegate.gradients.influence.engine import InfluenceEngine
from tidegate.gradients.recompute import Run, Score, recomputed
from tidegate.gradients.rule_context import RuleContext
from tidegate.gradients.rules import BPTT, Rule, Segment
from tidegate.nn import Recurrent, Stack, State
from tidegate.runtime.support import eager

Around = Callable[[], AbstractContextManager[None]]


def sweep(rule: Rule, module: nn.Module, length: int, run: Run, score: Score) -> Iterator[tuple[Tensor, Tensor]]:
    """For each segment the sum of its losses, ready for `backward()`, and the number of terms in it.

    `run(start, stop, state)` runs the net over these steps from that state (None: its own start) and gives its outputs
    and the new state. `score(outputs, start, stop)` gives the sum of the losses of these steps and the number of terms.
    `module` holds what is learned. The weights may be changed between two segments: what a later one reuses of an
    earlier one is its state as it was then, detached, and the influence that a forward rule carries on.
    `BPTT(checkpoint=...)` calls both again for the same steps during `backward()`, which then reaches the module's
    parameters and nothing else.
    """
    if isinstance(rule, BPTT) and rule.checkpoint is not None and length:
        learned = [p for p in module.parameters() if p.requires_grad]
        yield recomputed(rule.checkpoint, length, run, score, learned)
        return
    segments = rule.segments(length)
    around: Around = RuleContext(module, rule).working if isinstance(rule, Forward) else nullcontext
    kept: dict[int, State | None] = {0: None}
    for index, segment in enumerate(segments):
        starts = {later.start for later in segments[index + 1 :]}
        yield _run_segment(segment, starts, kept, run, score, around)
        for place in [place for place in kept if place not in starts]:
            del kept[place]


def _run_segment(
    segment: Segment, starts: set[int], kept: dict[int, State | None], run: Run, score: Score, around: Around
) -> tuple[Tensor, Tensor]:
    inside = {place for place in starts if segment.start < place < segment.stop}
    state, sums, counts = kept[segment.start], [], []
    for start, stop in pairwise(sorted({segment.start, segment.scored, segment.stop} | inside)):
        with around():
            outputs, state = run(start, stop, state)
        if stop in starts:
            kept[stop] = state.detach()
        if start >= segment.scored:
            total, count = score(outputs, start, stop)
            sums.append(total)
            counts.append(count)
    return sum(sums[1:], sums[0]), sum(counts[1:], counts[0])


def gradient(
    layer: nn.Module,
    x: Any,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    rule: Rule | None = None,
    readout: nn.Module | None = None,
    lengths: Any = None,
    reset: Any = None,
) -> dict[str, Tensor]:
    """Gradients of a whole sequence with the weights held fixed, by the name of the parameter.

    `x` (or the inputs by name) and `target` are time-major: `[T, B, ...]`. `loss(outputs, targets)` gives the sum over
    the steps it is handed, of the layer's outputs or of what `readout` makes of them; the gradients are those of the
    sum over all T steps, as the rule (default: `BPTT()`) sees them. `lengths` and `reset` are those of the layer; what
    lies after a row's end gives outputs of 0, and it is the loss that leaves them out. Parameters of the readout are
    called `readout.NAME`. The parameters' own `.grad` is left alone.
    """
    rule = rule or BPTT()

    def score(outputs: Any, targets: Tensor = target) -> Tensor:
        return loss(outputs if readout is None else readout(outputs), targets)

    if isinstance(rule, Forward) and isinstance(layer, Recurrent | Stack) and not _hooked(layer):
        whole = _whole(layer, rule, x, score, readout, lengths, reset)
        if whole is not None:
            return whole
    learned = _learned(layer.named_parameters(), readout)
    tensors, steps = list(learned.values()), _LayerSteps(layer, x, lengths, reset)
    module = layer if readout is None else nn.ModuleDict({"layer": layer, "readout": readout})

    def score_part(outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return score(outputs, target[start:stop]), target.new_zeros(())

    totals: list[Tensor] = []
    for value, _ in sweep(rule, module, steps.T, steps.run, score_part):
        found = torch.autograd.grad(value, tensors, materialize_grads=True)
        totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else list(found)
    return dict(zip(learned, totals or map(torch.zeros_like, tensors), strict=True))


def _whole(
    layer: Recurrent | Stack,
    rule: Forward,
    x: Any,
    score: Callable[[Any], Tensor],
    readout: nn.Module | None,
    lengths: Any,
    reset: Any,
) -> dict[str, Tensor] | None:
    """The gradients where the sequence is one segment."""
    cached = None
    if lengths is None and reset is None and type(x) is Tensor and eager():
        cached = layer.calls.get(rule, x, lambda: CapturedGradient.compile(InfluenceEngine(layer, rule), x))
    learned = _learned(layer.named_parameters() if cached is None else cached.parameters.items(), readout)
    tensors = list(learned.values())
    totals = None if cached is None else cached(x, score, tensors)
    if totals is None:
        first = next(iter(x.values())) if isinstance(x, dict) else x
        if len(rule.segments(first.shape[0])) != 1:
            return None
        segment, weights = InfluenceEngine(layer, rule).run(x, None, None, lengths, reset)
        totals = segment.scored(weights, score, tensors)
    return dict(zip(learned, totals, strict=True))


def _learned(named: Iterable[tuple[str, Tensor]], readout: nn.Module | None) -> dict[str, Tensor]:
    """What needs a gradient, by name."""
    found = {name: p for name, p in named if p.requires_grad}
    if readout is not None:
        found |= {f"readout.{name}": p for name, p in readout.named_parameters() if p.requires_grad}
    return found


def _hooked(layer: nn.Module) -> bool:
    """Whether a call of the layer does more than its `forward`."""
    own = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(own) or _has_any_global_hook()


class _LayerSteps:
    """A layer's run over some of its steps."""

    def __init__(self, layer: nn.Module, x: Any, lengths: Any, reset: Any) -> None:
        self.layer, self.x = layer, dict(x) if isinstance(x, dict) else x
        self.lengths = None if lengths is None else torch.as_tensor(lengths)
        self.reset = None if reset is None else torch.as_tensor(reset)
        first = next(iter(x.values())) if isinstance(x, dict) else x
        self.T, self.B = first.shape[:2]

    def run(self, start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        more = {}
        if self.lengths is not None:
            more["lengths"] = (self.lengths - start).clamp(0, stop - start)
        if self.reset is not None:
            more["reset"] = self.reset[start:stop]
        x = {n: self._part(n, v, start, stop) for n, v in self.x.items()} if isinstance(self.x, dict) else None
        y, new = self.layer(self.x[start:stop] if x is None else x, state, **more)
        return y, new

    def _part(self, name: str, x: Tensor, start: int, stop: int) -> Tensor:
        """Inputs that come once a sequence stay whole."""
        return x[start:stop] if x.shape[:2] == (self.T, self.B) else x
