"""`KernelInputs`: values computed from weights, sizes, and the order of a call's tensors."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.formats.from_json import graph_from_json
from tidegate.equations.graph import Graph
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import Rate, Value
from tidegate.errors import ArgumentError
from tidegate.native.compile.plan import KernelPlan, make_plan
from tidegate.native.run.kernel import graph_text
from tidegate.reference import Program, bound
from tidegate.reference import torch_ops as xp
from tidegate.reference.unroll import ReferenceUnroll, UnrollArguments, valid_steps

Tensors = dict[str, Tensor]


class KernelInputs:
    """The inputs of the kernels of a cell with bound sizes.

    A call's tensors are one list: values `fixed` during the call (values of weights, expanded block matrices), inputs,
    initial states, and starts. With `indices` the first input is integers. `as_given` are the names of the weights, if
    the kernel needs nothing computed from them.
    """

    def __init__(self, graph: Graph, sizes: Mapping[str, int], *, indices: bool = False) -> None:
        self.plan: KernelPlan = make_plan(graph, (), indices=False)
        self.graph, self.sizes, self.indices = graph, dict(sizes), indices
        self.text = graph_text(graph)
        self.numbers = [self.sizes[letter] for letter in graph.letters]
        self.states = [s.name for s in graph.states]
        self.inputs = [i.name for i in graph.inputs]
        self.moving = [i.name for i in graph.inputs if i.rate == Rate.INPUT]
        self.width = bound(graph.output_size, sizes)[0]
        self.state_widths = [bound(s.size, sizes)[0] for s in graph.states]
        self.saved_width = _saved_width(self.plan, self.sizes)
        plain = [v.attrs["name"] for v in self.plan.fixed if v.op == "weight" and v.attrs.get("blocks") is None]
        self.as_given: list[str] | None = plain if len(plain) == len(self.plan.fixed) else None
        self.fixed_shapes = [bound(v.size, sizes) for v in self.plan.fixed]
        self._prologue = Program(self.plan.prologue)
        self._rest = Program(self.plan.fixed, given=self.plan.prologue)
        self._flows = _flows(self.plan, self.inputs[indices:])
        if indices:
            self._flows.insert(len(self.plan.fixed), False)
        fixed, first = len(self.plan.fixed), self.inputs.index(self.moving[0])
        self.clock = fixed + first
        self.parts = fixed, fixed + len(self.inputs), fixed + len(self.inputs) + len(self.states)

    def fixed(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """The values of weights given to a kernel; gradients flow back through them."""
        if self.as_given is not None:
            return [weights[name] for name in self.as_given]
        named = self.plan.graph.weights
        env: dict[Value, Any] = {named[n]: w for n, w in weights.items() if n in named}
        self._prologue(xp, self.sizes, env)
        if len(self.plan.fixed) > len(self.plan.prologue):
            with torch.no_grad():
                self._rest(xp, self.sizes, env)
        like = next(iter(weights.values()))
        return [_written_out(env[v], n, like) for v, n in zip(self.plan.fixed, self.fixed_shapes, strict=True)]

    def tensors(self, given: UnrollArguments) -> list[Tensor]:
        """A call's tensors in order."""
        states = [*(given.state[n] for n in self.states), *(given.start[n] for n in self.states)]
        return [*self.fixed(given.weights), *(given.inputs[n] for n in self.inputs), *states]

    def needs_grad(self, needs: Sequence[bool], reset: bool) -> list[bool]:
        """The tensors that need a gradient and get one; without resets, starts have none."""
        flows = [*self._flows, *[True] * len(self.states), *[reset] * len(self.states)]
        return [a and b for a, b in zip(needs, flows, strict=True)]

    def steps_and_rows(self, tensors: Any) -> tuple[Any, Any]:
        """T and B of a call."""
        shape = tensors[self.clock].shape
        return shape[0], shape[1]

    def has_steps(self, inputs: Sequence[Tensor], lengths: Tensor | None) -> bool:
        """Whether there is a step to compute."""
        clock = inputs[self.clock - self.parts[0]]
        return clock.numel() > 0 and (lengths is None or bool(lengths.any()))

    def check_indices(self, tensors: Sequence[Tensor], lengths: Tensor | None) -> None:
        """Raise ArgumentError for an index out of range in a compiled program; otherwise layers check it."""
        if self.indices:
            x = tensors[self.parts[0]]
            check_indices(self.graph, x if lengths is None else x[valid_steps(x.shape[0], lengths)], self.sizes)

    def reference(
        self, tensors: Any, lengths: Tensor | None, reset: Tensor | None, backwards: bool
    ) -> tuple[Tensor, ...]:
        """The output and the final states by torch's operations, which define all derivatives of kernels."""
        a, b, c = self.parts
        given = UnrollArguments(
            {f"p{k}": t for k, t in enumerate(tensors[: len(self.plan.prologue)])},
            dict(zip(self.inputs, tensors[a:b], strict=True)),
            dict(zip(self.states, tensors[b:c], strict=True)),
            dict(zip(self.states, tensors[c:], strict=True)),
            lengths,
            reset,
            backwards,
        )
        y, end = _after_prologue(self.plan, tuple(self.sizes.items()))(given)
        return (y, *(end[n] for n in self.states))


