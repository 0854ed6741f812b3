"""Stacked layers as the graph of one cell, for code that needs all their states and weights at once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from tidegate.equations.graph import Graph, Input
from tidegate.equations.graph import StateVariable as Declared
from tidegate.equations.ops import spread
from tidegate.equations.rewrite import rewrite
from tidegate.equations.values import SCALAR, Rate, Size, Value, constant, pointwise
from tidegate.errors import ArgumentError, type_of
from tidegate.nn.layer import Recurrent
from tidegate.nn.stack import Stack, highway
from tidegate.nn.state import State, check_is_state, check_state
from tidegate.nn.weights import CellWeights, Starts
from tidegate.reference import bound
from tidegate.runtime.masks import without_masks

FRESH = "start.fresh"  # an input: 1 where a row is reset; names in cells have no dots
Layer = Recurrent | Stack


@dataclass(frozen=True)
class One:
    """One layer: its equations, its sizes, the prefix of its weights, whether its initial states are learned."""

    graph: Graph
    sizes: tuple[tuple[str, int], ...]
    place: str
    learned: bool


@dataclass(frozen=True)
class Several:
    """Stacked layers, and the connections around each; `gates` are the prefixes of highway gates."""

    parts: "tuple[One | Several, ...]"
    dropout: float = 0.0
    residual: bool = False
    gates: tuple[str, ...] = ()


class FlattenedLayer:
    """A layer, stacked or not, as one cell.

    `graph` has a state `l1.h` for state h of the second layer, and weights under the names of the layer's parameters.
    Equal sizes have equal letters: `sizes` binds N8 to 8. Learned initial states are weights of the equations, read
    where the input `start.fresh` is 1. In training, masks are drawn, including those of dropout between layers.

    Raises ArgumentError for bidirectional layers and other modules.
    """

    def __init__(self, layer: nn.Module) -> None:
        if not isinstance(layer, Recurrent | Stack):
            raise ArgumentError(
                f"forward gradient rules take a Recurrent or a Stack, got {type_of(layer)}: "
                "pass the layer itself, and what follows it as readout="
            )
        if layer.bidirectional:
            raise ArgumentError("forward gradient rules do not support bidirectional layers: use BPTT()")
        self.layer = layer
        self.graph, self.sizes = _joined(_described(layer, "", layer.training))
        modules = list(layer.named_modules())
        self._cells = [(f"{name}.", m) for name, m in modules if isinstance(m, CellWeights)]
        starts = [f"{name}.{p}" for name, m in modules if isinstance(m, Starts) for p in m._parameters]
        self._starts = [name for name in starts if name in self.graph.weights]
        self.declared = _without_fresh(self.graph)  # the graph with only the inputs that callers give
        self.learns_starts = self.declared is not self.graph  # whether initial states are weights
        self._modules = [m for _, m in modules]
        self._made_of = [*map(_made_of, self._modules)]

    def unchanged(self) -> bool:
        """Whether the layer still has the same modules, tensors and options."""
        return [*map(_made_of, self._modules)] == self._made_of

    def weights(self) -> dict[str, Tensor]:
        """The current weights by name; each is read once, since parametrisations compute it on access."""
        found = {prefix + name: w for prefix, cell in self._cells for name, w in cell.tensors().items()}
        found |= {name: self.layer.get_parameter(name) for name in self._starts}
        return {name: w for name, w in found.items() if name in self.graph.weights}

    def begin(self, rows: int, state: State | None) -> dict[str, Tensor]:
        """The given or initial states by their flat names, `[rows, size]`, detached."""
        if state is None and not self.learns_starts:
            return self._declared_starts(rows)
        own = self.layer.initial_state(rows)
        if state is not None:
            check_is_state(state)
            check_state(state, own)
        layers = (own if state is None else state).layers
        return {f"l{k}.{n}": t.detach() for k, (named,) in enumerate(layers) for n, t in named.items()}

    def _declared_starts(self, rows: int) -> dict[str, Tensor]:
        """The declared initial states, without learned ones."""
        like = next(iter(self._cells[0][1].tensors().values())).detach()
        widths = {s.name: bound(s.size, self.sizes)[0] for s in self.graph.states}
        return {s.name: like.new_full((1, widths[s.name]), s.start).expand(rows, -1) for s in self.graph.states}

    def starts(self) -> dict[str, Tensor]:
        """The initial states, `[1, size]`, detached."""
        return self.begin(1, None)

    def state(self, flat: Mapping[str, Tensor]) -> State:
        """Convert states by their flat names to the layer's State."""
        layers: list[dict[str, Tensor]] = [{} for _ in range(self.layer.num_layers)]
        for s in self.graph.states:
            place, _, name = s.name.partition(".")
            layers[int(place[1:])][name] = flat[s.name]
        return State([[named] for named in layers])


