"""Drop-ins for torch's recurrent modules: the same arguments, results, state_dict and initial values."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tidegate.cells import get
from tidegate.equations.graph import Graph
from tidegate.equations.values import whole
from tidegate.errors import ArgumentError, type_of
from tidegate.nn.arguments import Batch, check_types
from tidegate.nn.stacked import Direction, Stacked
from tidegate.nn.state import check_state_type
from tidegate.nn.torch_modules.dynamo import allow_tracing
from tidegate.nn.torch_modules.layouts import TENSORS, TORCH, TorchLayout, cell_weights
from tidegate.nn.torch_modules.torchscript import NoTorchScript
from tidegate.nn.torch_modules.weights import TorchWeights
from tidegate.runtime.call_cache import CallCache, LayerCall
from tidegate.runtime.support import eager, warn_once
from tidegate.runtime.unroll import Unroll

MOST_UNROLLS = 256
_unrolls: dict[tuple[str, int, int, int], Unroll] = {}  # not lru_cache, which torch.compile traces into


class _DropIn(NoTorchScript, nn.RNNBase):
    """Base of the drop-ins: a torch module whose CPU path runs the cell's equations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        named = {name: _plain(value) for name, value in kwargs.items()}
        super().__init__(*map(_plain, args), **named)
        self._prepare()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()

    def _prepare(self) -> None:
        """Create what torch.compile reads but cannot create itself."""
        allow_tracing()
        self.calls = CallCache()
        for k in range(self.num_layers):
            self._unroll(k)

    def _unroll(self, layer: int) -> Unroll:
        width = (self.proj_size or self.hidden_size) * (1 + self.bidirectional) if layer else self.input_size
        return _unroll(self._layout().cell, width, self.hidden_size, self.proj_size)

    def _layout(self) -> TorchLayout:
        return TORCH["LSTM with projection" if self.proj_size else self.mode]

    def _graph(self) -> Graph:
        return get(self._layout().cell).graph

    def _run(self, x: Any, hx: Any, lengths: Any, reset: Any) -> tuple[Any, Any]:
        graph = self._graph()
        batch = Batch(graph, x, lengths, reset, self.batch_first, {"I": self.input_size, "H": self.hidden_size})
        check_types(batch, self._like)
        states, count = self._states(graph, hx, batch), 1 + self.bidirectional
        layers = [range(k * count, (k + 1) * count) for k in range(self.num_layers)]
        begin = [[{n: s[place] for n, s in states.items()} for place in places] for places in layers]
        dropout = self.dropout if self.training else 0.0
        y, ends = Stacked(graph, self._directions(graph), dropout=dropout)(batch, begin)
        final = {n: torch.stack([end[n] for layer in ends for end in layer]) for n in states}
        if batch.unbatched:
            final = {n: s.squeeze(1) for n, s in final.items()}
        return batch.restore(y), final["h"] if len(final) == 1 else (final["h"], final["c"])

    def _directions(self, graph: Graph) -> list[list[Direction]]:
        suffixes = ("", "_reverse")[: 1 + self.bidirectional]
        return [[self._direction(graph, k, f"_l{k}{suffix}") for suffix in suffixes] for k in range(self.num_layers)]

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """The shapes of a layer's tensors."""
        state = self.proj_size or self.hidden_size
        width = state * (1 + self.bidirectional) if layer else self.input_size
        rows = self._layout().blocks * self.hidden_size
        found: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, state)}
        return {**found, "bias_ih": (rows,), "bias_hh": (rows,), "weight_hr": (state, self.hidden_size)}

    def _direction(self, graph: Graph, layer: int, suffix: str) -> Direction:
        tensors = {n: getattr(self, n + suffix) for n in TENSORS if hasattr(self, n + suffix)}
        shapes = self._shapes(layer)
        for name, tensor in tensors.items():
            if tuple(tensor.shape) != shapes[name]:
                raise ArgumentError(f"{name + suffix} must be {list(shapes[name])}, got {list(tensor.shape)}")
        sizes = {"h": self.proj_size or self.hidden_size, "c": self.hidden_size}
        start = {s.name: self._like.new_zeros(1, sizes[s.name]) for s in graph.states}
        return Direction(self._unroll(layer), cell_weights(self._layout(), tensors), start)

    def _states(self, graph: Graph, hx: Any, batch: Batch) -> dict[str, Tensor]:
        """The given or zero initial states `[L * D, B, size]` by name."""
        count = self.num_layers * (1 + self.bidirectional)
        sizes = {"h": self.proj_size or self.hidden_size, "c": self.hidden_size}
        given = {} if hx is None else self._given(graph, hx)
        states = {}
        for s in graph.states:
            shape = (count, batch.rows, sizes[s.name])
            if s.name not in given:
                states[s.name] = self._like.new_zeros(shape)
                continue
            tensor = given[s.name].unsqueeze(1) if batch.unbatched else given[s.name]
            if tuple(tensor.shape) != shape:
                wanted = [count, sizes[s.name]] if batch.unbatched else list(shape)
                found, hint = list(given[s.name].shape), batch.hint(tensor.shape[1]) if tensor.dim() == 3 else ""
                raise ArgumentError(f"{s.name}_0 must be {wanted}, got {found}{hint}")
            check_state_type(f"{s.name}_0", tensor, self._like)
            states[s.name] = tensor
        return states

    def _given(self, graph: Graph, hx: Any) -> dict[str, Tensor]:
        names = [s.name for s in graph.states]
        tensors = (hx,) if len(names) == 1 else hx
        if not isinstance(tensors, tuple | list) or [isinstance(t, Tensor) for t in tensors] != [True] * len(names):
            wanted = "the tensor h_0" if len(names) == 1 else "the pair of tensors (h_0, c_0)"
            raise ArgumentError(f"hx must be {wanted} for {type(self).__name__}, got {type_of(hx)}")
        return dict(zip(names, tensors, strict=True))

    @property
    def _like(self) -> Tensor:
        weight = self.weight_ih_l0
        assert isinstance(weight, Tensor)
        return weight

    def _elsewhere(self, x: Any, hx: Any, lengths: Any, reset: Any) -> tuple[Any, Any]:
        """On other devices: torch's own op, with lengths by packing; the equations where it has no support."""
        packed_twice = isinstance(x, PackedSequence) and lengths is not None  # raises there
        if packed_twice or (isinstance(x, Tensor) and x.is_meta and lengths is not None):  # torch cannot pack it
            return self._run(x, hx, lengths, reset)
        ends = None if lengths is None else torch.as_tensor(lengths).cpu()
        beyond = _beyond_torch(x, ends, reset)
        if beyond:
            warn_once(f"{beyond} has no torch op off the CPU: the cell's equations run step by step there")
            return self._run(x, hx, lengths, reset)
        if ends is None:
            y, state = super().forward(x, hx)
            return y, state
        packed = pack_padded_sequence(x, ends, self.batch_first, enforce_sorted=False)
        y, state = super().forward(packed, hx)
        steps = x.shape[1 if self.batch_first else 0]
        return pad_packed_sequence(y, self.batch_first, total_length=steps)[0], state

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None, reset: Any = None) -> tuple[Any, Any]:
        """As torch's module, plus `lengths` `[B]` and `reset` `[T, B]` as in `tidegate.Recurrent`.

        Devices other than the CPU run torch's own op.
        """
        x = input.data if isinstance(input, PackedSequence) else input
        if isinstance(x, Tensor) and x.device.type != "cpu":
            return self._elsewhere(input, hx, lengths, reset)
        if lengths is None and reset is None and type(input) is Tensor and input.dim() == 3 and eager():
            found = self._cached(input, hx)
            if found is not None:
                return found
        return self._run(input, hx, lengths, reset)

    def _cached(self, x: Tensor, hx: Any) -> tuple[Any, Any] | None:
        """Use the cached call of a known signature, if nothing is drawn or read besides x, weights and hx."""
        if self.bidirectional or self.batch_first or (self.dropout and self.training):
            return None
        graph = self._graph()
        call = self.calls.get("forward", x, lambda: self._compiled(x))
        initial = None if call is None else self._initial(graph, hx)
        found = None if call is None or initial is None else call(x, initial)
        if found is None:
            return None
        y, ends = found
        final = [torch.stack([end[s.name] for end in ends]) for s in graph.states]
        return y, final[0] if len(final) == 1 else tuple(final)

    def _compiled(self, x: Tensor) -> LayerCall | None:
        layout, unrolls = self._layout(), [self._unroll(k) for k in range(self.num_layers)]
        sources = [
            TorchWeights(self, f"_l{k}", layout, u.weights, x.dtype, self._shapes(k)) for k, u in enumerate(unrolls)
        ]
        return LayerCall.compile(sources, unrolls, x)

    def _initial(self, graph: Graph, hx: Any) -> list[Any] | None:
        """Each layer's initial states, if they are valid."""
        count = self.num_layers
        if hx is None:
            return [None] * count
        given = (hx,) if len(graph.states) == 1 else hx
        if type(given) is not tuple or len(given) != len(graph.states):
            return None
        if not all(type(t) is Tensor and t.dim() == 3 and t.shape[0] == count for t in given):
            return None
        return [{s.name: t[k] for s, t in zip(graph.states, given, strict=True)} for k in range(count)]


