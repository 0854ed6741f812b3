"""`Stack`: layers of different cells and sizes above each other, with connections around them."""

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
Run = Callable[[Any, Any, State | None], tuple[Any, Sequence[Any]]]  # layer, input, state -> output, what else it gives


@cell(
    states="| n:1",
    inputs="x:H y:H",
    output="out",
    source="Srivastava, Greff & Schmidhuber 2015, arXiv:1505.00387, equation 3",
)
def highway(x: Any, y: Any, n: Any) -> Any:
    """What goes around a layer that reads `x` and gives `y`."""
    t = sigmoid(linear("t", x, bias=-2.0))  # transform gate, nearly closed at the start
    out = t * y + (1 - t) * x
    return out, n  # a cell has to carry something, and this one needs nothing: n stays 0


class Stack(NoTorchScript):
    """Recurrent layers above each other, each with a cell and sizes of its own: a layer reads what the one below gives.

    `layers` are `Recurrent` modules, from the first to the last, or stacks of them. Calls are those of `Recurrent`, and
    the State is that of all layers in their order. An input by name goes to each layer whose cell declares it.

    `residual` adds to each layer's output what the layer reads (He et al. 2015, arXiv:1512.03385). `highway` lets a
    learned gate choose between the two, `t * output + (1 - t) * input` with `t = sigmoid(W input + b)` and `b` -2 at
    the start (Srivastava, Greff & Schmidhuber 2015, arXiv:1505.00387). Either goes around every layer, the first too,
    so that each must keep its size: layers that keep it are put into a stack of their own, as in
    `Stack(first, Stack(..., residual=True))`. `dropout` acts between layers, in training: on what a layer reads, and
    not on what goes around it.

    Parameters are those of the layers, `layers.0.l0.i.x`, and of the gates, `gates.0.l0.t.x`.

    Raises ArgumentError where layers do not fit on each other, and for an option that would have no effect.
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
        """Draw every weight anew, as the cells declare it; learned starts go back to the declared ones."""
        for layer in (*self._each(), *self.gates):
            layer.reset_parameters()

    def forward(
        self, x: Any, state: State | None = None, *, lengths: Any = None, reset: Any = None
    ) -> tuple[Any, State]:
        """Run over a batch of sequences, as `Recurrent.forward` does, in the forms that it takes.

        Returns the top layer's output, in the form of `x` with size `output_size`, and the State of all layers at each
        row's end.
        """

        def run(layer: Any, given: Any, begin: State | None) -> tuple[Any, Sequence[Any]]:
            y, end = layer(given, begin, lengths=lengths, reset=reset)
            return y, end.layers

        y, ends = self.through(x, state, run, self._dropout, lengths)
        return y, State(ends)

    def step(self, x_t: Any, state: State | None = None) -> tuple[Tensor, State]:
        """One step: `x_t` is `[B, I]` (or `[B]` integers, or a mapping by input name). Returns `[B, size]`, State.

        A stack with a bidirectional layer refuses: the backward direction needs the steps to come.
        """
        self._refuse_both_directions("step")

        def run(layer: Any, given: Any, begin: State | None) -> tuple[Any, Sequence[Any]]:
            y, end = layer.step(given, begin)
            return y, end.layers

        y, ends = self.through(x_t, state, run, self._dropout)
        return y, State(ends)

    def stepper(self, batch: int = 1, state: State | None = None) -> StackStepper:
        """A fast stepper for streaming, with a snapshot of the weights as they are now; see `Stepper`."""
        self._refuse_both_directions("stepper")
        begins = zip(self._each(), self._split(state), strict=True)
        steppers = [layer.stepper(batch, begin) for layer, begin in begins]
        gates = [gate.stepper(batch) for gate in self.gates]  # type: ignore[operator]
        return StackStepper(steppers, gates, self._reads, tuple(self._inputs), self.residual)

    def trace(self, x: Any, state: State | None = None) -> Trace:
        """Every named value of the equations at each step, `[T, B, size]`, no grad: of the layers, and not of gates."""
        self._refuse_both_directions("trace")
        with torch.no_grad():
            return Trace(self._traced(x, state)[1])

    def _traced(self, x: Any, state: State | None) -> tuple[Any, list[dict[str, Tensor]]]:
        return self.through(x, state, lambda layer, given, begin: layer._traced(given, begin))

    def initial_state(self, batch: int = 1) -> State:
        """The layers' own starts, for `batch` rows."""
        return State([own for layer in self._each() for own in layer.initial_state(batch).layers])

    def through(
        self, x: Any, state: State | None, run: Run, dropout: float = 0.0, lengths: Any = None
    ) -> tuple[Any, list[Any]]:
        """Up through all layers: the output, and what else the layers gave, one after another."""
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
        """Which steps of `x` are no padding, in its form."""
        ends = torch.as_tensor(lengths, device=x.device).reshape(-1)
        if x.dim() == 2:
            return valid_steps(x.shape[0], ends)
        valid = valid_steps(x.shape[self.batch_first], ends)
        return (valid.t() if self.batch_first else valid).unsqueeze(-1)

    @property
    def _dropout(self) -> float:
        return self.dropout if self.training else 0.0

    def _each(self) -> list[Layer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _named(self, x: Any) -> dict[str, Any]:
        named = dict(x) if isinstance(x, Mapping) else {self._reads[0][0]: x}
        if set(named) != set(self._inputs):
            raise ArgumentError(
                f"this stack takes the inputs {', '.join(self._inputs)}, and {', '.join(map(str, named)) or 'none'} "
                f"came: give them as {{{', '.join(f'{n!r}: tensor' for n in self._inputs)}}}"
            )
        return named

    def _split(self, state: State | None) -> list[State | None]:
        """Each layer's part of a state."""
        if state is None:
            return [None] * len(self.layers)
        check_is_state(state)
        if self.bidirectional:
            raise ArgumentError(
                f"{self._bidirectional_layer()}, so this stack carries no state from call to call: a backward "
                "direction starts at the end of a sequence, which has not come yet; give the whole sequence, or use "
                "layers of one direction"
            )
        if len(state.layers) != self.num_layers:
            raise ArgumentError(
                f"the state has {len(state.layers)} layers, and this stack has {self.num_layers}: give one that this "
                "stack returned, or initial_state(batch)"
            )
        ends = list(accumulate(layer.num_layers for layer in self._each()))
        return [State(state.layers[begin:end]) for begin, end in pairwise([0, *ends])]

    def _refuse_both_directions(self, what: str) -> None:
        if self.bidirectional:
            raise ArgumentError(
                f"{self._bidirectional_layer()}, so this stack has no {what}: a backward direction reads from the end "
                "of the sequence, which has not come yet; use layers of one direction"
            )

    def _bidirectional_layer(self) -> str:
        return f"layers[{[layer.bidirectional for layer in self._each()].index(True)}] is bidirectional"

    def extra_repr(self) -> str:
        """What differs from a plain stack."""
        options = {"residual": False, "highway": False, "dropout": 0.0}
        return ", ".join(f"{k}={getattr(self, k)!r}" for k, usual in options.items() if getattr(self, k) != usual)


def inputs_of(layer: Layer) -> dict[str, tuple[Rate, int]]:
    """The inputs by name, the one that may come from a layer below first: how often each comes, and its size."""
    if isinstance(layer, Stack):
        return layer._inputs
    return {i.name: (i.rate, bound(i.size, layer.sizes)[0]) for i in layer.graph.inputs}


def _joined_inputs(layers: Sequence[Layer]) -> dict[str, tuple[Rate, int]]:
    found = dict(inputs_of(layers[0]))
    for k, layer in enumerate(layers[1:], 1):
        for name, kind in list(inputs_of(layer).items())[1:]:
            if found.setdefault(name, kind) != kind:
                raise ArgumentError(
                    f"input {name!r} is {_form(*kind)} in layers[{k}], and {_form(*found[name])} below: one tensor "
                    "goes to all layers that declare the name, so give one of the two inputs another"
                )
    return found


def _form(rate: Rate, size: int) -> str:
    return f"[B, {size}]" if rate == Rate.SEQUENCE else f"[T, B, {size}]"


def _given(names: Sequence[str], x: Any, named: Mapping[str, Any]) -> Any:
    """What a layer reads: `x`, and beside it the inputs of its other names."""
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
            "a stack has one layer or more, and none came: give them from the first to the last, as in "
            "Stack(Recurrent('lstm', 8, 64), Recurrent('gru', 64, 32))"
        )
    seen: dict[int, int] = {}
    for k, layer in enumerate(layers):
        if not isinstance(layer, Recurrent | Stack):
            raise ArgumentError(
                f"layers[{k}] must be a Recurrent or a Stack, got {type(layer).__name__}: give the layers one by "
                "one, as in Stack(*layers), and call other modules by themselves"
            )
        for part in layer.modules():
            if seen.setdefault(id(part), k) != k:
                raise ArgumentError(
                    f"layers[{k}] has weights of layers[{seen[id(part)]}]: give each place a layer of its own, as "
                    "copy.deepcopy(layer) makes it"
                )
    for k in range(1, len(layers)):
        _check_fit(k, layers[k - 1], layers[k])


