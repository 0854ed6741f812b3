"""Contests with ourselves: a cell against our LSTM, lengths against padding, long sequences against short ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.cells import OWN
from benchmarks.contestants import layer, module
from benchmarks.contests import Setting, with_limit
from benchmarks.flops import work
from benchmarks.peers import BOTH
from benchmarks.problem import Problem, difference, of_cell, of_torch, solve
from benchmarks.rows import FLOP, PACKED, PADDED, SHORT, Row
from benchmarks.shapes import FEW, GROUPS, OVER_T, Shape
from benchmarks.timing import in_turn
from tidegate.cells import CELLS


def for_each_flop(case: str, setting: Setting) -> Iterator[Row]:
    """Each gated cell beside our LSTM, whose time is scaled to as many operations."""
    for shape in FEW[1:] if setting.quick else GROUPS["medium"]:
        lstm = of_cell(CELLS["lstm"], shape)
        yardstick, unit = layer(lstm), work(lstm.graph, lstm.sizes)
        for cell in [OWN["two_stages"]] if setting.quick else OWN.values():
            problem = of_cell(cell, shape)
            contestant, count = layer(problem), work(problem.graph, problem.sizes)
            right = solve(problem, training=True)
            for what in BOTH:
                call = getattr(contestant, what)
                off = difference(contestant.named(call()), right)
                mine, theirs = in_turn([call, getattr(yardstick, what)], setting.effort)
                scale = count.whole(shape, what) / unit.whole(shape, what)
                row = Row(case, cell.name, shape, what, FLOP, mine, theirs.scaled(scale), off)
                yield with_limit(row, count, setting.limits)


def with_lengths(case: str, setting: Setting) -> Iterator[Row]:
    """Rows that end at half of T on average, beside the same rows padded; and torch's packed sequences."""
    for shape in FEW[1:] if setting.quick else (*GROUPS["medium"], *GROUPS["large"]):
        whole = of_torch("LSTM", shape)
        problem = replace(whole, lengths=half(shape))
        right = solve(problem, training=True)
        mine, packed, padded = layer(problem), module(problem, nn, packed=True), layer(whole)
        for what in BOTH:
            off, theirs = (difference(c.named(getattr(c, what)()), right) for c in (mine, packed))
            taken = in_turn([getattr(c, what) for c in (mine, padded, packed)], setting.effort)
            yield Row(case, "lstm", shape, what, PADDED, taken[0], taken[1], off)
            yield Row(case, "lstm", shape, what, PACKED, taken[0], taken[2], off, theirs)


def half(shape: Shape) -> Tensor:
    """Lengths from 1 to T, evenly spread and in no order: half of T on average."""
    spread = torch.linspace(1, shape.T, shape.B).round().long()
    return spread[torch.randperm(shape.B, generator=torch.Generator().manual_seed(2))]


def growing(case: str, setting: Setting) -> Iterator[Row]:
    """Long sequences, whose time is compared with that of 1,000 steps, scaled to as many."""
    yardstick = layer(of_torch("LSTM", OVER_T[1]))
    for shape in OVER_T[:2] if setting.quick else OVER_T:
        problem = of_torch("LSTM", shape)
        contestant, count = layer(problem), work(problem.graph, problem.sizes)
        right = _by_torch(problem)
        for what in BOTH:
            call = getattr(contestant, what)
            off = difference(contestant.named(call()), right)
            mine, short = in_turn([call, getattr(yardstick, what)], setting.effort)
            theirs = short.scaled(shape.T / OVER_T[1].T)
            row = Row(case, "lstm", shape, what, SHORT, mine, theirs, off, bound=1e-3)
            yield with_limit(row, count, setting.limits)


def _by_torch(problem: Problem) -> dict[str, Tensor]:
    """The right answer by torch's own module in float64: the reference would take minutes for 100,000 steps."""
    net = nn.LSTM(problem.shape.I, problem.shape.H).double()
    given = {name: value.double().requires_grad_() for name, value in problem.given.items()}
    weights = {f"{name}_l0": given[name] for name in problem.weights}
    begin = tuple(given[name].unsqueeze(0) for name in problem.states)
    y, ends = torch.func.functional_call(net, weights, (given["x"], begin))
    results = [y, *(end.squeeze(0) for end in ends)]
    adjoints = [g.double() for g in problem.output_gradients.values()]
    gradients = torch.autograd.grad(results, list(given.values()), adjoints)
    found = dict(zip(problem.output_gradients, (r.detach() for r in results), strict=True))
    return found | {f"gradient of {name}": gradient for name, gradient in zip(given, gradients, strict=True)}
