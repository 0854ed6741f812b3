"""`Stack`: stacked layers of different cells and sizes, with residual or highway connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Union

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from tidegate.equations import Rate, cell, linear, sigmoid
from tidegate.errors import ArgumentError
from tidegate.nn.arguments import check_dropout, check_flag
from tidegate.nn.layer import Recurrent
from tidegate.nn.stack_stepper import StackStepper, refuse_indices
from tidegate.nn.state import State, check_is_state
from tidegate.nn.torch_modules.torchscript import NoTorchScript
from tidegate.nn.trace import Trace
from tidegate.reference import bound
from tidegate.reference.unroll import valid_steps
from tidegate.runtime.call_cache import CallCache

Layer = Union[Recurrent, "Stack"]
Run = Callable[[Any, Any, State | None], tuple[Any, Sequence[Any]]]  # layer, input, state -> output, other results


@cell(
    states="| n:1",
    inputs="x:H y:H",
    output="out",
    source="Srivastava, Greff & Schmidhuber 2015, arXiv:1505.00387, equation 3",
)
def highway(x: Any, y: Any, n: Any) -> Any:
    """The highway connection around a layer that maps `x` to `y`."""
    t = sigmoid(linear("t", x, bias=-2.0))  # transform gate, nearly closed at the start
    out = t * y + (1 - t) * x
    return out, n  # a cell must have a state: n stays 0


class Stack(NoTorchScript):
    """Stacked recurrent layers, each with its own cell and sizes; a layer reads the output of the one below.

    `layers` are `Recurrent` modules or stacks, from first to last. Calls are those of `Recurrent`, and the State holds
    all layers in order. An input by name goes to each layer whose cell declares it.

    `residual` adds each layer's input to its output (He et al. 2015, arXiv:1512.03385). `highway` lets a
    learned gate mix the two, `t * output + (1 - t) * input` with `t = sigmoid(W input + b)` and `b` -2 at
    the start (Srivastava, Greff & Schmidhuber 2015, arXiv:1505.00387). Either applies to every layer, including the
    first, so each must have equal input and output sizes: put those that do into a stack of their own, as in
    `Stack(first, Stack(..., residual=True))`. `dropout` acts between layers, in training: on a layer's input, not on
    the connection around it.

    Parameters are those of the layers, `layers.0.l0.i.x`, and of the gates, `gates.0.l0.t.x`.

    Raises ArgumentError if sizes of layers do not match, and for options without effect.
    """

    def __init__(self, *layers: Layer, residual: bool = False, highway: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        _check_layers(layers)
        residual, highway = check_flag("residual", residual), check_flag("highway", highway)
        _check_around(layers, residual, highway)
        self.layers = nn.ModuleList(layers)
        self.residual, self.highway, self.dropout = residual, highway, check_dropout(dropout, len(layers))
        self.calls = CallCache()
        self.input_size: int = layers[0].input_size
        self.output_size: int = layers[-1].output_size
        self.batch_first: bool = layers[0].batch_first
        self.num_layers: int = sum(layer.num_layers for layer in layers)
        self.bidirectional: bool = any(layer.bidirectional for layer in layers)
        self._inputs = _joined_inputs(layers)
        self._reads = [tuple(inputs_of(layer)) for layer in layers]
        self.gates = nn.ModuleList(_gate(layer) for layer in layers if highway)

    def reset_parameters(self) -> None:
        """Redraw every weight as the cells declare it; learned initial states become the declared ones."""
        for layer in (*self._each(), *self.gates):
            layer.reset_parameters()

    def forward(
        self, x: Any, state: State | None = None, *, lengths: Any = None, reset: Any = None
    ) -> tuple[Any, State]:
        """Run over a batch of sequences, with the arguments of `Recurrent.forward`.

        Returns the top layer's output, in the form of `x` with size `output_size`, and the State of all layers at each
        row's end.
        """

        return self._run(lambda layer, *given: layer(*given, lengths=lengths, reset=reset), x, state, lengths)

    def step(self, x_t: Any, state: State | None = None) -> tuple[Tensor, State]:
        """One step: `x_t` is `[B, I]` (or `[B]` integers, or a mapping by input name). Returns `[B, size]`, State.

        Raises ArgumentError for a bidirectional layer, whose backward direction needs the later steps.
        """
        self._refuse_both_directions("step")
        return self._run(lambda layer, *given: layer.step(*given), x_t, state)

    def _run(
        self, call: Callable[..., tuple[Any, State]], x: Any, state: State | None, lengths: Any = None
    ) -> tuple[Any, State]:
        """The output, and the State of all layers, by a call of each."""

        def run(layer: Any, given: Any, begin: State | None) -> tuple[Any, Sequence[Any]]:
            y, end = call(layer, given, begin)
            return y, end.layers

        y, ends = self.through(x, state, run, self.dropout if self.training else 0.0, lengths)
        return y, State(ends)

    def stepper(self, batch: int = 1, state: State | None = None) -> StackStepper:
        """A fast stepper for streaming, with a snapshot of the current weights; see `Stepper`."""
        self._refuse_both_directions("stepper")
        begins = zip(self._each(), self._split(state), strict=True)
        steppers = [layer.stepper(batch, begin) for layer, begin in begins]
        gates = [gate.stepper(batch) for gate in self.gates]  # type: ignore[operator]
        return StackStepper(steppers, gates, self._reads, tuple(self._inputs), self.residual)

    def trace(self, x: Any, state: State | None = None) -> Trace:
        """Every named value of the layers' equations at each step, `[T, B, size]`, without autograd and without
        gates."""
        self._refuse_both_directions("trace")
        with torch.no_grad():
            return Trace(self._traced(x, state)[1])

    def _traced(self, x: Any, state: State | None) -> tuple[Any, list[dict[str, Tensor]]]:
        return self.through(x, state, lambda layer, given, begin: layer._traced(given, begin))

    def initial_state(self, batch: int = 1) -> State:
        """The layers' initial states for `batch` rows."""
        return State([own for layer in self._each() for own in layer.initial_state(batch).layers])

    def through(
        self, x: Any, state: State | None, run: Run, dropout: float = 0.0, lengths: Any = None
    ) -> tuple[Any, list[Any]]:
        """Run all layers from first to last: the output, and their other results in order."""
        named = self._named(x)
        found: list[Any] = []
        x = named[self._reads[0][0]]
        for k, (layer, begin) in enumerate(zip(self.layers, self._split(state), strict=True)):
            read = _dropped(x, dropout) if k and dropout else x
            y, more = run(layer, _given(self._reads[k], read, named), begin)
            x = self._around(k, x, y, run, lengths)
            found += more
        return x, found

    def _around(self, k: int, x: Any, y: Any, run: Run, lengths: Any) -> Any:
        if self.highway:
            padded = pad_packed_sequence(y)[0] if isinstance(y, PackedSequence) else y
            return run(self.gates[k], {"x": x, "y": padded}, None)[0]
        return self._sum(x, y, lengths) if self.residual else y

    def _sum(self, x: Any, y: Any, lengths: Any) -> Any:
        if isinstance(y, PackedSequence):
            return PackedSequence(self._sum(x.data, y.data, None), *y[1:])
        if not x.is_floating_point():
            refuse_indices()
        return y + (x if lengths is None else torch.where(self._valid(x, lengths), x, 0.0))

    def _valid(self, x: Tensor, lengths: Any) -> Tensor:
        """The steps of `x` that are not padding, in its form."""
        ends = torch.as_tensor(lengths, device=x.device).reshape(-1)
        if x.dim() == 2:
            return valid_steps(x.shape[0], ends)
        valid = valid_steps(x.shape[self.batch_first], ends)
        return (valid.t() if self.batch_first else valid).unsqueeze(-1)

    def _each(self) -> list[Layer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _named(self, x: Any) -> dict[str, Any]:
        named = dict(x) if isinstance(x, Mapping) else {self._reads[0][0]: x}
        if set(named) != set(self._inputs):
            raise ArgumentError(
                f"this stack takes the inputs {', '.join(self._inputs)}, got "
                f"{', '.join(map(str, named)) or 'none'}: give them as "
                f"{{{', '.join(f'{n!r}: tensor' for n in self._inputs)}}}"
            )
        return named

    def _split(self, state: State | None) -> list[State | None]:
        """Each layer's part of a state."""
        if state is None:
            return [None] * len(self.layers)
        check_is_state(state)
        if self.bidirectional:
            raise ArgumentError(
                f"{self._bidirectional_layer()}, so this stack cannot continue from a state: a backward direction "
                "starts at the end of the sequence. Pass the whole sequence, or use layers of one direction"
            )
        if len(state.layers) != self.num_layers:
            raise ArgumentError(
                f"the state has {len(state.layers)} layers, but this stack has {self.num_layers}: pass a state that "
                "this stack returned, or initial_state(batch)"
            )
        ends = list(accumulate(layer.num_layers for layer in self._each()))
        return [State(state.layers[begin:end]) for begin, end in pairwise([0, *ends])]

    def _refuse_both_directions(self, what: str) -> None:
        if self.bidirectional:
            raise ArgumentError(
                f"{self._bidirectional_layer()}, so this stack has no {what}: a backward direction needs the end of "
                "the sequence first. Use layers of one direction"
            )

    def _bidirectional_layer(self) -> str:
        return f"layers[{[layer.bidirectional for layer in self._each()].index(True)}] is bidirectional"

    def extra_repr(self) -> str:
        """The options that differ from the defaults."""
        options = {"residual": False, "highway": False, "dropout": 0.0}
        return ", ".join(f"{k}={getattr(self, k)!r}" for k, usual in options.items() if getattr(self, k) != usual)


def inputs_of(layer: Layer) -> dict[str, tuple[Rate, int]]:
    """The inputs by name, first the one that may come from the layer below: the rate and size of each."""
    if isinstance(layer, Stack):
        return layer._inputs
    return {i.name: (i.rate, bound(i.size, layer.sizes)[0]) for i in layer.graph.inputs}


def _joined_inputs(layers: Sequence[Layer]) -> dict[str, tuple[Rate, int]]:
    found = dict(inputs_of(layers[0]))
    for k, layer in enumerate(layers[1:], 1):
        for name, kind in list(inputs_of(layer).items())[1:]:
            if found.setdefault(name, kind) != kind:
                raise ArgumentError(
                    f"input {name!r} is {_form(*kind)} in layers[{k}], but {_form(*found[name])} below: one tensor "
                    "goes to all layers that declare the name, so rename one of the inputs"
                )
    return found


def _form(rate: Rate, size: int) -> str:
    return f"[B, {size}]" if rate == Rate.SEQUENCE else f"[T, B, {size}]"


def _given(names: Sequence[str], x: Any, named: Mapping[str, Any]) -> Any:
    """The inputs of a layer: `x`, and those of its other names."""
    return {names[0]: x, **{n: named[n] for n in names[1:]}} if len(names) > 1 else x


def _dropped(x: Any, probability: float) -> Any:
    if isinstance(x, PackedSequence):
        return PackedSequence(nn.functional.dropout(x.data, probability), *x[1:])
    return nn.functional.dropout(x, probability)


def _gate(layer: Layer) -> Recurrent:
    like = next(iter(layer.state_dict().values()))
    size, form = layer.output_size, {"device": like.device, "dtype": like.dtype}
    return Recurrent(highway, size, size, batch_first=layer.batch_first, **form)


def _check_layers(layers: Sequence[Any]) -> None:
    if not layers:
        raise ArgumentError(
            "a stack takes at least one layer, got none: give layers from first to last, as in "
            "Stack(Recurrent('lstm', 8, 64), Recurrent('gru', 64, 32))"
        )
    seen: dict[int, int] = {}
    for k, layer in enumerate(layers):
        if not isinstance(layer, Recurrent | Stack):
            raise ArgumentError(
                f"layers[{k}] must be a Recurrent or a Stack, got {type(layer).__name__}: pass layers one by one, "
                "as in Stack(*layers), and call other modules separately"
            )
        for part in layer.modules():
            if seen.setdefault(id(part), k) != k:
                raise ArgumentError(
                    f"layers[{k}] has weights of layers[{seen[id(part)]}]: use a separate layer for each place, "
                    "such as copy.deepcopy(layer)"
                )
    for k in range(1, len(layers)):
        _check_fit(k, layers[k - 1], layers[k])


def _check_fit(k: int, below: Layer, layer: Layer) -> None:
    if layer.input_size != below.output_size:
        raise ArgumentError(
            f"layers[{k}] must have input_size={below.output_size}, the output size of layers[{k - 1}], got "
            f"{layer.input_size}"
        )
    if layer.batch_first != below.batch_first:
        raise ArgumentError(
            f"layers[{k}] has batch_first={layer.batch_first}, but layers[{k - 1}] has "
            f"batch_first={below.batch_first}: use the same value for all layers of a stack"
        )
    types = [next(iter(part.state_dict().values())).dtype for part in (layer, below)]
    if types[0] != types[1]:
        raise ArgumentError(
            f"layers[{k}] has weights of {types[0]}, but layers[{k - 1}] of {types[1]}: convert one with .to(dtype)"
        )


def _check_around(layers: Sequence[Layer], residual: bool, highway: bool) -> None:
    if residual and highway:
        raise ArgumentError("residual=True and highway=True exclude each other: choose one")
    for k, layer in enumerate(layers):
        if (residual or highway) and layer.input_size != layer.output_size:
            option = "residual" if residual else "highway"
            raise ArgumentError(
                f"{option}=True needs layers with equal input and output sizes, but layers[{k}] maps "
                f"{layer.input_size} to {layer.output_size}: put the layers with equal sizes into a stack of their "
                f"own, as in Stack(first, Stack(..., {option}=True))"
            )
