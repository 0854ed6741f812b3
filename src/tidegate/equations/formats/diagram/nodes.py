"""The content of a diagram of one step: the graph as boxes, circles and wires, before placement.

Weights are not wires: a matrix is in its box, a vector that multiplies is written in its node. Sums and products of
more than two terms are one node, an activation shares the box of the linear before it, and a call of an @function is
one box.
"""

from dataclasses import dataclass, field
from typing import Literal

from tidegate.equations.formats.diagram import labels as text
from tidegate.equations.formats.diagram.labels import Label
from tidegate.equations.formats.latex import call_prefix, shown_args, visible
from tidegate.equations.formats.text import expression
from tidegate.equations.graph import Graph
from tidegate.equations.values import SCALAR, Rate, Value

Kind = Literal["old", "input", "new", "output", "linear", "gate", "circle", "box", "call", "weights"]

FONT = 13.0
_PORT = 11.0
_SYMBOLS = {
    "sigmoid": "σ",
    "relu": "ReLU",
    "log_sigmoid": "log σ",
    "exp": "exp",
    "sqrt": "√",
    "abs": "|·|",
    "floor": "⌊·⌋",
    "neg": "−",
    "expm1": "exp −1",
    "total": "sum",
    "concat": "[ ; ]",
    "maximum": "max",
    "minimum": "min",
    "mod": "mod",
    "clip_gradient": "clip ∂",
}
_COMPARED = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥", "eq": "=", "ne": "≠"}
_BESIDE = {"add": "+ ", "sub": "− ", "div": "÷ ", "mod": "mod ", "maximum": "max ", "minimum": "min "} | {
    op: sign + " " for op, sign in _COMPARED.items()
}
_BETWEEN = {"add": " + ", "sub": " − ", "mul": "\u2009"}
_BEFORE = {"sub": " −", "div": " ÷", "mod": " mod"} | {op: " " + sign for op, sign in _COMPARED.items()}
_FLIPPED = {"add": "−", "sub": "−", "mul": "1/", "div": "1/"}
_SUMS, _PRODUCTS = frozenset({"add", "sub"}), frozenset({"mul", "div"})


@dataclass(eq=False)
class Wiring:
    """A value's wire, from where it is computed to all its users."""

    source: "Node"
    label: Label = ()
    bookkeeping: bool = False
    value: Value | None = None


@dataclass
class Inlet:
    """One end of a wire, with a sign beside it (minus, a divisor, the condition of a choice)."""

    net: Wiring
    mark: str = ""


@dataclass(eq=False)
class Node:
    """A box or circle. `parts` are its labels, side by side."""

    kind: Kind
    parts: list[Label]
    inlets: list[Inlet] = field(default_factory=list)
    outlets: list[Wiring] = field(default_factory=list)
    names: tuple[str, ...] = ()
    title: str = ""

    @property
    def is_port(self) -> bool:
        """Whether a state, input or output crosses the border of the step here."""
        return self.kind in ("old", "input", "new", "output")

    @property
    def part_widths(self) -> list[float]:
        """The width of each part, including the space around its label."""
        return [max(25.0, text.width(part, FONT) + 11.0) for part in self.parts]

    @property
    def width(self) -> float:
        """The width of the node, in pixels."""
        if self.is_port:
            return 0.0
        if self.kind == "circle":
            return max(24.0, text.width(self.parts[0], FONT) + 9.0)
        return sum(self.part_widths)

    @property
    def height(self) -> float:
        """The height of the node in pixels, with space for every wire."""
        if self.is_port:
            return 4.0
        wires = max(len(self.inlets), len(self.outlets))
        if self.kind == "circle" and wires <= 2:
            return 24.0
        return max(27.0, _PORT * wires + 5.0)

    def inlet_offset(self, index: int) -> float:
        """How far below the middle an incoming wire ends."""
        return _spaced(index, len(self.inlets))

    def outlet_offset(self, net: Wiring) -> float:
        """How far below the middle an outgoing wire starts."""
        return _spaced(self.outlets.index(net), len(self.outlets))


def _spaced(index: int, count: int) -> float:
    return _PORT * (index - (count - 1) / 2)


@dataclass
class Drawing:
    """The nodes of one step, sources first, and its results."""

    nodes: list[Node]
    new: list[Node]
    output: Node  # a port of its own, or the new state that is the output


