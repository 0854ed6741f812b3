"""Where a quick call finds the weights of a layer, as they are at each call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tidegate.nn.quick import usable
from tidegate.nn.weights import CellWeights


class OwnWeights:
    """The weights of one layer of a `Recurrent`, if they are of this type and nothing computes one of them."""

    def __init__(self, owner: nn.Module, name: str, names: Sequence[str], dtype: torch.dtype) -> None:
        weights = owner._modules[name]
        assert isinstance(weights, CellWeights)
        self._owner, self._name, self._weights = owner, name, weights
        self._modules, self._children = [weights, *weights.children()], list(weights._modules.values())
        self._places = [weights.place(n) for n in names]
        self._dtype = dtype

    def still(self) -> bool:
        """Whether these are the layer's modules."""
        mine = self._owner._modules[self._name] is self._weights
        return mine and list(self._weights._modules.values()) == self._children

    def tensors(self) -> list[Tensor] | None:
        """The weights; None where one of them is computed, or cannot be given to a kernel as it is."""
        found: list[Tensor] = []
        dtype = self._dtype
        for parameters, name in self._places:
            tensor = parameters.get(name)
            if tensor is None or not usable(tensor, dtype):
                return None
            found.append(tensor)
        for module in self._modules:
            if module._forward_pre_hooks:
                return None
        return found

    def addresses(self) -> list[int] | None:
        """Where they stand."""
        found = self.tensors()
        return None if found is None else [t.data_ptr() for t in found]
