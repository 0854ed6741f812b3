"""A cell's equations as written, as plain data; nothing here computes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.equations.values import Rate, Size, Value, walk


@dataclass(frozen=True)
class Input:
    """An input of each step, or one per sequence (`rate` SEQUENCE)."""

    name: str
    size: Size
    rate: Rate = Rate.INPUT


@dataclass(frozen=True)
class StateVariable:
    """What a cell carries from step to step. A bookkeeping state (stabiliser, counter, remembered input) is carried,
    but untouched by zoneout, noise, learned starts and plots."""

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
        """The size of the output; an output that is a state has the state's size, even if its value is a scalar that
        broadcasts."""
        for state in self.states:
            if self.new[state.name] is self.output:
                return state.size
        return self.output.size

    @property
    def old(self) -> dict[str, Value]:
        """The states before the step, by name, without those that are never read."""
        return {v.attrs["name"]: v for v in self.values if v.op == "old"}

    @property
    def input_values(self) -> dict[str, Value]:
        """The inputs as values of the graph, by name."""
        return {v.attrs["name"]: v for v in self.values if v.op == "input"}

    @property
    def letters(self) -> tuple[str, ...]:
        """The size letters that a layer must bind, H and I first."""
        found = {p for part in self._sizes() for p in part}
        return tuple(sorted(found, key=lambda letter: (letter not in "HI", letter)))

    def _sizes(self) -> Iterator[list[str]]:
        for size in [v.size for v in self.values] + [w.size for w in self.weights.values()]:
            for part in size:
                if isinstance(part, str):
                    yield [letter for letter in part.split("+") if letter != "1"]

    @property
    def named(self) -> dict[str, Value]:
        """The named values by printed name, in the order in which they were written."""
        return {v.label: v for v in self.values if v.label is not None and not v.is_leaf}
