"""A rule at work on a sequence: which steps run when, and where the state is cut from the graph."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tidegate.gradients.recompute import Run, Score, recomputed
from tidegate.gradients.rules import BPTT, Rule, Segment
from tidegate.nn import State


def sweep(
    rule: Rule, length: int, run: Run, score: Score, parameters: Sequence[Tensor] = ()
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each segment the sum of its losses, ready for `backward()`, and the number of terms in it.

    `run(start, stop, state)` runs the net over these steps from that state (None: its own start) and gives its outputs
    and the new state. `score(outputs, start, stop)` gives the sum of the losses of these steps and the number of terms.
    The weights may be changed between two segments: what a later one reuses of an earlier one is its state as it was
    then, detached. `BPTT(checkpoint=...)` calls both again for the same steps during `backward()`, which then reaches
    `parameters` and nothing else.
    """
    if isinstance(rule, BPTT) and rule.checkpoint is not None and length:
        yield recomputed(rule.checkpoint, length, run, score, parameters)
        return
    segments = rule.segments(length)
    kept: dict[int, State | None] = {0: None}
    for index, segment in enumerate(segments):
        starts = {later.start for later in segments[index + 1 :]}
        yield _run_segment(segment, starts, kept, run, score)
        for place in [place for place in kept if place not in starts]:
            del kept[place]


def _run_segment(
    segment: Segment, starts: set[int], kept: dict[int, State | None], run: Run, score: Score
) -> tuple[Tensor, Tensor]:
    inside = {place for place in starts if segment.start < place < segment.stop}
    state, sums, counts = kept[segment.start], [], []
    for start, stop in pairwise(sorted({segment.start, segment.scored, segment.stop} | inside)):
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
    x: Tensor,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    rule: Rule | None = None,
) -> dict[str, Tensor]:
    """Gradients of a whole sequence with the weights held fixed, by the name of the parameter.

    `x` and `target` are time-major: `[T, B, ...]`. `loss(outputs, targets)` gives the sum over the steps it is handed;
    the gradients are those of the sum over all T steps, as the rule (default: `BPTT()`) sees them. The layer's own
    `.grad` is left alone.
    """
    names, parameters = zip(*layer.named_parameters(), strict=True)
    totals = [parameter.new_zeros(parameter.shape) for parameter in parameters]

    def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        outputs, new = layer(x[start:stop], state)
        return outputs, new

    def score(outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return loss(outputs, target[start:stop]), x.new_zeros(())

    for value, _ in sweep(rule or BPTT(), x.shape[0], run, score, parameters):
        found = torch.autograd.grad(value, parameters, materialize_grads=True)
        totals = [total + part for total, part in zip(totals, found, strict=True)]
    return dict(zip(names, totals, strict=True))
