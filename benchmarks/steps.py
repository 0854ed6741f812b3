"""Contests over single calls: a step at a time, and what Python itself costs around a net with nothing to compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from benchmarks import ort
from benchmarks.contestants import filled, layer, module, recurrent
from benchmarks.contests import Setting
from benchmarks.problem import Problem, difference, of_torch, solve
from benchmarks.rows import FUNCTION, STEP, STEPPER, TRAINING, Row
from benchmarks.shapes import STEPS, TINY, Shape
from benchmarks.timing import Timing, in_turn
from tidegate.nn import State


@dataclass(frozen=True)
class Walk:
    """A call that goes on by one step from where the last one ended, and how its output `[B, H]` is read from it."""

    go: Callable[[], Any]
    read: Callable[[Any], Tensor] = torch.as_tensor


def one_step(case: str, setting: Setting) -> Iterator[Row]:
    """`stepper` and `layer.step` beside onnxruntime and torch doing the same."""
    for mode in ["LSTM"] if setting.quick else ["LSTM", "GRU", "RNN_TANH"]:
        for shape in STEPS[:3:2] if setting.quick else STEPS:
            problem = of_torch(mode, shape)
            peers = [n for n in setting.peers if n in _WALKS]
            taken, off = _walked(problem, [STEPPER, STEP, *peers], setting)
            for what, others in ((STEPPER, peers), (STEP, [STEPPER, *peers])):
                for peer in others or ["-"]:
                    times = taken[what], taken.get(peer)
                    yield Row(case, problem.cell.name, shape, what, peer, *times, off[what], off.get(peer))


def overhead(case: str, setting: Setting) -> Iterator[Row]:
    """A net so small that the way to it is what is measured: our layer, step and stepper beside torch's module.

    A training step of a `Recurrent` stands beside that of a Function which computes nothing, with as many tensors: what
    torch itself takes.
    """
    problem = of_torch("LSTM", TINY)
    right = solve(problem, training=True)
    contestants = layer(problem), module(problem, nn)
    off, away = (difference(c.named(c.training()), right) for c in contestants)
    mine, theirs = in_turn([c.training for c in contestants], setting.effort)
    yield Row(case, "lstm", TINY, TRAINING, "torch", mine, theirs, off, away)

    (net, parameters), begin = recurrent(problem), State([[problem.states]])
    weights = list(parameters.values())
    off = difference({"y": net(problem.x, begin)[0]}, {"y": right["y"]})
    plain = _training(lambda: net(problem.x, begin)[0], weights)
    bare = _training(lambda: _Nothing.apply(problem.x, *weights), weights)
    mine, theirs = in_turn([plain, bare], setting.effort)
    yield Row(case, "lstm", TINY, TRAINING, FUNCTION, mine, theirs, off)

    single = Shape(1, TINY.B, TINY.I, TINY.H)
    taken, apart = _walked(of_torch("LSTM", single), [STEP, STEPPER, "torch"], setting)
    for what in (STEP, STEPPER):
        yield Row(case, "lstm", single, what, "torch", taken[what], taken["torch"], apart[what], apart["torch"])


class _Nothing(Function):
    """An output of the input's steps and rows, and gradients, of whatever was there before."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        return x.new_empty(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _, *weights = ctx.saved_tensors
        return None, *map(torch.empty_like, weights)


def _training(forward: Callable[[], Tensor], weights: list[Tensor]) -> Callable[[], None]:
    """A step of training, without that of the optimiser."""

    def go() -> None:
        for weight in weights:
            weight.grad = None
        forward().sum().backward()

    return go


def _walked(problem: Problem, names: list[str], setting: Setting) -> tuple[dict[str, Timing], dict[str, float]]:
    """The times of these walks in turn, and how far each is off."""
    with torch.no_grad():
        off = {name: _off(_WALKS[name](problem), problem) for name in names}
        walks = [_WALKS[name](problem).go for name in names]
        return dict(zip(names, in_turn(walks, setting.effort), strict=True)), off


def _off(walk: Walk, problem: Problem, count: int = 3) -> float:
    """How far the output is off after some steps with the same input."""
    longer = replace(problem, shape=replace(problem.shape, T=count), x=problem.x.expand(count, -1, -1))
    right = solve(longer, training=False)["y"][-1]
    for _ in range(count):
        came = walk.go()
    return difference({"y": walk.read(came)}, {"y": right})


def _stepper(problem: Problem) -> Walk:
    stepper = recurrent(problem)[0].stepper(problem.shape.B, State([[problem.states]]))
    x = problem.x[0].numpy()
    return Walk(lambda: stepper(x))


def _layer_step(problem: Problem) -> Walk:
    net, x = recurrent(problem)[0], problem.x[0]
    state = State([[problem.states]])

    def go() -> Tensor:
        nonlocal state
        y, state = net.step(x, state)
        return y

    return Walk(go)


def _torch(problem: Problem) -> Walk:
    net, x = filled(problem, nn)[0], problem.x
    begin = tuple(s.unsqueeze(0) for s in problem.states.values())
    state: Any = begin if len(begin) > 1 else begin[0]

    def go() -> Any:
        nonlocal state
        y, state = net(x, state)
        return y

    return Walk(go, lambda y: y[0])


def _onnxruntime(problem: Problem) -> Walk:
    session = ort.Session(problem)
    return Walk(session.step, lambda _: session.output[0])


_WALKS: Mapping[str, Callable[[Problem], Walk]] = {
    STEPPER: _stepper,
    STEP: _layer_step,
    "torch": _torch,
    "onnxruntime": _onnxruntime,
}
