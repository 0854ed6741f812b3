"""Finds the sigmoids that keep a state and those that let new values in, from the state's update alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tidegate.equations.graph import Graph
from tidegate.equations.values import Value, walk

LINEAR = frozenset({"add", "sub", "neg", "mul", "where"})


@dataclass(frozen=True, eq=False)
class Gate:
    """A sigmoid that scales something; `turned` if it does so as 1 - sigmoid."""

    sigmoid: Value
    turned: bool

    @property
    def name(self) -> str:
        """The gate's name in the equations."""
        return str(self.sigmoid.label or "sigmoid")

    @property
    def biases(self) -> list[Value]:
        """The learned weights added inside the sigmoid, a linear's bias included."""
        found = [w for w in _biases(self.sigmoid.args[0]) if w.op == "weight" and w.attrs["learn"]]
        return sorted(found, key=lambda w: w.order)


@dataclass(frozen=True, eq=False)
class Update:
    """The factors of the old state in its update, and of what is added, and the gates among them."""

    state: str
    keep: list[Gate]
    enter: list[Gate]


def updates(graph: Graph) -> list[Update]:
    """The gates of each state's update `new = keep * old + enter * other`, without bookkeeping states.

    Only products, sums and `where` are followed from the new state to the old one: an old state that passes through a
    tanh or a linear is not kept.
    """
    old = graph.old
    return [
        _update(s.name, graph.new[s.name], old[s.name]) for s in graph.states if not s.bookkeeping and s.name in old
    ]


def _update(state: str, new: Value, old: Value) -> Update:
    carrying = _carrying(new, old)
    keep: list[Value] = []
    enter: list[Value] = []
    for value in carrying:
        beside = [a for a in _operands(value) if a not in carrying]
        if value.op == "mul":
            keep += beside
        elif value is not old:
            enter += beside
    return Update(state, _gates(keep), _gates(enter))


def _carrying(new: Value, old: Value) -> set[Value]:
    """The values from the old state to the new one, inclusive, that are linear in the old one."""
    linear = {old}
    for value in walk([new]):
        if value.op in LINEAR and any(a in linear for a in _operands(value)):
            linear.add(value)
    found: set[Value] = set()
    stack = [new] if new in linear else []
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            stack.extend(a for a in _operands(value) if a in linear)
    return found


def _operands(value: Value) -> tuple[Value, ...]:
    return value.args[1:] if value.op == "where" else value.args


def _gates(terms: Iterable[Value]) -> list[Gate]:
    found = {(g.sigmoid, g.turned): g for t in terms for factor in _factors(t) if (g := _gate(factor)) is not None}
    return sorted(found.values(), key=lambda g: g.sigmoid.order)


def _factors(value: Value) -> Iterator[Value]:
    if value.op in ("mul", "neg", "spread"):
        for a in value.args:
            yield from _factors(a)
    else:
        yield value


def _gate(value: Value) -> Gate | None:
    turned = value.op == "sub" and value.args[0].op == "constant" and value.args[0].attrs["value"] == 1.0
    inner = value.args[1] if turned else value
    while inner.op == "spread":
        inner = inner.args[0]
    return Gate(inner, turned) if inner.op == "sigmoid" else None


def _biases(net: Value) -> Iterator[Value]:
    if net.op == "add":
        for a in net.args:
            yield from _biases(a)
    elif net.op == "linear":
        if net.attrs["bias"]:
            yield net.args[-1]
    elif net.op == "weight":
        yield net