def _check_fit(k: int, below: Layer, layer: Layer) -> None:
    if layer.input_size != below.output_size:
        raise ArgumentError(
            f"layers[{k}] reads {layer.input_size} numbers a step, and layers[{k - 1}] gives {below.output_size}: make "
            f"it with input_size={below.output_size}"
        )
    if layer.batch_first != below.batch_first:
        raise ArgumentError(
            f"layers[{k}] has batch_first={layer.batch_first}, and layers[{k - 1}] has "
            f"batch_first={below.batch_first}: layers of one stack agree"
        )
    types = [next(iter(part.state_dict().values())).dtype for part in (layer, below)]
    if types[0] != types[1]:
        raise ArgumentError(
            f"layers[{k}] has weights of {types[0]}, and layers[{k - 1}] of {types[1]}: move one with .to(dtype)"
        )


def _check_around(layers: Sequence[Layer], residual: bool, highway: bool) -> None:
    if residual and highway:
        raise ArgumentError("residual=True and highway=True are two ways around a layer, and both came: choose one")
    for k, layer in enumerate(layers):
        if (residual or highway) and layer.input_size != layer.output_size:
            option = "residual" if residual else "highway"
            raise ArgumentError(
                f"{option}=True leads around every layer, so each must keep its size, and layers[{k}] reads "
                f"{layer.input_size} numbers and gives {layer.output_size}: put the layers that keep it into a stack "
                f"of their own, as in Stack(first, Stack(..., {option}=True))"
            )
