"""Properties of a recurrence that are recognised, never declared."""

from tidegate.equations.graph import Graph
from tidegate.equations.values import Rate, products, walk


def delay_lines(graph: Graph) -> frozenset[str]:
    """The states that only remember inputs: their new value is an input, or the old value of another such state.

    Values computed from them alone are known before the recurrence, like inputs.
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


def recurrent_matrices(graph: Graph) -> list[str]:
    """The weights that multiply values depending on a state; bookkeeping states and delay lines count as inputs."""
    carried = {s.name for s in graph.states if not s.bookkeeping} - delay_lines(graph)
    pairs = [pair for v in graph.values for pair in products(v)]
    found = {m for m, v in pairs if any(w.op == "old" and w.attrs["name"] in carried for w in walk([v]))}
    return [name for name, weight in graph.weights.items() if weight in found]