@lru_cache(maxsize=256)
def read_kernel_inputs(text: str, numbers: tuple[int, ...], indices: bool) -> KernelInputs:
    """The inputs of the cell that an operator's arguments describe."""
    graph = _read_graph(text)
    return KernelInputs(graph, dict(zip(graph.letters, numbers, strict=True)), indices=indices)


@lru_cache(maxsize=256)
def _read_graph(text: str) -> Graph:
    return graph_from_json(json.loads(text))


@lru_cache(maxsize=256)
def _after_prologue(plan: KernelPlan, sizes: tuple[tuple[str, int], ...]) -> ReferenceUnroll:
    """The reference path of a graph whose weights are the values of the plan's prologue."""
    leaves = {v: Value("weight", (), v.size, Rate.WEIGHTS, name=f"p{k}") for k, v in enumerate(plan.prologue)}
    graph = plan.graph
    new = rewrite(graph.roots, lambda v, args: leaves[v] if v in leaves else with_args(v, args))
    states = {name: new[v] for name, v in graph.new.items()}
    weights = {f"p{k}": leaf for k, leaf in enumerate(leaves.values())}
    return ReferenceUnroll(replace(graph, output=new[graph.output], new=states, weights=weights, inits={}), dict(sizes))


def _flows(plan: KernelPlan, inputs: Sequence[str]) -> list[bool]:
    """Whether gradients flow to the fixed values and to the inputs."""
    reached = {g.matrix for g in plan.gradients} | {v for v, _ in (*plan.biases, *plan.sums)}
    moved = {stage.only_for for stage in plan.backward.stages}
    return [*(v in reached for v in plan.fixed), *(n in moved for n in inputs)]


def _written_out(found: Any, size: tuple[int, ...], like: Tensor) -> Tensor:
    if not isinstance(found, Tensor):
        return like.new_full(size, float(found))
    return xp.dense(found).reshape(size) if found.dim() == 3 else found.expand(size)


def _saved_width(plan: KernelPlan, sizes: Mapping[str, int]) -> int:
    of_state = {s.name: s.size for s in plan.graph.states}
    saved: Iterable[Any] = [*(of_state[n] for n in plan.history), *(v.size for v in plan.stored)]
    return sum(bound(size, sizes)[0] for size in saved)


# inputs as indices of one-hots


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor has values to check; while a program is being compiled it has none, and operators check them."""
    return not tensor.is_meta and not torch.compiler.is_compiling()


def check_multiplied_only(graph: Graph) -> None:
    """Raise ArgumentError if the cell's first input cannot be an index of a one-hot."""
    first = graph.inputs[0]
    value = graph.input_values[first.name]
    users = [v.op for v in graph.values if any(a is value for a in v.args)]
    if any(r is value for r in graph.roots) or any(op not in ("linear", "product") for op in users):
        raise ArgumentError(
            f"cell {graph.name!r} does more with {first.name!r} than multiply it, so it cannot be an index of a "
            "one-hot: pass one-hots, as in torch.nn.functional.one_hot(x, size).float()"
        )


def check_indices(graph: Graph, indices: Any, sizes: Mapping[str, int]) -> None:
    """Raise ArgumentError unless these integers, of torch or numpy, are valid indices of one-hots."""
    check_multiplied_only(graph)
    if 0 in indices.shape:
        return
    (size,), low, high = bound(graph.inputs[0].size, sizes), int(indices.min()), int(indices.max())
    if low < 0 or high >= size:
        raise ArgumentError(
            f"indices of a one-hot of size {size} must be between 0 and {size - 1}, got {low} to {high}"
        )
