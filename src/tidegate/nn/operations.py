"""Floating-point operations of a cell, counted from its graph."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from tidegate.calculus import simplify_graph
from tidegate.equations import Graph, Rate, Value
from tidegate.equations.ops import OPS
from tidegate.equations.values import products
from tidegate.reference import bound


@dataclass(frozen=True)
class Operations:
    """The cost of one step of one row: operations in products, other operations, and elements of recurrent matrices."""

    products: int
    others: int
    recurrent: int


def operations(graph: Graph, sizes: Mapping[str, int]) -> Operations:
    """Count one step, without what is computed once per call from weights alone."""
    return operations_of(simplify_graph(graph).values, sizes)


def operations_of(made: Iterable[Value], sizes: Mapping[str, int]) -> Operations:
    """Count the operations of these values, each once."""
    values = [v for v in made if v.rate > Rate.WEIGHTS]
    pairs = [pair for v in values for pair in products(v)]
    recurrent = {matrix for matrix, vector in pairs if vector.rate == Rate.STATE}
    return Operations(
        products=sum(2 * _numbers(matrix, sizes) for matrix, _ in pairs),
        others=sum(_others(v, sizes) for v in values),
        recurrent=sum(_numbers(matrix, sizes) for matrix in recurrent),
    )


def _numbers(matrix: Value, sizes: Mapping[str, int]) -> int:
    return prod(bound(matrix.size, sizes)) // (matrix.attrs.get("blocks") or 1)


def _others(value: Value, sizes: Mapping[str, int]) -> int:
    if value.op == "linear":  # the sum of its products and its bias
        return (len(value.attrs["labels"]) - 1 + bool(value.attrs["bias"])) * prod(bound(value.size, sizes))
    if value.is_leaf or OPS[value.op].kind not in ("pointwise", "units"):
        return 0
    reduced = value.op in ("mean", "total")
    return OPS[value.op].cost * prod(bound(value.args[0].size if reduced else value.size, sizes))
