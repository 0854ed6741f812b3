"""Where a quick call finds the weights of a layer, as they are at each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.nn.layouts import TENSORS, Layout, cell_weights
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

    def addresses(self) -> tuple[list[int], Any] | None:
        """Where they stand."""
        found = self.tensors()
        return None if found is None else ([t.data_ptr() for t in found], None)


class TorchWeights:
    """The weights of one layer as a module of torch keeps them: row blocks of few tensors, and sums of two biases."""

    def __init__(self, owner: nn.Module, suffix: str, layout: Layout, names: Sequence[str], dtype: torch.dtype) -> None:
        self._parameters, self._layout, self._names, self._dtype = owner._parameters, layout, names, dtype
        self._keys = {n: n + suffix for n in TENSORS if n + suffix in owner._parameters or hasattr(owner, n + suffix)}
        self._terms = [tuple(t for t in layout.rows[n] if t[0] in self._keys) for n in names]
        self._zeros = torch.zeros(max(p.shape[0] for p in owner.parameters()), dtype=dtype)
        self._biases = "bias_ih" in self._keys

    def still(self) -> bool:
        """They are asked for by name at each call."""
        return True

    def _named(self) -> dict[str, Tensor] | None:
        found: dict[str, Tensor] = {}
        dtype, parameters = self._dtype, self._parameters
        for name, key in self._keys.items():
            tensor = parameters.get(key)
            if tensor is None or not usable(tensor, dtype):
                return None
            found[name] = tensor
        return found

    def tensors(self) -> list[Tensor] | None:
        """The cell's weights as expressions of torch's tensors."""
        named = self._named()
        if named is None:
            return None
        found = cell_weights(self._layout, named)
        return [found[name] for name in self._names]

    def addresses(self) -> tuple[list[int], Any] | None:
        """Where they stand, and what must live as long as they are used."""
        named = self._named()
        if named is None:
            return None
        begins: dict[tuple[str, ...], tuple[int, int]] = {
            (name,): _begin_and_block(t, self._layout, name) for name, t in named.items()
        }
        sums = None
        if self._biases:
            sums = named["bias_ih"] + named["bias_hh"]
            begins["bias_ih", "bias_hh"] = _begin_and_block(sums, self._layout, "bias_ih")
        found = []
        for terms in self._terms:
            if terms:
                begin, block = begins[tuple(name for name, _ in terms)]
                found.append(begin + block * terms[0][1])
            else:
                found.append(self._zeros.data_ptr())
        return found, sums


def _begin_and_block(tensor: Tensor, layout: Layout, name: str) -> tuple[int, int]:
    """An address, and how many bytes further each of the row blocks begins."""
    return tensor.data_ptr(), tensor.nbytes // (1 if name == "weight_hr" else layout.blocks)
