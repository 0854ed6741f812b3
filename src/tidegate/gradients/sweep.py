"""A rule at work on a sequence: which steps run when, and where the state is cut from the graph."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.nn.modules.module import _has_any_global_hook

from tidegate.errors import ArgumentError
from tidegate.gradients.forward_rules import Forward
from tidegate.gradients.influence.captured_gradient import CapturedGradient
from tidegate.gradients.influence.engine import InfluenceEngine
from tidegate.gradients.recompute import Run, Score, recomputed
from tidegate.gradients.rule_context import RuleContext
from tidegate.gradients.rules import BPTT, Rule, Segment
from tidegate.nn import Recurrent, Stack, State
from tidegate.runtime.support import eager

Around = Callable[[], AbstractContextManager[None]]
OFF = 0.01  # of the sizes of the sums: further off than rounding, a score is no sum over steps
_additive: WeakSet[nn.Module] = WeakSet()  # modules whose score was seen to be a sum over steps


def sweep(rule: Rule, module: nn.Module, length: int, run: Run, score: Score) -> Iterator[tuple[Tensor, Tensor]]:
    """For each segment the sum of its losses, ready for `backward()`, and the number of terms in it.

    `run(start, stop, state)` runs the net over these steps from that state (None: its own start) and gives its outputs
    and the new state. `score(outputs, start, stop)` gives the sum of the losses of these steps and the number of terms;
    it is called on parts of the sequence, and for a new module once more on two halves of a part, where ArgumentError
    is raised unless these add up. What is no sum over steps, such as a penalty, is added to the sum that is yielded.
    `module` holds what is learned. The weights may be changed between two segments: what a later one reuses of an
    earlier one is its state as it was then, detached, and the influence that a forward rule carries on.
    `BPTT(checkpoint=...)` calls both again for the same steps during `backward()`, which then reaches the module's
    parameters and nothing else.
    """
    in_parts = rule != BPTT() and module not in _additive
    yield from _sweep(rule, module, length, run, _checked(module, score) if in_parts else score)


def _sweep(rule: Rule, module: nn.Module, length: int, run: Run, score: Score) -> Iterator[tuple[Tensor, Tensor]]:
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


def _checked(module: nn.Module, score: Score) -> Score:
    """The score, which raises ArgumentError where two halves of a part do not add up to the whole part."""

    def checked(outputs: Any, start: int, stop: int) -> tuple[Tensor, Tensor]:
        if module in _additive or stop - start < 2 or not isinstance(outputs, Tensor):
            return score(outputs, start, stop)
        random, middle = torch.get_rng_state(), (start + stop) // 2
        with torch.no_grad():
            first = score(outputs[: middle - start].clone(), start, middle)[0]
            second = score(outputs[middle - start :].clone(), middle, stop)[0]
        if draws := not torch.equal(torch.get_rng_state(), random):
            torch.set_rng_state(random)
        total, count = score(outputs, start, stop)
        whole = total.detach()
        size = first.abs() + second.abs() + whole.abs()
        if not draws and (first + second - whole).abs() > OFF * size:
            raise ArgumentError(
                f"score must give the sum of the losses of the steps it is called on: it gives {float(first):g} for "
                f"steps {start} to {middle}, {float(second):g} for {middle} to {stop}, but {float(whole):g} for "
                f"{start} to {stop}. Sum over steps instead of taking a mean or the last step, and add penalties to "
                "the sum that sweep yields; for other losses use BPTT() without a checkpoint."
            )
        if draws or size > 0:
            _additive.add(module)
        return total, count

    return checked


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

    `x` (or the inputs by name) and `target` are time-major: `[T, B, ...]`. `loss(outputs, target)` is called once, on
    the layer's outputs at all T steps, or on what `readout` makes of them, and may be any function of these; the
    gradients are those that the rule (default: `BPTT()`) finds for it. `lengths` and `reset` are those of the layer;
    outputs after a row's end are 0, and the loss must leave them out. Parameters of the readout are called
    `readout.NAME`. The parameters' own `.grad` is left alone.
    """
    rule = rule or BPTT()
    if isinstance(rule, Forward) and rule.every is not None:
        rule = replace(rule, every=None)  # while weights are held fixed, updates sum to the same gradient

    def score(outputs: Any) -> Tensor:
        value = loss(outputs if readout is None else readout(outputs), target)
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ArgumentError(f"loss must return a tensor of one number, got {found}: reduce it, as in .sum()")
        return value

    if isinstance(rule, Forward) and isinstance(layer, Recurrent | Stack) and not _hooked(layer):
        return _forward(layer, rule, x, score, readout, lengths, reset)
    learned = _learned(layer.named_parameters(), readout)
    tensors, steps = list(learned.values()), _LayerSteps(layer, x, lengths, reset)
    if rule == BPTT() and steps.T:
        found = torch.autograd.grad(score(steps.run(0, steps.T, None)[0]), tensors, materialize_grads=True)
        return dict(zip(learned, found, strict=True))
    if getattr(layer, "batch_first", False):
        raise ArgumentError(f"{rule} cuts x along time, its first axis: give a layer with batch_first=False")
    whole, module = _WholeLoss(score, tensors), layer if readout is None else nn.ModuleList([layer, readout])
    if len(rule.segments(steps.T)) > 1:  # the loss needs all outputs before the first segment goes back
        with torch.no_grad(), torch.random.fork_rng([t.device for t in tensors[:1] if t.is_cuda]):
            for _ in _sweep(rule, module, steps.T, steps.run, whole.part):
                pass
    totals: list[Tensor] = []
    for value, _ in _sweep(rule, module, steps.T, steps.run, whole.part):
        whole.call()
        found = torch.autograd.grad(value, tensors, materialize_grads=True)
        totals = [a + b for a, b in zip(totals or whole.direct, found, strict=True)]
    return dict(zip(learned, totals or map(torch.zeros_like, tensors), strict=True))


