"""A cell over time, on torch: what goes before time, the steps, and what comes after.

Time-major: inputs `[T, B, size]`, states `[B, size]`, `lengths` `[B]`, `reset` `[T, B]`. The rules of `lengths` and
`reset` are those of docs/layers.md, for both directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tidegate.calculus.hoist import Phases, phases
from tidegate.equations.graph import Graph, Rate, Value
from tidegate.reference import Program, bound
from tidegate.reference import torch_ops as xp

Tensors = dict[str, Tensor]


class Sequence:
    """One cell with bound sizes, ready to run over any number of steps."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.graph, self.sizes = graph, dict(sizes)
        self.cut: Phases = _phases(graph)
        cut = self.cut
        self.prologue = Program(cut.prologue)
        self.before = Program(cut.before, given=cut.prologue)
        self.steps = Program([*cut.new.values(), *cut.carried], given=[*cut.prologue, *cut.before])
        self.after = Program([cut.output], given=[*cut.prologue, *cut.before, *cut.carried])
        self.width = bound(graph.output_size, sizes)

    def __call__(
        self,
        weights: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        state: Tensors,
        start: Mapping[str, Tensor],
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tensor, Tensors]:
        """The output `[T, B, size]`, zero where padded, and each row's state at its own end."""
        T, B = _steps_and_rows(self.graph, inputs)
        valid = None if lengths is None else _valid(T, lengths)
        if valid is not None:
            inputs = {name: _masked(x, valid) for name, x in inputs.items()}
        fixed, moving = self._hoisted(weights, inputs)
        taken: list[list[Any]] = []
        for t in range(T):
            if reset is not None:
                state = _select(reset[t], {k: _rows(v, B) for k, v in start.items()}, state)
            env = {**fixed, **{v: a[t] for v, a in moving.items()}}
            env |= {v: state[name] for name, v in self.graph.old.items()}
            self.steps(xp, self.sizes, env)
            new = {
                k: _like(env[v] if v.op != "constant" else v.attrs["value"], state[k]) for k, v in self.cut.new.items()
            }
            taken.append([env[v] for v in self.cut.carried])
            state = new if valid is None else _select(valid[t], new, state)
        output = self._output(fixed, moving, taken, T, B, next(iter(state.values())))
        return output if valid is None else torch.where(valid.unsqueeze(-1), output, 0.0), state

    def _hoisted(
        self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
    ) -> tuple[dict[Value, Any], dict[Value, Tensor]]:
        """What is known before time: values that do not move, and values `[T, B, ...]`."""
        graph = self.graph
        env: dict[Value, Any] = {graph.weights[name]: w for name, w in weights.items()}
        self.prologue(xp, self.sizes, env)
        env |= {v: inputs[name] for name, v in graph.input_values.items()}
        self.before(xp, self.sizes, env)
        fixed = {v: env[v] for v in self.cut.prologue}
        early = {v: env[v] for v in self.cut.before}
        fixed |= {v: a for v, a in early.items() if v.rate != Rate.INPUT}
        return fixed, {v: a for v, a in early.items() if v.rate == Rate.INPUT}

    def _output(
        self,
        fixed: dict[Value, Any],
        moving: dict[Value, Tensor],
        taken: list[list[Any]],
        T: int,
        B: int,
        like: Tensor,
    ) -> Tensor:
        env: dict[Value, Any] = {**fixed, **moving}
        for k, value in enumerate(self.cut.carried):
            width = bound(value.size, self.sizes)
            rows = [torch.as_tensor(step[k]).expand(B, *width) for step in taken]
            env[value] = torch.stack(rows) if rows else like.new_zeros((0, B, *width))
        (output,) = self.after(xp, self.sizes, env) if self.cut.output not in env else (env[self.cut.output],)
        return torch.as_tensor(output).expand(T, B, *self.width)


@lru_cache(maxsize=256)
def _phases(graph: Graph) -> Phases:
    return phases(graph)


def trace(
    graph: Graph, sizes: Mapping[str, int], weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], state: Tensors
) -> tuple[dict[str, Tensor], Tensors]:
    """Every named value of the step at every step, `[T, B, size]` by printed name, and the final state."""
    T, B = _steps_and_rows(graph, inputs)
    named = {label: v for label, v in graph.named.items() if v.rate > Rate.WEIGHTS}
    program = Program([*named.values(), *graph.new.values()])
    kept: dict[str, list[Tensor]] = {label: [] for label in named}
    for t in range(T):
        env: dict[Value, Any] = {graph.weights[name]: w for name, w in weights.items()}
        env |= {v: _at(inputs[name], v, t) for name, v in graph.input_values.items()}
        env |= {v: state[name] for name, v in graph.old.items()}
        program(xp, sizes, env)
        for label, v in named.items():
            kept[label].append(torch.as_tensor(env[v]).expand(B, *bound(v.size, sizes)))
        state = {k: _like(env[v], state[k]) for k, v in graph.new.items()}
    empty = {label: next(iter(state.values())).new_zeros((0, B, *bound(v.size, sizes))) for label, v in named.items()}
    return {label: torch.stack(rows) if rows else empty[label] for label, rows in kept.items()}, state


def reversed_rows(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each row `[T, B, ...]` backwards from its own end; what is padded stays where it is."""
    if lengths is None:
        return x.flip(0)
    index = reversed_index(x.shape[0], lengths)
    return x.gather(0, index.reshape(*index.shape, *([1] * (x.dim() - 2))).expand_as(x))


def reversed_index(T: int, lengths: Tensor) -> Tensor:
    """For each step and row `[T, B]`, the step that stands there once the row is turned round."""
    t = torch.arange(T, device=lengths.device).unsqueeze(1)
    return torch.where(t < lengths, lengths - 1 - t, t)


def reversed_reset(reset: Tensor, lengths: Tensor | None) -> Tensor:
    """The resets as the backward direction meets them: it starts afresh at the last step before a reset."""
    following = torch.cat([reset[1:], torch.zeros_like(reset[:1])])
    return reversed_rows(following, lengths)


def _steps_and_rows(graph: Graph, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
    name = next(i.name for i in graph.inputs if i.rate == Rate.INPUT)
    return int(inputs[name].shape[0]), int(inputs[name].shape[1])


def _at(x: Tensor, value: Value, t: int) -> Tensor:
    return x[t] if value.rate == Rate.INPUT else x


def _valid(T: int, lengths: Tensor) -> Tensor:
    return torch.arange(T, device=lengths.device).unsqueeze(1) < lengths


def _masked(x: Tensor, valid: Tensor) -> Tensor:
    """Zero where padded, selected and not multiplied: what lies there may be NaN, and NaN times 0 is NaN."""
    if x.dim() < 2 or x.shape[:2] != valid.shape:
        return x
    mask = valid.reshape(*valid.shape, *([1] * (x.dim() - 2)))
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def _select(rows: Tensor, a: Tensors, b: Tensors) -> Tensors:
    chosen = rows.unsqueeze(-1)
    return {k: torch.where(chosen, a[k], b[k]) for k in b}


def _rows(start: Tensor, B: int) -> Tensor:
    return start.expand(B, start.shape[-1])


def _like(value: Any, old: Tensor) -> Tensor:
    """A new state in the old one's shape and type: under autocast, counters and stabilisers stay exact."""
    tensor = torch.as_tensor(value, dtype=old.dtype, device=old.device) if not isinstance(value, Tensor) else value
    if tensor.dtype != old.dtype:
        tensor = tensor.to(old.dtype)
    return tensor if tensor.shape == old.shape else tensor.expand(old.shape)
