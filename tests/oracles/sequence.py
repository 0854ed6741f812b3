"""Layers over whole sequences, as slowly and plainly as can be: each row alone, cut to its own length, step by step.

It knows a step only as an oracle does: `(weights, inputs, states) -> (output, new states)`, all `[1, size]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .common import Oracle, Tensors

Flags = Sequence[Sequence[bool]]


@dataclass
class Direction:
    """The weights of one layer and direction, and where its states start: `[size]` by name."""

    weights: Tensors
    start: Tensors


@dataclass
class Plan:
    """What is run: `layers[k]` holds a layer's directions, forwards first; `once` names inputs that do not move."""

    step: Oracle
    layers: Sequence[Sequence[Direction]]
    main: str
    merge: str = "concat"
    once: frozenset[str] = frozenset()


def begun(start: Tensors) -> Tensors:
    return {name: value[None] for name, value in start.items()}


def run_forwards(step: Oracle, part: Direction, xs: list[Tensors], state: Tensors, reset: Sequence[bool]) -> Any:
    ys = []
    for t, x in enumerate(xs):
        if reset[t]:
            state = begun(part.start)
        y, state = step(part.weights, x, state)
        ys.append(y)
    return ys, state


def run_backwards(step: Oracle, part: Direction, xs: list[Tensors], state: Tensors, reset: Sequence[bool]) -> Any:
    """From the row's own end; a segment that a reset begins is, read backwards, one that ends there."""
    ys: list[Tensor] = []
    for t in reversed(range(len(xs))):
        if t + 1 < len(xs) and reset[t + 1]:
            state = begun(part.start)
        y, state = step(part.weights, xs[t], state)
        ys.insert(0, y)
    return ys, state


def merged(outputs: list[list[Tensor]], merge: str) -> list[Tensor]:
    if len(outputs) == 1:
        return outputs[0]
    pairs = list(zip(*outputs, strict=True))
    if merge == "concat":
        return [torch.cat(pair, 1) for pair in pairs]
    return [(a + b) if merge == "sum" else 0.5 * (a + b) for a, b in pairs]


def run_row(plan: Plan, xs: list[Tensors], states: Sequence[Sequence[Tensors]], reset: Sequence[bool]) -> Any:
    """One row through all layers: its outputs `[1, size]` and the states at its end."""
    ends, ys = [], [x[plan.main] for x in xs]
    for parts, begin in zip(plan.layers, states, strict=True):
        given = [{**x, plan.main: y} for x, y in zip(xs, ys, strict=True)]
        runs = [run_forwards, run_backwards][: len(parts)]
        found = [run(plan.step, p, given, s, reset) for run, p, s in zip(runs, parts, begin, strict=True)]
        ys = merged([f[0] for f in found], plan.merge)
        ends.append([f[1] for f in found])
    return ys, ends


def run_rows(
    plan: Plan,
    inputs: Mapping[str, Tensor],
    width: int,
    lengths: Sequence[int] | None = None,
    reset: Flags | None = None,
    states: Sequence[Sequence[Tensors]] | None = None,
) -> tuple[Tensor, list[list[Tensors]]]:
    """The output `[T, B, width]`, zero after a row's end, and `states[layer][direction]` `[B, size]` at the ends."""
    T, B = inputs[plan.main].shape[:2]
    outputs, ends = [], []
    for b in range(B):
        n = T if lengths is None else lengths[b]
        xs = [{k: x[b : b + 1] if k in plan.once else x[t, b : b + 1] for k, x in inputs.items()} for t in range(n)]
        flags = [False] * n if reset is None else [bool(reset[t][b]) for t in range(n)]
        begin = [
            [
                begun(part.start) if states is None else {k: v[b : b + 1] for k, v in states[layer][d].items()}
                for d, part in enumerate(parts)
            ]
            for layer, parts in enumerate(plan.layers)
        ]
        ys, end = run_row(plan, xs, begin, flags)
        padding = torch.zeros(T - n, 1, width, dtype=torch.float64)
        outputs.append(torch.cat([*[y.expand(1, width)[None] for y in ys], padding]))
        ends.append(end)
    return torch.cat(outputs, 1), joined(ends)


def joined(ends: list[Any]) -> list[list[Tensors]]:
    """The rows' states one below another."""
    return [
        [{k: torch.cat([e[layer][d][k] for e in ends]) for k in part} for d, part in enumerate(parts)]
        for layer, parts in enumerate(ends[0])
    ]


def with_options(oracle: Oracle, options: Mapping[str, Any]) -> Oracle:
    """The oracle with its options bound."""
    return partial(oracle, **options)
