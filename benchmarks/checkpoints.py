"""Back-propagation with few stored states, beside plain back-propagation: its time and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.contests import Setting
from benchmarks.memory import Activations
from benchmarks.problem import difference
from benchmarks.rows import PLAIN, TRAINING, Row
from benchmarks.shapes import THOUSAND, Shape
from benchmarks.timing import in_turn
from tidegate.gradients import BPTT, sweep
from tidegate.nn import Recurrent, State

STATES = 50


def few_states(case: str, setting: Setting) -> Iterator[Row]:
    """The gradient of a squared loss over 1,000 steps, with 50 stored states and with everything kept."""
    for shape in THOUSAND[:1] if setting.quick else THOUSAND:
        for cell in ("lstm", "gru"):
            problem, rules = _Problem(cell, shape), (BPTT(checkpoint=STATES), BPTT())
            mine, theirs = in_turn([partial(problem.gradients, rule) for rule in rules], setting.effort)
            off = difference(*(problem.gradients(rule) for rule in rules))
            kept = [problem.most_bytes(rule) for rule in rules]
            row = Row(case, cell, shape, TRAINING, PLAIN, mine, theirs, off, bound=0.0)
            yield replace(row, memory=kept[0] / kept[1])


class _Problem:
    def __init__(self, cell: str, shape: Shape) -> None:
        chance = torch.Generator().manual_seed(1)
        self.net: nn.Module = Recurrent(cell, shape.I, shape.H)
        self.x = torch.randn(shape.T, shape.B, shape.I, generator=chance)
        self.target = torch.randn(shape.T, shape.B, shape.H, generator=chance)
        self.weights = dict(self.net.named_parameters())

    def gradients(self, rule: BPTT, watch: Activations | None = None) -> dict[str, Tensor]:
        """The gradients of all weights, by name."""

        def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
            y, new = self.net(self.x[start:stop], state)
            if watch is not None:
                new.map(watch.hold)
            return y, new

        def score(y: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
            return ((y - self.target[start:stop]) ** 2).sum(), torch.ones(())

        weights = list(self.weights.values())
        ((total, _),) = sweep(rule, self.net, len(self.x), run, score)
        return dict(zip(self.weights, torch.autograd.grad(total, weights), strict=True))

    def most_bytes(self, rule: BPTT) -> int:
        """The most bytes of activations and states there are at a time; weights, inputs and targets apart."""
        watch = Activations([*self.weights.values(), self.x, self.target])
        return watch.during(lambda: self.gradients(rule, watch))
