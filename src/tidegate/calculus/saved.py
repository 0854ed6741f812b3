"""Decides what a step stores for its backward pass and what the backward pass recomputes.

The backward pass reads values of the step. Old and new states, inputs and weights are available anyway; of the rest a
smallest set is saved from which element-wise operations recompute the others, since products and reductions are too
expensive to repeat. It is a minimum cut (Ford & Fulkerson 1956; for recomputation as in Jain et al. 2020,
arXiv:1910.02653): of several smallest sets the one nearest to the reads, so that the least is recomputed.
"""

from collections import deque
from itertools import pairwise

from tidegate.calculus.vjp import StepVJP
from tidegate.equations.graph import Graph
from tidegate.equations.ops import OPS
from tidegate.equations.values import SCALAR, Rate, Value, walk

VECTOR_COST, SCALAR_COST, INFINITE = 1024, 1, 1 << 40


def saved_values(graph: Graph, back: StepVJP) -> tuple[Value, ...]:
    """The values that the forward pass of a step stores; its backward pass recomputes from them what else it reads."""
    at_hand = set(graph.new.values()) | {v for v in graph.values if v.is_leaf or v.rate == Rate.WEIGHTS}
    step = {v for v in graph.values if v not in at_hand}
    backward = walk(back.roots)
    read = {a for v in backward if v not in step and v not in at_hand for a in v.args if a in step}
    read |= {v for v in back.roots if v in step}
    return tuple(sorted(_smallest_cut(step, read), key=lambda v: v.order))


def _recomputable(value: Value) -> bool:
    return OPS[value.op].kind == "pointwise"


class _Network:
    """A flow network with capacities on nodes; edges (value, out) -> (user, in) have none."""

    def __init__(self) -> None:
        self.capacity: dict[object, dict[object, int]] = {}

    def edge(self, a: object, b: object, capacity: int) -> None:
        self.capacity.setdefault(a, {})[b] = self.capacity.get(a, {}).get(b, 0) + capacity
        self.capacity.setdefault(b, {}).setdefault(a, 0)

    def path(self, source: object, sink: object) -> list[object] | None:
        before: dict[object, object] = {source: source}
        queue = deque([source])
        while queue:
            node = queue.popleft()
            if node == sink:
                trail = [sink]
                while trail[-1] != source:
                    trail.append(before[trail[-1]])
                return trail[::-1]
            for other, free in self.capacity[node].items():
                if free > 0 and other not in before:
                    before[other] = node
                    queue.append(other)
        return None

    def saturate(self, source: object, sink: object) -> None:
        while (trail := self.path(source, sink)) is not None:
            edges = list(pairwise(trail))
            free = min(self.capacity[a][b] for a, b in edges)
            for a, b in edges:
                self.capacity[a][b] -= free
                self.capacity[b][a] += free

    def reaching(self, sink: object) -> set[object]:
        """The nodes that can still reach the sink: their border is the minimum cut closest to it."""
        found, queue = {sink}, deque([sink])
        while queue:
            node = queue.popleft()
            for other in self.capacity[node]:
                if other not in found and self.capacity[other].get(node, 0) > 0:
                    found.add(other)
                    queue.append(other)
        return found


def _smallest_cut(step: set[Value], read: set[Value]) -> set[Value]:
    network, number = _Network(), {v: k for k, v in enumerate(sorted(step, key=lambda v: v.order))}
    network.edge("source", "sink", 0)
    for value, k in number.items():
        network.edge(("in", k), ("out", k), SCALAR_COST if value.size == SCALAR else VECTOR_COST)
        if not _recomputable(value):
            network.edge("source", ("in", k), INFINITE)
        for a in value.args:
            if a in number and _recomputable(value):
                network.edge(("out", number[a]), ("in", k), INFINITE)
        if value in read:
            network.edge(("out", k), "sink", INFINITE)
    network.saturate("source", "sink")
    below = network.reaching("sink")
    return {v for v, k in number.items() if ("out", k) in below and ("in", k) not in below}
