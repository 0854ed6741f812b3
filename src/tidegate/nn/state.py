"""`State`: the state of a recurrent layer, an immutable pytree that can be serialised."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tidegate.errors import ArgumentError
from tidegate.files.model_folder import UNSEALED, seal, unseal

Named = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class State:
    """The state of a recurrent layer: tensors `[B, size]` by name, for each layer and direction.

    `state["h"]` is `[L * D, B, H]`, layers first, as torch stacks them; it raises if the layers' sizes differ, and
    `.layers[layer][direction]["h"]` has each. `h, c = state` unpacks these tensors in the order of `names`. States are
    immutable; every call returns a new one.
    """

    layers: Sequence[Sequence[Named]]

    def __post_init__(self) -> None:
        frozen = tuple(tuple(MappingProxyType(dict(d)) for d in directions) for directions in self.layers)
        object.__setattr__(self, "layers", frozen)

    def __reduce__(self) -> tuple[Any, ...]:
        return State, ([[dict(d) for d in directions] for directions in self.layers],)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the states, in the cell's order."""
        return tuple(dict.fromkeys(name for d in self._flat() for name in d))

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        return int(next(t for d in self._flat() for t in d.values()).shape[0])

    def _flat(self) -> Iterator[Named]:
        for directions in self.layers:
            yield from directions

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(f"there is no state {name!r}; there are {', '.join(self.names)}")
        tensors = [d[name] for d in self._flat() if name in d]
        if any(t.shape != tensors[0].shape for t in tensors):
            sizes = ", ".join(str(t.shape[-1]) for t in tensors)
            raise ArgumentError(
                f"state {name!r} has different sizes in the layers ({sizes}), so it is not one tensor: "
                f"read state.layers[layer][direction][{name!r}]"
            )
        return torch.stack(tensors)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[name] for name in self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    if not TYPE_CHECKING:  # keeps type checkers reporting unknown attributes

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"a State has no attribute {name!r}: read its tensors as state['h']")

    def __repr__(self) -> str:
        return f"State({len(self.layers)} layers x {len(self.layers[0])} directions: {_shown(self.layers[0][:1])})"

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """Apply a function to every tensor."""
        return State([[{k: function(t) for k, t in d.items()} for d in ds] for ds in self.layers])

    def detach(self) -> State:
        """The state without its autograd history, as truncation uses it."""
        return self.map(Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> State:
        """Convert the device or dtype, with the arguments of `Tensor.to`."""
        return self.map(lambda t: t.to(*args, **kwargs))

    def rows(self, index: Any) -> State:
        """Select batch rows by an index, slice, list or tensor of row numbers."""
        chosen = [index] if isinstance(index, int) else index
        return self.map(lambda t: t[chosen])

    @staticmethod
    def cat(states: Sequence[State]) -> State:
        """Concatenate states along the batch."""
        if not states:
            raise ArgumentError("State.cat takes at least one state, got none")
        kinds = [[[tuple(d) for d in directions] for directions in s.layers] for s in states]
        if any(kind != kinds[0] for kind in kinds):
            raise ArgumentError(
                f"State.cat takes states of one layer, got states that differ in layers, directions or names: "
                f"{', '.join(map(repr, states))}"
            )
        columns = zip(*(s.layers for s in states), strict=True)
        return State([[_cat(d) for d in zip(*layers, strict=True)] for layers in columns])

    def to_bytes(self) -> bytes:
        """Serialise the state as safetensors."""
        tensors = {
            f"{layer}.{direction}.{name}": t.detach().cpu().contiguous().clone()
            for layer, directions in enumerate(self.layers)
            for direction, named in enumerate(directions)
            for name, t in named.items()
        }
        return seal(safetensors.torch.save(tensors, {"order": " ".join([UNSEALED, *tensors])}))

    @staticmethod
    def from_bytes(data: bytes) -> State:
        """Read a state that `to_bytes` wrote. Raises ArgumentError for other bytes."""
        try:
            tensors = safetensors.torch.load(data)
            state = State(_by_layer({key: tensors.pop(key) for key in _order(data)}))
            if tensors:
                raise ValueError(f"{next(iter(tensors))!r} has no place in its order")
        except (safetensors.SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(
                f"data must be bytes written by State.to_bytes, got {len(data)} bytes: {error}"
            ) from error
        return state


def check_is_state(state: object) -> None:
    """Raise ArgumentError unless `state` is a State."""
    if not isinstance(state, State):
        raise ArgumentError(
            f"state must be a tidegate.State as returned by a layer, got {type(state).__name__}. Make one of "
            "tensors [B, size] as State([[{'h': h, 'c': c}]]), with a mapping for each layer and direction"
        )


def check_state(state: State, own: State, hint: Callable[[int], str] | None = None) -> None:
    """Raise ArgumentError unless the state has the layers, names, shapes and dtypes of the other.

    `hint` takes the state's rows and returns what else may be wrong.
    """

    def shapes(s: State) -> list[Any]:
        return [[{n: list(t.shape) for n, t in d.items()} for d in directions] for directions in s.layers]

    if shapes(state) != shapes(own):
        more = "" if hint is None else hint(state.batch_size)
        raise ArgumentError(f"the state does not fit this layer and batch: {_misfit(state, own)}{more}")
    for k, (directions, wanted) in enumerate(zip(state.layers, own.layers, strict=True)):
        for named, like in zip(directions, wanted, strict=True):
            for name, tensor in named.items():
                check_state_type(f"state {name!r} of layer {k}", tensor, like[name])


def check_state_type(name: str, tensor: Tensor, like: Tensor) -> None:
    """Raise ArgumentError unless a state has the dtype of the weights."""
    if tensor.dtype != like.dtype:
        raise ArgumentError(
            f"{name} must be {like.dtype} as the weights are, got {tensor.dtype}: convert it with .to({like.dtype})"
        )


def _misfit(state: State, own: State) -> str:
    found, expected = list(map(_shown, state.layers)), list(map(_shown, own.layers))
    if len(found) != len(expected):
        return f"its number of layers is {len(found)}, expected {len(expected)}"
    k = next(k for k in range(len(found)) if found[k] != expected[k])
    return f"layer {k} has {found[k]}, expected {expected[k]}"


def _shown(directions: Sequence[Named]) -> str:
    return " and backwards ".join(", ".join(f"{n} {list(t.shape)}" for n, t in d.items()) for d in directions)


KEY = re.compile(r"(\d{1,4})\.([01])\.([A-Za-z_][A-Za-z0-9_]{0,63})")


def _by_layer(tensors: Named) -> list[list[dict[str, Tensor]]]:
    """Arrange tensors by `layer.direction.name`. Raises ValueError if there are gaps or wrong shapes."""
    layers: list[list[dict[str, Tensor]]] = []
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None or tensor.dim() != 2 or tensor.shape[0] != next(iter(tensors.values())).shape[0]:
            raise ValueError(f"{key!r} of {list(tensor.shape)} is no part of a state")
        layer, direction, name = int(match[1]), int(match[2]), match[3]
        if layer == len(layers):
            layers.append([])
        if layer == len(layers) - 1 and direction == len(layers[layer]):
            layers[layer].append({})
        if layer != len(layers) - 1 or direction != len(layers[layer]) - 1:
            raise ValueError(f"{key!r} is out of its order")
        layers[layer][direction][name] = tensor
    if not layers:
        raise ValueError("there is no tensor in them")
    return layers


def _order(data: bytes) -> list[str]:
    """The names of the tensors, after the hash, which version 0.1.0 did not write."""
    length = int.from_bytes(data[:8], "little")
    order: list[str] = json.loads(data[8 : 8 + length])["__metadata__"]["order"].split()
    if order and "." not in order[0]:
        unseal(data, {"sha256": order.pop(0)})
    return order


def _cat(named: Sequence[Named]) -> Named:
    return {name: torch.cat([n[name] for n in named]) for name in named[0]}


def _flatten(state: State) -> tuple[list[Tensor], Any]:
    keys = tuple(tuple(tuple(d) for d in directions) for directions in state.layers)
    return [t for d in state._flat() for t in d.values()], keys


def _flatten_with_keys(state: State) -> tuple[list[tuple[Any, Tensor]], Any]:
    tensors, keys = _flatten(state)
    paths = [
        f"{k}.{d}.{name}" for k, directions in enumerate(keys) for d, names in enumerate(directions) for name in names
    ]
    return [(pytree.MappingKey(path), tensor) for path, tensor in zip(paths, tensors, strict=True)], keys


def _unflatten(tensors: Any, keys: Any) -> State:
    items = iter(tensors)
    return State([[{name: next(items) for name in names} for names in directions] for directions in keys])


pytree.register_pytree_node(
    State,
    _flatten,
    _unflatten,
    serialized_type_name="tidegate.State",
    to_dumpable_context=lambda keys: keys,
    from_dumpable_context=lambda data: tuple(tuple(tuple(names) for names in directions) for directions in data),
    flatten_with_keys_fn=_flatten_with_keys,
)