def _made_of(m: nn.Module) -> tuple[Any, ...]:
    parts = *m._modules.values(), *m._parameters.values(), *m._buffers.values()
    return m.training, m.__dict__.get("dropout"), *map(id, parts)


def _described(layer: Layer, place: str, training: bool) -> One | Several:
    if isinstance(layer, Recurrent):
        graph = layer.graph if training else without_masks(layer.graph)
        learned = any(name.startswith("start_l") for name, _ in layer.named_children())
        parts = [One(graph, tuple(s.sizes.items()), f"{place}l{k}", learned) for k, s in enumerate(layer.unrolls)]
        return Several(tuple(parts), layer.dropout if training else 0.0)
    below = tuple(_described(part, f"{place}layers.{k}.", training) for k, part in enumerate(layer.layers))  # type: ignore[arg-type]
    gates = tuple(f"{place}gates.{k}.l0" for k in range(len(layer.gates)))
    return Several(below, layer.dropout if training else 0.0, layer.residual, gates)


@lru_cache(maxsize=256)
def _joined(whole: One | Several) -> tuple[Graph, dict[str, int]]:
    return _Joining().join(whole)


@lru_cache(maxsize=256)
def _without_fresh(graph: Graph) -> Graph:
    kept = tuple(i for i in graph.inputs if i.name != FRESH)
    return graph if len(kept) == len(graph.inputs) else replace(graph, inputs=kept)


