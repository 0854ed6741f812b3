"""A cell over time by torch's own operations, step by step: the reference path.

Time-major: inputs `[T, B, size]`, states `[B, size]`, `lengths` `[B]`, `reset` `[T, B]`. The rules of `lengths` and
`reset` are those of docs/layers.md, for both directions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.calculus.phases import Phases, phases
from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, Value
from tidegate.reference import Program, bound
from tidegate.reference import torch_ops as xp
from tidegate.reference.step_program import StepProgram

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class UnrollArguments:
    """What a cell over time is given, time-major; every name is one of the cell's.

    `inputs` are `[T, B, size]` (`[B, size]` where they do not change over time), `state` is `[B, size]`, `start` `[1,
    size]`, `lengths` `[B]`, `reset` `[T, B]`. With `backwards` each row is read from its own end.
    """

    weights: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    start: Mapping[str, Tensor]
    lengths: Tensor | None = None
    reset: Tensor | None = None
    backwards: bool = False


class ReferenceUnroll:
    """One cell with bound sizes, for any number of steps, on any device, under any of torch's transforms."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.graph, self.sizes = graph, dict(sizes)
        self.cut: Phases = _phases(graph)
        cut = self.cut
        self.prologue = Program(cut.prologue)
        self.before = Program(cut.before, given=cut.prologue)
        self.step = StepProgram([*cut.new.values(), *cut.carried], [*cut.prologue, *cut.before], sizes)
        self.after = Program([cut.output], given=[*cut.prologue, *cut.before, *cut.carried])
        self.old = [(self.step.place[v], name) for name, v in graph.old.items() if v in self.step.place]
        self.new = [(name, self.step.place[v]) for name, v in cut.new.items()]
        self.carried = [self.step.place[v] for v in cut.carried]
        self.width = bound(graph.output_size, sizes)

    def __call__(self, given: UnrollArguments) -> tuple[Tensor, Tensors]:
        """The output `[T, B, size]`, zero where padded, and each row's state at its own end."""
        if not given.backwards:
            return self._forwards(given)
        lengths, reset = given.lengths, given.reset
        fixed = {i.name for i in self.graph.inputs if i.rate == Rate.SEQUENCE}
        turned = {n: x if n in fixed else reversed_rows(x, lengths) for n, x in given.inputs.items()}
        back = None if reset is None else reversed_reset(reset, lengths)
        y, end = self._forwards(replace(given, inputs=turned, reset=back))
        return reversed_rows(y, lengths), end

    def _forwards(self, given: UnrollArguments) -> tuple[Tensor, Tensors]:
        lengths, reset = given.lengths, given.reset
        if lengths is None:
            return self._run(given, None)
        T = steps_and_rows(self.graph, given.inputs)[0]
        longest = T if lengths.is_meta else min(T, int(lengths.max())) if lengths.numel() else 0
        runs = (lengths > 0).unsqueeze(-1)
        state = {n: torch.where(runs, s, 0.0) for n, s in given.state.items()}  # a row without steps may hold NaN
        inputs, flags = self._padded(given.inputs, lengths, longest), None if reset is None else reset[:longest]
        y, end = self._run(replace(given, inputs=inputs, state=state, reset=flags), valid_steps(longest, lengths))
        y = nn.functional.pad(y, (0, 0, 0, 0, 0, T - longest))
        return y, {n: torch.where(runs, e, given.state[n]) for n, e in end.items()}

    def _run(self, given: UnrollArguments, valid: Tensor | None) -> tuple[Tensor, Tensors]:
        T, B = steps_and_rows(self.graph, given.inputs)
        state, reset = dict(given.state), given.reset
        fixed, moving = self._hoisted(given.weights, given.inputs)
        begin = {} if reset is None else {k: v.expand(B, v.shape[-1]) for k, v in given.start.items()}
        taken: list[list[Any]] = []
        for t, places in enumerate(self._each_step(fixed, moving, T)):
            if reset is not None:
                state = _select(reset[t], begin, state)
            for value, name in self.old:
                places[value] = state[name]
            self.step(places)
            new = {k: in_form_of(places[v], state[k]) for k, v in self.new}
            taken.append([places[v] for v in self.carried])
            state = new if valid is None else _select(valid[t], new, state)
        output = self._output(fixed, moving, taken, T, B, next(iter(state.values())))
        return output if valid is None else torch.where(valid.unsqueeze(-1), output, 0.0), state

    def _each_step(self, fixed: Mapping[Value, Any], moving: Mapping[Value, Tensor], T: int) -> Iterator[list[Any]]:
        """The places of the step, with what is known before time filled in.

        Series are taken apart once: an index at each step would make a whole gradient at each step.
        """
        known = self.step.places(fixed)
        series = [(self.step.place[v], a.unbind(0)) for v, a in moving.items() if v in self.step.place]
        for t in range(T):
            places = known.copy()
            for place, rows in series:
                places[place] = rows[t]
            yield places

    def _padded(self, inputs: Mapping[str, Tensor], lengths: Tensor, longest: int) -> dict[str, Tensor]:
        """The inputs up to the longest row's end, with valid steps where they are padded: NaN may lie there, and 0 may
        be no legal value."""
        rates = {i.name: i.rate for i in self.graph.inputs}
        return {n: refilled(x[:longest], lengths) if rates[n] == Rate.INPUT else x for n, x in inputs.items()}

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
        self, fixed: dict[Value, Any], moving: dict[Value, Tensor], taken: list[list[Any]], T: int, B: int, like: Tensor
    ) -> Tensor:
        env: dict[Value, Any] = {**fixed, **moving}
        for k, value in enumerate(self.cut.carried):
            width = bound(value.size, self.sizes)
            rows = [torch.as_tensor(step[k]).expand(B, *width) for step in taken]
            env[value] = torch.stack(rows) if rows else like.new_zeros((0, B, *width))
        (output,) = self.after(xp, self.sizes, env) if self.cut.output not in env else (env[self.cut.output],)
        return torch.as_tensor(output).to(like.dtype).expand(T, B, *self.width)


@lru_cache(maxsize=256)
def _phases(graph: Graph) -> Phases:
    return phases(graph)


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


def steps_and_rows(graph: Graph, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
    """T and B of a call."""
    name = next(i.name for i in graph.inputs if i.rate == Rate.INPUT)
    return inputs[name].shape[0], inputs[name].shape[1]


def valid_steps(T: int, lengths: Tensor) -> Tensor:
    """Which steps `[T, B]` lie before their row's end."""
    return torch.arange(T, device=lengths.device).unsqueeze(1) < lengths


def refilled(x: Tensor, lengths: Tensor) -> Tensor:
    """The last valid step of each row again and again after its end; rows without a step are given the longest's."""
    T, B = x.shape[:2]
    if not T or not B:
        return x
    row = torch.where(lengths > 0, torch.arange(B, device=x.device), lengths.argmax())
    step = torch.minimum(torch.arange(T, device=x.device).unsqueeze(1), lengths[row] - 1)
    return x[step, row]


def _select(rows: Tensor, a: Tensors, b: Tensors) -> Tensors:
    chosen = rows.unsqueeze(-1)
    return {k: torch.where(chosen, a[k], b[k]) for k in b}


def in_form_of(value: Any, old: Tensor) -> Tensor:
    """A new state in the old one's shape and type: under autocast, counters and stabilisers stay exact."""
    tensor = torch.as_tensor(value, dtype=old.dtype, device=old.device) if not isinstance(value, Tensor) else value
    if tensor.dtype != old.dtype:
        tensor = tensor.to(old.dtype)
    return tensor if tensor.shape == old.shape else tensor.expand(old.shape)
