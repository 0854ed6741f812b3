"""What is recognised of a recurrence, never declared."""

from __future__ import annotations

from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate


def delay_lines(graph: Graph) -> frozenset[str]:
    """The states that only remember inputs: their new value is an input, or the old value of another such state.

    What is computed from them alone is known before time, as inputs are.
    """
    found: set[str] = set()
    while True:
        more = {
            name
            for name, value in graph.new.items()
            if name not in found and (value.rate < Rate.STATE or (value.op == "old" and value.attrs["name"] in found))
        }
        if not more:
            return frozenset(found)
        found |= more