class _WholeLoss:
    """A loss of the whole sequence as a sum over parts, each with the loss's gradient in the outputs of that part."""

    def __init__(self, score: Callable[[Any], Tensor], learned: Sequence[Tensor]) -> None:
        self.score, self.learned = score, learned
        self.outputs: dict[int, Tensor] = {}
        self.output_gradient: Tensor | None = None
        self.direct: list[Tensor] = []

    def part(self, outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """A number for these outputs, which are kept until the loss is called."""
        if self.output_gradient is None:
            self.outputs[start] = outputs.detach()
        return _Part.apply(outputs, self, start, stop), outputs.new_zeros(())

    def call(self) -> None:
        """Call the loss once, on the outputs of all parts: its gradient in them, and directly in what is learned."""
        if self.output_gradient is None:
            outputs = torch.cat([part for _, part in sorted(self.outputs.items())]).requires_grad_()
            value = self.score(outputs.clone())  # which may be changed in place
            self.output_gradient, *self.direct = torch.autograd.grad(
                value, [outputs, *self.learned], materialize_grads=True
            )
            self.outputs.clear()


class _Part(Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, whole: _WholeLoss, start: int, stop: int) -> Tensor:
        ctx.part = whole, start, stop
        return outputs.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        whole, start, stop = ctx.part
        return whole.output_gradient[start:stop], None, None, None


def _forward(
    layer: Recurrent | Stack,
    rule: Forward,
    x: Any,
    score: Callable[[Any], Tensor],
    readout: nn.Module | None,
    lengths: Any,
    reset: Any,
) -> dict[str, Tensor]:
    """The gradients by a rule that goes forward."""
    engine, cached = cache(lambda: InfluenceEngine(layer, rule)), None
    if lengths is None and reset is None and type(x) is Tensor and eager():
        cached = layer.calls.get(rule, x, lambda: CapturedGradient.compile(engine(), x))
    learned = _learned(layer.named_parameters() if cached is None else cached.parameters.items(), readout)
    tensors = list(learned.values())
    totals = None if cached is None else cached(x, score, tensors)
    if totals is None:
        segment, weights = engine().run(x, None, None, lengths, reset)
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
