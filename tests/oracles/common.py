"""What every oracle shares: the types, an affine map by weight names, and a loop over time."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Oracle = Callable[..., tuple[Tensor, Tensors]]


def affine(w: Mapping[str, Tensor], name: str, **vectors: Tensor) -> Tensor:
    """Sum of `name.label` times the vector of that label, and of `name.bias` where there is one."""
    parts = [torch.einsum("oi,bi->bo", w[f"{name}.{label}"], v) for label, v in vectors.items()]
    total = torch.stack(parts).sum(0)
    bias = w.get(f"{name}.bias")
    return total if bias is None else total + bias[None, :]


def logistic(v: Tensor) -> Tensor:
    """1 / (1 + e^-v)."""
    return 1.0 / (1.0 + torch.exp(-v))


def unroll(oracle: Oracle, w: Tensors, inputs: Tensors, states: Tensors, **options: object) -> tuple[Tensor, Tensors]:
    """Run one-step `oracle` over `[T, B, size]` inputs: the outputs `[T, B, size]` and the last states."""
    steps = next(iter(inputs.values())).shape[0]
    outputs = []
    for t in range(steps):
        y, states = oracle(w, {name: v[t] for name, v in inputs.items()}, states, **options)
        outputs.append(y)
    return torch.stack(outputs), states