class _Joining:
    """Builds the graph of several cells, from the lowest layer up."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.inputs: dict[str, tuple[Input, Value]] = {}
        self.states: list[Declared] = []
        self.new: dict[str, Value] = {}
        self.weights: dict[str, Value] = {}
        self.masks: dict[str, Value] = {}
        self.layers = 0
        self.names: list[str] = []

    def join(self, whole: One | Several) -> tuple[Graph, dict[str, int]]:
        first = whole
        while isinstance(first, Several):
            first = first.parts[0]
        x = first.graph.inputs[0]
        output = self.add(whole, self.input(x.name, self.size(x.size, dict(first.sizes)), x.rate))
        graph = Graph(
            name=" over ".join(reversed(self.names)),
            source=first.graph.source,
            doc="",
            options={},
            symbols={},
            inputs=tuple(i for i, _ in self.inputs.values()),
            states=tuple(self.states),
            output=output,
            output_name="output",
            new=self.new,
            weights=self.weights,
            inits={name: constant(0.0) for name in self.weights},
            masks=self.masks,
        )
        return graph, self.sizes

    def add(self, part: One | Several, x: Value) -> Value:
        if isinstance(part, One):
            return self.layer(part, x)
        for k, inner in enumerate(part.parts):
            read = self.dropped(x, part.dropout) if k and part.dropout else x
            y = self.add(inner, read)
            if part.gates:
                size = self.sizes[str(y.size[0])]
                gate = One(highway.graph, (("H", size),), part.gates[k], False)
                y = self.cell(gate, {"x": x, "y": y}, {"n": constant(0.0)})[0]
            x = y + x if part.residual else y
        return x

    def layer(self, one: One, x: Value) -> Value:
        sizes, k = dict(one.sizes), self.layers
        given = {one.graph.inputs[0].name: x}
        for i in one.graph.inputs[1:]:
            name = f"{one.place}.{i.name}" if i.name in one.graph.masks else i.name
            given[i.name] = self.input(name, self.size(i.size, sizes), i.rate)
            if i.name in one.graph.masks:
                self.masks[name] = one.graph.masks[i.name]
        old = {s.name: self.old(k, s, sizes, one) for s in one.graph.states}
        output, new = self.cell(one, given, old)
        self.layers += 1
        self.names.append(one.graph.name)
        for s in one.graph.states:
            self.states.append(Declared(f"l{k}.{s.name}", self.size(s.size, sizes), s.start, s.bookkeeping))
            self.new[f"l{k}.{s.name}"] = new[s.name]
        return spread(output, self.size(one.graph.output_size, sizes))

    def cell(self, one: One, given: Mapping[str, Value], old: Mapping[str, Value]) -> tuple[Value, dict[str, Value]]:
        """The output and the new states of a cell for these operands."""
        graph, sizes = one.graph, dict(one.sizes)

        def visit(value: Value, args: tuple[Value, ...]) -> Value:
            if value.op == "input":
                return given[value.attrs["name"]]
            if value.op == "old":
                return old[value.attrs["name"]]
            if value.op == "weight":
                return self.weight(one, value, sizes)
            attrs = dict(value.attrs)
            if "before" in attrs:
                attrs["before"] = [self.size((p,), sizes)[0] for p in attrs["before"]]
            if "of" in attrs:
                attrs["of"] = self.size((attrs["of"],), sizes)[0]
            rate = value.rate if not args else None
            made = Value(value.op, args, self.size(value.size, sizes), rate, **attrs)
            made.name, made.version = value.name and f"{one.place}.{value.name}", value.version
            return made

        found = rewrite(graph.roots, visit)
        return found[graph.output], {name: found[v] for name, v in graph.new.items()}

    def size(self, size: Size, sizes: Mapping[str, int]) -> Size:
        """The letter of a size: equal sizes share one."""
        numbers = [(p, bound((p,), sizes)[0]) for p in size]
        self.sizes |= {f"N{n}": n for p, n in numbers if p not in (1, "1")}
        return tuple(p if p in (1, "1") else f"N{n}" for p, n in numbers)

    def input(self, name: str, size: Size, rate: Rate) -> Value:
        if name not in self.inputs:
            self.inputs[name] = Input(name, size, rate), Value("input", (), size, rate, name=name)
        return self.inputs[name][1]

    def weight(self, one: One, value: Value, sizes: Mapping[str, int]) -> Value:
        name = f"{one.place}.{value.attrs['name']}"
        if name not in self.weights:
            attrs = {**value.attrs, "name": name}
            self.weights[name] = Value("weight", (), self.size(value.size, sizes), Rate.WEIGHTS, **attrs)
            if value.attrs["name"] in one.graph.masks:
                self.masks[name] = one.graph.masks[value.attrs["name"]]
        return self.weights[name]

    def old(self, k: int, state: Declared, sizes: Mapping[str, int], one: One) -> Value:
        size = self.size(state.size, sizes)
        found = Value("old", (), size, Rate.STATE, name=f"l{k}.{state.name}")
        if not one.learned or state.bookkeeping:
            return found
        head, _, last = one.place.rpartition(".")
        name = f"{head}.start_{last}.{state.name}" if head else f"start_{last}.{state.name}"
        start = Value("weight", (), size, Rate.WEIGHTS, name=name, learn=True)
        self.weights[name] = start
        return pointwise("where", self.input(FRESH, SCALAR, Rate.INPUT), start, found)

    def dropped(self, x: Value, probability: float) -> Value:
        name = f"dropout.{self.layers}"
        self.masks[name] = constant(1 - probability)
        return x * self.input(name, x.size, Rate.INPUT) * (1 / (1 - probability))


def flat_inputs(flat: FlattenedLayer, inputs: Mapping[str, Tensor], like: Tensor) -> dict[str, Any]:
    """Inputs as tensors of numbers: indices are expanded to one-hots."""
    first = flat.graph.inputs[0]
    found = dict(inputs)
    if not found[first.name].is_floating_point():
        (size,) = bound(first.size, flat.sizes)
        found[first.name] = nn.functional.one_hot(found[first.name], size).to(like.dtype)
    return found
