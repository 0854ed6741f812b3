"""Graphs: a cell's equations as written. Plain data; nothing here computes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.equations.values import Rate, Size, Value, walk


@dataclass(frozen=True)
class Input:
    """What comes in at each step, or once a sequence (`rate` SEQUENCE)."""

    name: str
    size: Size
    rate: Rate = Rate.INPUT


@dataclass(frozen=True)
class StateVariable:
    """What a cell carries. A bookkeeping state (stabiliser, counter, remembered input) is carried, and left alone by
    zoneout, noise, learned starts and plots."""

    name: str
    size: Size
    start: float = 0.0
    bookkeeping: bool = False


@dataclass(frozen=True, eq=False)
class Graph:
    """A cell's equations as written: one step, from inputs, old states and weights to an output and new states.

    `values` holds everything the step computes, in the order in which it was written; `inits` the initial value of each
    weight, an expression over random numbers and other weights. `masks` are inputs and weights that are drawn in
    training: ones, with the chance that stands here, and zeros.
    """

    name: str
    source: str
    doc: str
    options: Mapping[str, Any]
    symbols: Mapping[str, str]
    inputs: tuple[Input, ...]
    states: tuple[StateVariable, ...]
    output: Value
    output_name: str
    new: Mapping[str, Value]
    weights: Mapping[str, Value]
    inits: Mapping[str, Value]
    masks: Mapping[str, Value] = field(default_factory=dict)
    values: tuple[Value, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(walk(self.roots)))

    def __deepcopy__(self, memo: object) -> "Graph":
        return self

    @property
    def roots(self) -> tuple[Value, ...]:
        """The output, then the new states in their order."""
        return (self.output, *self.new.values())

    @property
    def output_size(self) -> Size:
        """The size of the output: its state's where it is one, even if the value is a scalar that broadcasts."""
        for state in self.states:
            if self.new[state.name] is self.output:
                return state.size
        return self.output.size

    @property
    def old(self) -> dict[str, Value]:
        """The state before the step, by name; a state that is never read is absent."""
        return {v.attrs["name"]: v for v in self.values if v.op == "old"}

    @property
    def input_values(self) -> dict[str, Value]:
        """The inputs as values of the graph, by name."""
        return {v.attrs["name"]: v for v in self.values if v.op == "input"}

    @property
    def letters(self) -> tuple[str, ...]:
        """The size letters that a layer has to bind, H and I first."""
        found = {p for part in self._sizes() for p in part}
        return tuple(sorted(found, key=lambda letter: (letter not in "HI", letter)))

    def _sizes(self) -> Iterator[list[str]]:
        for size in [v.size for v in self.values] + [w.size for w in self.weights.values()]:
            for part in size:
                if isinstance(part, str):
                    yield [letter for letter in part.split("+") if letter != "1"]

    @property
    def named(self) -> dict[str, Value]:
        """The values that have a name, by printed name, in the order in which they were written."""
        return {v.label: v for v in self.values if v.label is not None and not v.is_leaf}
