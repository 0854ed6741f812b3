"""Convert torch's recurrent modules and the drop-ins to `Recurrent` layers."""

import copy
from typing import Any

import torch
from torch import nn

from tidegate.nn.layer import Recurrent
from tidegate.nn.torch_modules.modules import REPLACES, _DropIn, swap
from tidegate.nn.weights import CellWeights

KNOWN = (*REPLACES, *REPLACES.values())


def as_recurrent(module: nn.RNNBase) -> Recurrent:
    """Convert a `torch.nn.LSTM`, `GRU` or `RNN`, or its drop-in, to a `Recurrent` that computes the same.

    Its weights are copies under the names of the cell's equations; each bias is the sum of torch's two.
    """
    copied = copy.deepcopy(module)
    swap(copied)
    assert isinstance(copied, _DropIn)
    graph, like = copied._graph(), copied._like
    options: dict[str, Any] = {"P": copied.proj_size} if copied.proj_size else {}
    options |= {name: getattr(copied, name) for name in ("num_layers", "bidirectional", "dropout", "batch_first")}
    options |= {"device": like.device, "dtype": like.dtype}
    layer = Recurrent(graph.name, copied.input_size, copied.hidden_size, **options)
    with torch.no_grad():
        for k, directions in enumerate(copied._directions(graph)):
            for suffix, direction in zip(("", "_reverse"), directions, strict=False):
                weights = layer.get_submodule(f"l{k}{suffix}")
                assert isinstance(weights, CellWeights)
                for name, tensor in weights.tensors().items():
                    tensor.copy_(direction.weights[name])
    return layer
