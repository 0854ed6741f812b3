"""The reference implementation: evaluates a graph value by value, on numpy or torch.

Vectors are `[..., units]`, matrices of weights `[rows, columns]`, or where they are block-diagonal
`[blocks, rows / blocks, columns / blocks]`. Everything faster is tested against what stands here.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tidegate.equations.graph import Graph
from tidegate.equations.ops import OPS, Op
from tidegate.equations.values import Size, Value
from tidegate.errors import ArgumentError
from tidegate.reference import numpy_ops

Sizes = Mapping[str, int]
Env = dict[Value, Any]


def bound(size: Size, sizes: Sizes) -> tuple[int, ...]:
    """A size in numbers: letters bound by `sizes`, `H+S` as their sum."""
    return tuple(p if isinstance(p, int) else sum(_letter(q, sizes) for q in p.split("+")) for p in size)


def _letter(letter: str, sizes: Sizes) -> int:
    if letter == "1":
        return 1
    if letter not in sizes:
        raise ArgumentError(f"size {letter} is not bound: give it a number, as in {letter}=8")
    return sizes[letter]


def weight_shape(weight: Value, sizes: Sizes) -> tuple[int, ...]:
    """The shape of a weight's tensor. Raises ArgumentError if its blocks do not divide it."""
    shape = bound(weight.size, sizes)
    blocks = weight.attrs.get("blocks")
    if blocks is None:
        return shape
    if any(n % blocks for n in shape):
        raise ArgumentError(
            f"weight {weight.attrs['name']!r} of {shape[0]} x {shape[1]} cannot be cut into {blocks} blocks: "
            f"choose sizes divisible by {blocks}"
        )
    return (blocks, *(n // blocks for n in shape))


class Program:
    """The values that the roots need, in order, to be evaluated any number of times.

    Called with an environment that holds the leaves (and whatever is known already), it adds the rest and returns the
    roots. `given` are values not to be computed: what they are made of is not touched.
    """

    def __init__(self, roots: Iterable[Value], given: Iterable[Value] = ()) -> None:
        self.roots = tuple(roots)
        known = set(given)
        self.order = [v for v in _needed(self.roots, known) if v not in known]

    def __call__(self, xp: Any, sizes: Sizes, env: Env) -> list[Any]:
        """Evaluate the roots; computed values are added to the environment."""
        with np.errstate(all="ignore"):  # infinities and NaN are values here, with numpy as with torch
            for value in self.order:
                if value not in env:
                    env[value] = _compute(xp, sizes, value, [env[a] for a in value.args], env)
        return [env[r] for r in self.roots]


def _needed(roots: Sequence[Value], known: set[Value]) -> list[Value]:
    seen: set[Value] = set()
    stack = [r for r in roots if r not in known]
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            stack.extend(a for a in value.args if a not in known)
    return sorted(seen, key=lambda v: v.order)


def _compute(xp: Any, sizes: Sizes, value: Value, arrays: list[Any], env: Env) -> Any:
    if value.op == "constant":
        return value.attrs["value"]
    if value.op == "count":
        return float(bound((value.attrs["of"],), sizes)[0])
    if value.op == "eye":
        return xp.eye(bound(value.size, sizes)[0], next(iter(env.values())))
    row = OPS.get(value.op)
    if row is None or row.value is None:
        what = f"{value.op} {value.label!r}" if value.label else value.op
        raise ArgumentError(f"{what} is not computed here: give its value in the environment")
    if row.kind != "pointwise":
        arrays = [xp.vector(a, next(iter(env.values()))) if isinstance(a, float) else a for a in arrays]
        return row.value(xp, value, partial(bound, sizes=sizes), *arrays)
    if all(isinstance(a, float) for a in arrays):
        return _of_numbers(row, arrays)
    return row.value(xp, *arrays)


def _of_numbers(row: Op, numbers: list[float]) -> float:
    """Arithmetic by the rules of arrays: 1 / 0 is infinity and not an exception."""
    assert row.value is not None
    return float(row.value(numpy_ops, *map(np.float64, numbers)))


def evaluate(roots: Iterable[Value], env: Env, xp: Any, sizes: Sizes) -> list[Any]:
    """Evaluate the roots from an environment with every leaf they need; computed values are added to it."""
    return Program(roots)(xp, sizes, env)


def leaves(graph: Graph, weights: Mapping[str, Any], inputs: Mapping[str, Any], states: Mapping[str, Any]) -> Env:
    """An environment with a graph's weights, inputs and those of its old states that are given, each by name."""
    env: Env = {graph.weights[name]: array for name, array in weights.items()}
    env |= {value: inputs[name] for name, value in graph.input_values.items()}
    return env | {value: states[name] for name, value in graph.old.items() if name in states}


def step(
    graph: Graph,
    weights: Mapping[str, Any],
    inputs: Mapping[str, Any],
    states: Mapping[str, Any],
    xp: Any,
    sizes: Sizes,
) -> tuple[Any, dict[str, Any]]:
    """One step: the output and the new states, each `[..., size]`, from weights, inputs and old states by name."""
    env = leaves(graph, weights, inputs, states)
    output, *new = evaluate(graph.roots, env, xp, sizes)
    like = next(iter(states.values()))
    shape = like.shape[:-1]
    arrays = [xp.vector(v, like) if isinstance(v, float) else v for v in new]
    expanded = {
        s.name: xp.expand(v, (*shape, *bound(s.size, sizes))) for s, v in zip(graph.states, arrays, strict=True)
    }
    width = bound(graph.output_size, sizes)
    return xp.expand(output, (*shape, *width)), expanded