class NodeReader:
    """Turns a graph into nodes and nets."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kept = {s.name for s in graph.states if s.bookkeeping}
        self.nodes: list[Node] = []
        self.nets: dict[Value, Wiring] = {}
        self.calls: dict[tuple[str, tuple[Value, ...], int | None], Node] = {}
        self.seen = sorted(visible(graph), key=lambda v: v.order)
        self.uses: dict[Value, int] = {}
        for user in [*graph.roots, *(a for v in self.seen for a in shown_args(v))]:
            self.uses[user] = self.uses.get(user, 0) + 1
        self.folded = {a for v in self.seen for a in self._folds(v)}

    def read(self) -> Drawing:
        """All nodes, ordered so that wires lead from earlier to later ones."""
        self._ports()
        for value in self.seen:
            if value.rate > Rate.WEIGHTS and not value.is_leaf and value not in self.folded:
                self._emit(self._call(value) if value.call else self._operation(value), value)
        new = [self._end("new", name, value) for name, value in self.graph.new.items()]
        name = self.graph.output_name
        output = next((n for n in new if n.names == (name,)), None) or self._end("output", name, self.graph.output)
        return Drawing([n for n in self.nodes if n.is_port or n.inlets or n.outlets], new, output)

    def _ports(self) -> None:
        old, inputs = self.graph.old, self.graph.input_values
        for state in self.graph.states:
            value = old.get(state.name)
            if value is not None:
                port = Node("old", [text.name(state.name, "t−1")], names=(state.name,))
                self._emit(port, value).bookkeeping = state.bookkeeping
        for one in self.graph.inputs:
            if one.name in inputs:
                times = ("t",) if one.rate > Rate.SEQUENCE else ()
                self._emit(Node("input", [text.name(one.name, *times)], names=(one.name,)), inputs[one.name])

    def _end(self, kind: Kind, name: str, value: Value) -> Node:
        node = Node(kind, [text.name(name, "t")], [Inlet(self._net(value))], names=(name,))
        source = node.inlets[0].net.source
        if kind == "new" and name in self.kept and source.kind not in ("input", "old"):
            source.outlets[0].bookkeeping = True
        return node

    def _net(self, value: Value) -> Wiring:
        if value not in self.nets:
            self._emit(Node("weights", [_weights(value)], names=(value.label or "",)), value)
        return self.nets[value]

    def _emit(self, node: Node, value: Value) -> Wiring:
        shown = value.name is not None and "." not in value.name and not value.is_leaf
        net = Wiring(node, text.name(str(value.name), version=value.version) if shown else (), value=value)
        if shown:
            node.title = f"{value.label}: {value.legend}" if value.legend else str(value.label)
        node.outlets.append(net)
        self.nets[value] = net
        if len(node.outlets) == 1:
            self.nodes.append(node)
        return net

    # ------------------------------------------------------------------------------------------- what is one node
    def _folds(self, value: Value) -> list[Value]:
        """The operands that are drawn inside the value's own node."""
        if value.call or value.is_leaf or value.rate == Rate.WEIGHTS:
            return []
        free = [a for a in value.args if self._foldable(a)]
        if _is_activation(value):
            return [a for a in free if a.op in ("linear", "product")]
        family = _SUMS if value.op in _SUMS else _PRODUCTS
        if value.op not in family:
            return []
        any_place = value.op in ("add", "mul") or _all_move(value)
        return [a for a in free if a.op in family and (any_place or a is value.args[0])]

    def _foldable(self, value: Value) -> bool:
        named = value.name is not None and "." not in value.name
        return not (named or value.call or value.is_leaf) and self.uses[value] == 1 and value.rate > Rate.WEIGHTS

    def _operation(self, value: Value) -> Node:
        if _is_activation(value) and value.args[0] in self.folded:
            inner = self._operation(value.args[0])
            sign = text.plain(_SYMBOLS.get(value.op, value.op))
            return Node("gate", [*inner.parts, sign], inner.inlets, names=(*inner.names, value.op))
        if value.op in ("linear", "product"):
            return self._linear(value)
        if value.op in _SUMS | _PRODUCTS and (_all_move(value) or any(a in self.folded for a in value.args)):
            return self._family(value)
        return self._small(value)

    def _family(self, value: Value) -> Node:
        """A sum or product of several terms; terms that depend on weights only are written inside the node."""
        inlets, fixed = self._terms(value, turned=False)
        sign = "+" if value.op in _SUMS else "⊙"
        if not fixed:
            return Node("circle", [text.plain(sign)], inlets, names=(value.op,))
        return Node("box", [sum(fixed, ())], inlets, names=(value.op,))

    def _linear(self, value: Value) -> Node:
        if value.op == "product":
            matrix = value.args[0]
            return Node("linear", [_weights(matrix)], self._inlets(value.args[1:]), names=(matrix.name or "",))
        vectors = value.args[1 : 2 * len(value.attrs["labels"]) : 2]
        letter = "W" if any(v.rate < Rate.STATE for v in vectors) else "U"
        label = (text.Run(letter, italic=True), text.subscript(value.attrs["linear"]))
        return Node("linear", [label], self._inlets(vectors), names=(value.attrs["linear"],))

    def _terms(self, value: Value, turned: bool) -> tuple[list[Inlet], list[Label]]:
        """The terms of a sum or the factors of a product: wires with a sign where a term is subtracted or divides, or
        labels for terms that depend on weights only."""
        inlets: list[Inlet] = []
        fixed: list[Label] = []
        for place, operand in enumerate(value.args):
            flips = turned != (place == 1 and value.op in ("sub", "div"))
            if operand in self.folded:
                more, written = self._terms(operand, flips)
                inlets, fixed = inlets + more, fixed + written
            elif operand.rate > Rate.WEIGHTS:
                inlets.append(Inlet(self.nets[operand], _FLIPPED[value.op] if flips else ""))
            else:
                fixed.append(text.plain(" " * bool(fixed) + _sign(value, operand, flips)) + _weights(operand))
        return inlets, fixed

    def _small(self, value: Value) -> Node:
        moving = [a for a in value.args if a.rate > Rate.WEIGHTS]
        inlets, names = self._inlets(moving), (value.op,)
        if value.op == "where":
            return self._choice(value)
        if len(value.args) == 2 and len(moving) == 1:
            return Node("box", [_beside(value)], inlets, names=names)
        if value.op in _COMPARED or (value.op == "pow" and len(moving) == 2):
            sign = text.plain(_COMPARED.get(value.op, "")) or _power(text.plain("a"), "b")
            return Node("box", [sign], [Inlet(i.net, m) for i, m in zip(inlets, "ab", strict=True)], names=names)
        return Node("box", [text.plain(_SYMBOLS.get(value.op, value.op))], inlets, names=names)

    def _choice(self, value: Value) -> Node:
        inlets, label = [], text.plain("choose")
        for mark, operand in zip(("if", "then", "else"), value.args, strict=True):
            if operand.rate > Rate.WEIGHTS:
                inlets.append(Inlet(self.nets[operand], mark))
            else:
                label += text.plain(f" {mark} ") + _weights(operand)
        return Node("box", [label], inlets, names=("where",))

    def _call(self, value: Value) -> Node:
        call = value.call
        assert call is not None
        key = (call.function, call.args, None if call.index is not None else value.order)
        if key not in self.calls:
            prefix = call_prefix(value)
            label = text.plain(call.function.replace("_", " ")) + ((text.subscript(prefix),) if prefix else ())
            moving = [a for a in call.args if a.rate > Rate.WEIGHTS]
            self.calls[key] = Node("call", [label], self._inlets(moving), names=(call.function,))
        return self.calls[key]

    def _inlets(self, values: tuple[Value, ...] | list[Value]) -> list[Inlet]:
        return [Inlet(self._net(v)) for v in values if v.rate > Rate.WEIGHTS]


