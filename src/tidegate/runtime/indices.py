"""Inputs given as indices of one-hots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.graph import Graph
from tidegate.errors import ArgumentError
from tidegate.reference import bound


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor has values to check; while a program is compiled it has none, and its operators check."""
    return not tensor.is_meta and not torch.compiler.is_compiling()


def check_multiplied_only(graph: Graph) -> None:
    """Raise ArgumentError where the cell's first input cannot be an index of a one-hot."""
    first = graph.inputs[0]
    value = graph.input_values[first.name]
    users = [v.op for v in graph.values if any(a is value for a in v.args)]
    if any(r is value for r in graph.roots) or any(op not in ("linear", "product") for op in users):
        raise ArgumentError(
            f"cell {graph.name!r} does more with {first.name!r} than multiply it, so it cannot be an index of a "
            "one-hot: give it as numbers, as in torch.nn.functional.one_hot(x, size).float()"
        )


def check_indices(graph: Graph, indices: Any, sizes: Mapping[str, int]) -> None:
    """Raise ArgumentError unless these, of torch or numpy, can be the first input as indices of one-hots."""
    check_multiplied_only(graph)
    if 0 in indices.shape:
        return
    (size,), low, high = bound(graph.inputs[0].size, sizes), int(indices.min()), int(indices.max())
    if low < 0 or high >= size:
        raise ArgumentError(
            f"indices of a one-hot of size {size} must be between 0 and {size - 1}, got {low} to {high}"
        )
