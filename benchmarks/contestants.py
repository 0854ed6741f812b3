"""Who solves a problem: our layers, and torch's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.problem import Problem
from tidegate import nn as ours

Stacks = Mapping[tuple[str, ...], Tensor]
Run = Callable[[], tuple[Tensor, ...]]


class Contestant(Protocol):
    """One way to solve a problem. What `forward` and `training` return is timed; `named` makes it comparable."""

    def forward(self) -> Any:
        """The output and the states at the end, without gradients."""

    def training(self) -> Any:
        """Those, and the gradients of everything given."""

    def named(self, raw: Any) -> dict[str, Tensor]:
        """What came, under the names of `problem.solve`."""


class Differentiable:
    """A contestant by autograd. `run` returns the output and the end states; `leaves` are what it computes from.

    A leaf is a stack, along its rows, of the given tensors in its key; one with an empty key has no counterpart.
    """

    def __init__(self, problem: Problem, run: Run, leaves: Stacks, lead: tuple[int, ...] = ()) -> None:
        self._run, self._problem = run, problem
        self._keys, self._leaves = list(leaves), list(leaves.values())
        y, *ends = problem.output_gradients.values()
        self._output_gradients = [y, *(end.reshape(*lead, *end.shape) for end in ends)]

    def forward(self) -> tuple[Tensor, ...]:
        """See `Contestant`."""
        with torch.no_grad():
            return self._run()

    def training(self) -> tuple[tuple[Tensor, ...], Sequence[Tensor]]:
        """See `Contestant`."""
        results = self._run()
        return results, torch.autograd.grad(results, self._leaves, self._output_gradients)

    def named(self, raw: Any) -> dict[str, Tensor]:
        """See `Contestant`."""
        results, gradients = raw if isinstance(raw[0], tuple) else (raw, ())
        found = dict(zip(self._problem.output_gradients, results, strict=True))
        given = self._problem.given
        for key, gradient in zip(self._keys, gradients, strict=False):
            rows = [given[name].shape[0] for name in key]
            parts = gradient.split(rows) if len(key) > 1 else [gradient]
            found |= {f"gradient of {name}": part for name, part in zip(key, parts, strict=False)}
        return found


def leaf(tensor: Tensor, *lead: int) -> Tensor:
    """A tensor of one's own to differentiate by, with these sizes put before its own."""
    return tensor.clone().reshape(*lead, *tensor.shape).requires_grad_()


def layer(problem: Problem) -> Contestant:
    """Our layer: the drop-in where the problem is one of torch's, else `Recurrent`."""
    return module(problem, ours) if problem.mode else _recurrent(problem)


def module(problem: Problem, library: Any, *, packed: bool = False) -> Contestant:
    """The module of that kind from `torch.nn` or `tidegate.nn`; `packed` gives it lengths as torch wants them."""
    net, parameters = filled(problem, library)
    x, states = leaf(problem.x), {n: leaf(s, 1) for n, s in problem.states.items()}
    given = tuple(states.values())
    begin = given if len(given) > 1 else given[0]
    lengths, T = problem.lengths, problem.shape.T

    def run() -> tuple[Tensor, ...]:
        if lengths is None:
            y, end = net(x, begin)
        elif packed:
            y, end = net(pack_padded_sequence(x, lengths, enforce_sorted=False), begin)
            y, _ = pad_packed_sequence(y, total_length=T)
        else:
            y, end = net(x, begin, lengths=lengths)
        return y, *(end if isinstance(end, tuple) else (end,))

    leaves = {"x": x, **states, **parameters}
    return Differentiable(problem, run, {(name,): tensor for name, tensor in leaves.items()}, lead=(1,))


def filled(problem: Problem, library: Any) -> tuple[nn.RNNBase, dict[str, Tensor]]:
    """A module of `torch.nn` or `tidegate.nn` with the problem's weights, and its parameters by name."""
    kind = str(problem.mode).partition("_")[0]
    net = getattr(library, kind)(problem.shape.I, problem.shape.H)
    parameters = {name: getattr(net, f"{name}_l0") for name in problem.weights}
    _fill(parameters, problem.weights)
    return net, parameters


def recurrent(problem: Problem) -> tuple[ours.Recurrent, dict[str, Tensor]]:
    """A `Recurrent` layer with the problem's weights, and its parameters by name."""
    net = ours.Recurrent(problem.cell, problem.shape.I, problem.shape.H)
    weights = problem.cell_weights
    parameters: dict[str, Tensor] = {name: net.get_parameter(f"l0.{name}") for name in weights}
    _fill(parameters, weights)
    return net, parameters


def _recurrent(problem: Problem) -> Contestant:
    net, parameters = recurrent(problem)
    x, states = leaf(problem.x), {n: leaf(s) for n, s in problem.states.items()}
    begin = ours.State([[states]])

    def run() -> tuple[Tensor, ...]:
        y, end = net(x, begin)
        return y, *end.layers[0][0].values()

    leaves = {"x": x, **states, **parameters}
    return Differentiable(problem, run, {(name,): tensor for name, tensor in leaves.items()})


def _fill(parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in parameters.items():
            tensor.copy_(weights[name])
