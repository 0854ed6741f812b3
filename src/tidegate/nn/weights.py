"""A cell's weights as parameters: `i.x` is parameter `x` of submodule `i`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.equations.graph import Graph
from tidegate.errors import ArgumentError, ModelFileError
from tidegate.nn.init import Init, initial
from tidegate.reference import bound, weight_shape
from tidegate.runtime.kernel_call import KernelCall
from tidegate.runtime.support import readable


class CellWeights(nn.Module):
    """The weights of one cell, in one layer and direction, under the names in its equations."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], init: tuple[Init, ...] = (), **factory: Any) -> None:
        super().__init__()
        self._graph, self._sizes, self._init = graph, dict(sizes), init
        kept = {name: w for name, w in graph.weights.items() if name not in graph.masks}  # masks are drawn at each call
        self._places = [(name, *name.rpartition(".")[::2]) for name in kept]
        self._shapes = {name: torch.Size(weight_shape(value, sizes)) for name, value in kept.items()}
        for name, value in kept.items():
            tensor = torch.empty(self._shapes[name], **factory)
            holder, leaf = self._holder(name)
            _refuse_taken(graph, holder, name, leaf)
            if value.attrs["learn"]:
                holder.register_parameter(leaf, nn.Parameter(tensor))
            else:
                holder.register_buffer(leaf, tensor)
        self.reset_parameters()

    def _holder(self, name: str) -> tuple[nn.Module, str]:
        group, dot, leaf = name.rpartition(".")
        if not dot:
            return self, leaf
        if group not in self._modules:
            _refuse_taken(self._graph, self, name, group)
            self.add_module(group, nn.Module())
        return self.get_submodule(group), leaf

    def reset_parameters(self) -> None:
        """Redraw every weight, by `init` or as the cell declares it."""
        tensors = self.tensors()
        if any(t.is_meta for t in tensors.values()):
            return
        drawn = initial(self._graph, self._sizes, self._init, next(iter(tensors.values())).dtype)
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(drawn[name])

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name, after parametrisations, pruning and weight_norm."""
        holders = self._modules
        for module in (self, *holders.values()):
            if module._forward_pre_hooks:  # type: ignore[union-attr]
                _compute_weights(module)  # type: ignore[arg-type]
        found = {name: _weight(holders[group] if group else self, leaf) for name, group, leaf in self._places}
        for name, tensor in found.items():
            if tensor.shape != self._shapes[name]:
                raise ArgumentError(
                    f"weight {name!r} of cell {self._graph.name!r} must be {list(self._shapes[name])}, got "
                    f"{list(tensor.shape)}: restore its shape, or make a layer of other sizes"
                )
        return found

    def place(self, name: str) -> tuple[dict[str, Any], str, torch.Size]:
        """Where a weight is stored: the dictionary of parameters or buffers, its name there, and its shape."""
        group, _, leaf = name.rpartition(".")
        holder: Any = self._modules[group] if group else self
        held = holder._parameters if self._graph.weights[name].attrs["learn"] else holder._buffers
        return held, leaf, self._shapes[name]

    def extra_repr(self) -> str:
        """The cell and its sizes."""
        return f"{self._graph.name}, " + ", ".join(f"{k}={v}" for k, v in self._sizes.items())


def _weight(module: Any, leaf: str) -> Any:
    found = module._parameters.get(leaf)  # much faster than getattr
    return getattr(module, leaf) if found is None else found


def _compute_weights(module: nn.Module) -> None:
    """Run the forward pre-hooks of pruning and weight_norm, since this module has no forward."""
    for hook in module._forward_pre_hooks.values():
        hook(module, ())


def _refuse_taken(graph: Graph, holder: nn.Module, name: str, attribute: str) -> None:
    if hasattr(holder, attribute):
        raise ArgumentError(
            f"weight {name!r} of cell {graph.name!r} needs another name: modules have an attribute {attribute!r} of "
            "their own"
        )


class Starts(nn.Module):
    """The learned initial states of one layer and direction, as parameters, without bookkeeping states."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], **factory: Any) -> None:
        super().__init__()
        self._declared = {s.name: s.start for s in graph.states if not s.bookkeeping}
        for s in graph.states:
            if s.name in self._declared:
                self.register_parameter(s.name, nn.Parameter(torch.empty(bound(s.size, sizes), **factory)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset to the initial states that the cell declares."""
        with torch.no_grad():
            for name, start in self._declared.items():
                nn.init.constant_(getattr(self, name), start)


class CellWeightSource:
    """The weights of one layer of a `Recurrent`, read directly by cached calls."""

    def __init__(self, owner: nn.Module, name: str, names: Sequence[str], dtype: torch.dtype) -> None:
        weights = owner._modules[name]
        assert isinstance(weights, CellWeights)
        self._owner, self._name, self._weights = owner, name, weights
        self._modules, self._children = [weights, *weights.children()], list(weights._modules.values())
        self._places = [weights.place(n) for n in names]
        self._dtype = dtype

    def unchanged(self) -> bool:
        """Whether the layer still has these modules."""
        mine = self._owner._modules[self._name] is self._weights
        return mine and list(self._weights._modules.values()) == self._children

    def tensors(self) -> list[Tensor] | None:
        """The weights; None if one is computed by a parametrisation, or a kernel cannot read it in place."""
        found: list[Tensor] = []
        dtype = self._dtype
        for parameters, name, shape in self._places:
            tensor = parameters.get(name)
            if tensor is None or not readable(tensor, shape, dtype):
                return None
            found.append(tensor)
        for module in self._modules:
            if module._forward_pre_hooks:
                return None
        return found

    def call(self, call: KernelCall) -> KernelCall:
        """The call itself, which takes these weights."""
        return call


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace the tensors of a module that was made on the meta device, which allocates nothing."""
    check_tensors(tensors, module.state_dict())
    module.load_state_dict(tensors, assign=True)


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise ModelFileError unless names, types and shapes are the same."""
    forms = {name: f"{t.dtype} {tuple(t.shape)}" for name, t in wanted.items()}
    got = {name: f"{t.dtype} {tuple(t.shape)}" for name, t in found.items()}
    for name in sorted(forms.keys() | got.keys()):
        if name not in forms:
            raise ModelFileError(f"tensor {name!r} belongs to no part of the model")
        if forms[name] != got.get(name):
            raise ModelFileError(f"tensor {name!r} must be {forms[name]}, got {got.get(name, 'none')}")
