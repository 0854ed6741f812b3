"""What a researcher writes for real-time recurrent learning: the Jacobians of one step by a library, and the recursion.

As in `loops`, these repeat equations, stacked as well as can be. The Jacobians are taken row by row (jacrev): a state
has far fewer numbers than there are weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from benchmarks.problem import Problem

try:
    import jax
except ModuleNotFoundError:
    jax = None

Arrays = Sequence[Any]
Function = Callable[[Any, Arrays, Any, Any], Any]


@dataclass(frozen=True)
class Step:
    """A step of one row: new states side by side, by numpy's words, weights, states and input. `stacks` says which of
    a cell's weights make each of them."""

    function: Function
    stacks: tuple[tuple[str, ...], ...]


def elman(xp: Any, weights: Arrays, h: Any, x: Any) -> Any:
    """One layer of tanh."""
    W, U, b = weights
    return xp.tanh(W @ x + U @ h + b)


def lstm(xp: Any, weights: Arrays, state: Any, x: Any) -> Any:
    """Gates i, f, g, o."""
    W, U, b = weights
    H = state.shape[0] // 2
    z = W @ x + U @ state[:H] + b
    i, f, o = (0.5 + 0.5 * xp.tanh(0.5 * z[k * H : (k + 1) * H]) for k in (0, 1, 3))
    c = f * state[H:] + i * xp.tanh(z[2 * H : 3 * H])
    return xp.concatenate((o * xp.tanh(c), c))


STEPS: Mapping[str, Step] = {
    "elman": Step(elman, (("h.x",), ("h.h",), ("h.bias",))),
    "lstm": Step(lstm, tuple(tuple(f"{gate}.{end}" for gate in "ifgo") for end in ("x", "h", "bias"))),
}


class Recursion:
    """The gradients of a sum over outputs, of weights only and from states of zero; a library says how."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.step = STEPS[problem.cell.name]
        self.weights = [torch.cat([problem.weights[n] for n in key]) for key in self.step.stacks]
        self.states = torch.cat(list(problem.states.values()), 1)
        y = problem.output_gradients["y"]
        self.output_gradients = torch.cat([y, y.new_zeros(*y.shape[:2], self.states.shape[1] - y.shape[2])], 2)

    def training(self) -> Sequence[Tensor]:
        """The gradients of the stacks."""
        raise NotImplementedError

    def named(self, raw: Sequence[Tensor]) -> dict[str, Tensor]:
        """They by the names of `problem.solve`."""
        found: dict[str, Tensor] = {}
        for key, stack in zip(self.step.stacks, raw, strict=True):
            rows = [self._problem.weights[name].shape[0] for name in key]
            found |= {f"gradient of {n}": part for n, part in zip(key, stack.split(rows), strict=True)}
        return found


class ByTorch(Recursion):
    """torch.func, a step at a time."""

    @torch.no_grad()
    def training(self) -> Sequence[Tensor]:
        """See `Recursion`."""
        states, influence = self.states, [self.states.new_zeros(()) for _ in self.weights]
        totals = [torch.zeros_like(w) for w in self.weights]
        jacobians = vmap(jacrev(self._twice, argnums=(0, 1), has_aux=True), in_dims=(None, 0, 0))
        for x, dy in zip(self._problem.x, self.output_gradients, strict=True):
            (own, between), states = jacobians(self.weights, states, x)
            influence = [_moved(b, between, j) for b, j in zip(own, influence, strict=True)]
            totals = [g + torch.tensordot(dy, j, 2) for g, j in zip(totals, influence, strict=True)]
        return totals

    def _twice(self, weights: Arrays, states: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        new = self.step.function(torch, weights, states, x)
        return new, new


def _moved(own: Tensor, between: Tensor, influence: Tensor) -> Tensor:
    """What a step's weights do, and what is left of those before."""
    if not influence.dim():
        return own
    return torch.baddbmm(own.flatten(2), between, influence.flatten(2)).view_as(own)


class ByJax(Recursion):
    """jax, all steps in one program that was compiled before the clock starts."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        given = (self.weights, self.states, problem.x, self.output_gradients)
        self._given = jax.tree.map(lambda t: jax.numpy.asarray(t.numpy()), given)
        self._run = jax.jit(self._scan)

    def training(self) -> Any:
        """See `Recursion`."""
        return jax.block_until_ready(self._run(*self._given))

    def named(self, raw: Any) -> dict[str, Tensor]:
        """See `Recursion`."""
        return super().named([torch.tensor(jax.device_get(g)) for g in raw])

    def _scan(self, weights: Arrays, states: Any, x: Any, output_gradients: Any) -> Any:
        np = jax.numpy
        jacobians = jax.vmap(jax.jacrev(self._twice, argnums=(0, 1), has_aux=True), in_axes=(None, 0, 0))

        def step(carried: Any, given: Any) -> Any:
            states, influence, totals = carried
            (own, between), states = jacobians(weights, states, given[0])
            influence = [b + np.einsum("bde,be...->bd...", between, j) for b, j in zip(own, influence, strict=True)]
            totals = [g + np.tensordot(given[1], j, 2) for g, j in zip(totals, influence, strict=True)]
            return (states, influence, totals), None

        nothing = [np.zeros((*states.shape, *w.shape), states.dtype) for w in weights]
        begin = states, nothing, [np.zeros_like(w) for w in weights]
        return jax.lax.scan(step, begin, (x, output_gradients))[0][2]

    def _twice(self, weights: Arrays, states: Any, x: Any) -> Any:
        new = self.step.function(jax.numpy, weights, states, x)
        return new, new
