"""Reverse mode, graph to graph: derives the equations of a step's backward pass.

Baydin et al. 2018, arXiv:1502.05767, section 3.2. The gradient of a value that changes with the weights only is a sum
over rows and steps; the graph gives each step's contribution (an `outer` for a matrix), and whoever runs it sums. From
there the weights' own gradients follow once a call, through the prologue.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

from tidegate.calculus.simplify import simplify
from tidegate.equations.graph import Graph
from tidegate.equations.ops import OPS, spread, total
from tidegate.equations.rewrite import rewrite, with_args
from tidegate.equations.values import SCALAR, Rate, Size, Value, walk
from tidegate.errors import EquationError


@dataclass(frozen=True, eq=False)
class StepVJP:
    """The vjp of one step: the equations of its backward pass.

    `seeds` are leaves to be given: the gradient of the output under its name with the prefix `out.`, and of each new
    state under `new.`. `states` and `inputs` hold the gradients of the old states and the inputs; `weights` those of
    the values of weights only that the step reads, one contribution for each use, to be summed over rows and steps.
    Zero gradients are omitted.
    """

    seeds: Mapping[str, Value]
    states: Mapping[str, Value]
    inputs: Mapping[str, Value]
    weights: Mapping[Value, tuple[Value, ...]]

    @property
    def roots(self) -> tuple[Value, ...]:
        """All values that the backward pass computes."""
        contributions = (v for group in self.weights.values() for v in group)
        return (*self.states.values(), *self.inputs.values(), *contributions)


def vjp(graph: Graph) -> StepVJP:
    """Derive the backward pass of one step of a cell."""
    seeds = {f"out.{graph.output_name}": _seed(f"out.{graph.output_name}", graph.output_size)}
    pairs = [(graph.output, _fitted(seeds[f"out.{graph.output_name}"], graph.output))]
    for state in graph.states:
        name = f"new.{state.name}"
        seeds[name] = _seed(name, state.size)
        pairs.append((graph.new[state.name], _fitted(seeds[name], graph.new[state.name])))
    gradients = _propagate(pairs)
    sums = {v: _summed(a) for v, a in gradients.items() if v.rate > Rate.WEIGHTS and v.is_leaf and a}
    weights = {v: tuple(a) for v, a in gradients.items() if v.rate == Rate.WEIGHTS and a}
    return _simplified(graph, seeds, sums, weights)


def _simplified(
    graph: Graph, seeds: dict[str, Value], sums: dict[Value, Value], weights: dict[Value, tuple[Value, ...]]
) -> StepVJP:
    small = simplify([*sums.values(), *(v for group in weights.values() for v in group)], fixed=graph.values)
    return StepVJP(
        seeds=seeds,
        states={n: small[sums[v]] for n, v in graph.old.items() if v in sums},
        inputs={n: small[sums[v]] for n, v in graph.input_values.items() if v in sums},
        weights={v: tuple(small[c] for c in group) for v, group in weights.items()},
    )


def pulled_back(graph: Graph, given: Mapping[str, Value], to: Iterable[Value]) -> dict[Value, Value]:
    """The gradients of some values of a step, given those of the new states by name. Values of weights only are treated
    as independent of each other. `clip_gradient` counts as the identity, as in a Jacobian. Zero gradients are
    omitted."""
    plain = rewrite(graph.new.values(), lambda v, args: args[0] if v.op == "clip_gradient" else with_args(v, args))
    ends = [(plain[v], given[name]) for name, v in graph.new.items() if name in given]
    gradients = _propagate([(v, _fitted(gradient, v)) for v, gradient in ends])
    found = {v: _summed(gradients[plain[v]]) for v in to if v in plain and gradients.get(plain[v])}
    small = simplify(found.values(), fixed=graph.values)
    return {v: small[gradient] for v, gradient in found.items()}


def _seed(name: str, size: Size) -> Value:
    return Value("seed", (), size, Rate.STATE, name=name)


def _constants(values: Iterable[Value]) -> set[Value]:
    """The values that depend on no weight, state or input, operands first."""
    found: set[Value] = set()
    for value in values:
        if value.op in ("constant", "count", "eye") if value.is_leaf else found.issuperset(value.args):
            found.add(value)
    return found


def _propagate(pairs: list[tuple[Value, Value]]) -> dict[Value, list[Value]]:
    """The contributions to each value's gradient; values of weights only are not expanded."""
    values = walk(value for value, _ in pairs)
    constants = _constants(values)
    gradients: dict[Value, list[Value]] = {}
    for value, gradient in pairs:
        if value not in constants:
            gradients.setdefault(value, []).append(gradient)
    for value in reversed(values):
        if value not in gradients or value.is_leaf or value.rate == Rate.WEIGHTS:
            continue
        for operand, gradient in _contributions(value, _summed(gradients[value])):
            if operand not in constants:
                gradients.setdefault(operand, []).append(_fitted(gradient, operand))
    return gradients


def _contributions(value: Value, gradient: Value) -> list[tuple[Value, Value]]:
    derivative = OPS[value.op].derivative
    if derivative is None:
        raise EquationError(f"{value.op!r} has no derivative: it only occurs in derivatives")
    parts = derivative(gradient, value, *value.args)
    return [(operand, part) for operand, part in zip(value.args, parts, strict=True) if part is not None]


def _fitted(gradient: Value, operand: Value) -> Value:
    """Sum what the forward pass broadcast, and broadcast what it summed."""
    if gradient.size == operand.size:
        return gradient
    if operand.size == SCALAR:
        return total(gradient)
    return spread(gradient, operand.size) if gradient.size == SCALAR and len(operand.size) == 1 else gradient


def _summed(parts: list[Value]) -> Value:
    return reduce(add, parts)
