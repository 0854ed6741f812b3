"""What tests of rules that work forward in time share."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from layer_cases import Case, make_inputs, make_layer
from tidegate.gradients import Rule, gradient, sweep
from tidegate.nn import Recurrent, State

STEPS, BATCH, INPUT, HIDDEN = 13, 3, 3, 6
Tensors = dict[str, Tensor]


def layer_of(case: Case, layers: int = 1, **options: Any) -> Recurrent:
    """A small layer with asymmetric weights; cells that need other sizes take them."""
    try:
        return make_layer(case.cell, INPUT, HIDDEN, num_layers=layers, **options)
    except ValueError:
        return make_layer(case.cell, 12 if layers > 1 else INPUT, 12, num_layers=layers, **options)


def problem(case: Case, layer: Recurrent) -> tuple[Tensors, Tensor]:
    """Inputs, and the weights of a random loss at every step."""
    return make_inputs(case, layer, STEPS, BATCH), torch.randn(STEPS, BATCH, layer.output_size, dtype=torch.float64)


def loss(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs * target).sum() + (0.3 * outputs * outputs).sum()


def found(layer: Recurrent, x: Any, target: Tensor, rule: Rule | None = None, **more: Any) -> Tensors:
    return gradient(layer, x, target, loss, rule=rule, **more)


def cut(x: Tensor, start: int, stop: int) -> Tensor:
    """Some of the steps; what comes once a sequence stays whole."""
    return x[start:stop] if len(x) == STEPS else x


def swept(layer: Recurrent, x: Any, target: Tensor, rule: Rule, *, lengths: Any = None, reset: Any = None) -> Tensors:
    """The sum of the gradients of all updates, with the weights left as they are."""

    def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        part = x[start:stop] if isinstance(x, Tensor) else {n: cut(v, start, stop) for n, v in x.items()}
        ends = None if lengths is None else (torch.tensor(lengths) - start).clamp(0, stop - start)
        return layer(part, state, lengths=ends, reset=None if reset is None else reset[start:stop])

    def score(outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return loss(outputs, target[start:stop]), torch.tensor(1)

    names, parameters = zip(*layer.named_parameters(), strict=True)
    updates = sweep(rule, layer, len(target), run, score)
    found = [torch.autograd.grad(total, parameters, materialize_grads=True) for total, _ in updates]
    return dict(zip(names, map(sum, zip(*found, strict=True)), strict=True))


def difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The largest difference of a parameter's gradient, relative to the whole gradient."""
    assert set(ours) == set(theirs)
    size = torch.cat([g.flatten() for g in theirs.values()]).norm()
    assert size > 0
    return max(float((ours[name] - theirs[name]).norm() / size) for name in theirs)