class LSTM(_DropIn, nn.LSTM):
    """A drop-in for `torch.nn.LSTM`: same arguments, results, state_dict and initial values (same seed, same bits).

    `forget_bias` sets the forget gate's initial bias; by default it is drawn around 0, as in torch.
    """

    def __init__(self, *args: Any, forget_bias: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if forget_bias is not None:
            self._set_forget_bias(forget_bias)

    def _set_forget_bias(self, value: float) -> None:
        if not self.bias:
            raise ArgumentError(f"forget_bias={value} has no effect with bias=False: omit one of them")
        gate = slice(self.hidden_size, 2 * self.hidden_size)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith("bias_"):
                    parameter[gate] = value if name.startswith("bias_ih") else 0.0


class GRU(_DropIn, nn.GRU):
    """A drop-in for `torch.nn.GRU`: same arguments, results, state_dict and initial values (same seed, same bits)."""


class RNN(_DropIn, nn.RNN):
    """A drop-in for `torch.nn.RNN`: same arguments, results, state_dict and initial values (same seed, same bits)."""


def _plain(value: Any) -> Any:
    """Convert numpy integers to Python's, which torch requires."""
    number = whole(value)
    return value if number is None else number


REPLACES: dict[type[nn.Module], type[nn.Module]] = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}