def _sign(value: Value, operand: Value, flips: bool) -> str:
    if value.op in _SUMS:
        return "− " if flips else "+ "
    return "÷ " if flips else "× " if operand.size == SCALAR else "⊙ "


def _is_activation(value: Value) -> bool:
    return len(value.args) == 1 and value.op not in ("mean", "total", "spread", "neg", "stop", "transpose")


def _all_move(value: Value) -> bool:
    return all(a.rate > Rate.WEIGHTS for a in value.args)


def _weights(value: Value) -> Label:
    """A short label for a value that depends on weights only."""
    if value.name is not None:
        return text.name(value.name)
    if value.op == "constant":
        name = value.attrs.get("name")
        return text.plain(f"{value.attrs['value']:.4g}".replace("-", "−")) if name is None else text.name(name)
    if len(value.args) == 1 and (value.args[0].name is not None or value.args[0].op == "constant"):
        return text.plain(_SYMBOLS.get(value.op, value.op) + "(") + _weights(value.args[0]) + text.plain(")")
    if value.op in _BETWEEN and all(a.name is not None or a.op == "constant" for a in value.args):
        left, right = map(_weights, value.args)
        return (*text.plain("("), *left, *text.plain(_BETWEEN[value.op]), *right, *text.plain(")"))
    shown = expression(value)
    return text.plain(shown if len(shown) <= 18 else shown[:17] + "…")


def _power(base: Label, exponent: str) -> Label:
    return (*base, text.Run(exponent, place="sup"))


def _beside(value: Value) -> Label:
    """A node with one wire and one operand that depends on weights only."""
    first = value.args[0].rate == Rate.WEIGHTS
    fixed = _weights(value.args[0 if first else 1])
    if value.op == "mul":
        return text.plain(_sign(value, value.args[0 if first else 1], flips=False)) + fixed
    if value.op == "pow":
        shown = "".join(run.text for run in fixed)
        return _power(fixed, "·") if first else _power(text.plain("(·)"), shown)
    if first and value.op in _BEFORE:
        return fixed + text.plain(_BEFORE[value.op])
    return text.plain(_BESIDE.get(value.op, _SYMBOLS.get(value.op, value.op) + " ")) + fixed