def swap(model: nn.Module) -> list[str]:
    """Convert every `torch.nn.LSTM`, `GRU` and `RNN` in a model to its drop-in, in place; returns their names.

    The modules stay the same objects with the same parameters, hooks and state_dict, so optimisers remain valid.
    Subclasses are not converted, since they may rely on torch's own forward. The model itself is named ''.
    """
    found = {name: module for name, module in model.named_modules() if type(module) in REPLACES}
    for module in found.values():
        module.__class__ = REPLACES[type(module)]
        assert isinstance(module, _DropIn)
        module._prepare()
    return list(found)


def unswap(model: nn.Module) -> list[str]:
    """Convert every drop-in in a model back to torch's module, in place; returns their names.

    The inverse of `swap`, with the same promises. Other tools, such as torch.jit and torch.onnx, accept the model then.
    """
    theirs = {ours: replaced for replaced, ours in REPLACES.items()}
    found = {name: module for name, module in model.named_modules() if type(module) in theirs}
    for module in found.values():
        del module.calls
        module.__class__ = theirs[type(module)]
    return list(found)


def _beyond_torch(x: Any, ends: Tensor | None, reset: Any) -> str | None:
    """Whether a call needs more than torch's op can do."""
    if reset is not None:
        return "reset"
    if isinstance(x, Tensor) and not x.is_floating_point():
        return "an index of a one-hot"
    if ends is not None and x.dim() == 2:
        return "the length of a sequence alone"
    return "a length of 0" if ends is not None and bool((ends == 0).any()) else None


def _unroll(cell: str, input_size: int, hidden_size: int, proj_size: int) -> Unroll:
    key = cell, input_size, hidden_size, proj_size
    if key not in _unrolls:
        if len(_unrolls) >= MOST_UNROLLS:
            _unrolls.clear()
        sizes = {"I": input_size, "H": hidden_size} | ({"P": proj_size} if proj_size else {})
        _unrolls[key] = Unroll(get(cell).graph, sizes)
    return _unrolls[key]
