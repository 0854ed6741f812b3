"""Traces a cell: calls its function once with symbols and records every value it creates."""

import re
import sys
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from linecache import getline
from types import CodeType, FrameType
from typing import Any

from tidegate.equations.graph import Graph
from tidegate.equations.names import check_name, check_weight_name
from tidegate.equations.values import (
    INITIALISERS,
    LEAVES,
    SCALAR,
    SHAPELESS,
    Rate,
    Size,
    Value,
    fail,
    listener,
    show_size,
    shown,
    starts_matrices,
    user_frame,
    walk,
)

NOT_FOR_PEOPLE = re.compile(r"# *(?:noqa|type:|fmt:|ruff:|mypy:|pylint:|pragma:)")


class Tracer:
    """Records each value's line and name, and the weights."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.weights: dict[str, Value] = {}
        self.inits: dict[str, Value] = {}
        self.made: set[Value] = set()
        self.versions: dict[str, list[Value]] = {}
        self.places: dict[Value, tuple[str, int]] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within this block, record every new value, and the cell function's variables when it returns."""
        token, before = listener.set(self), sys.getprofile()

        def at_return(frame: FrameType, event: str, _: Any) -> None:
            if event == "return" and frame.f_code is self.code:
                self._name_locals(frame)

        sys.setprofile(at_return)
        try:
            yield
        finally:
            sys.setprofile(before)
            listener.reset(token)

    def created(self, value: Value) -> None:
        """Record a new value: where it was written, and the variables bound since the last one."""
        self.made.add(value)
        frame = user_frame()
        if frame is not None:
            value.file, value.line = frame.f_code.co_filename, frame.f_lineno
        while frame is not None and frame.f_code is not self.code:
            frame = frame.f_back
        if frame is not None:
            self.places[value] = frame.f_code.co_filename, frame.f_lineno
            self._name_locals(frame)

    def _name_locals(self, frame: FrameType) -> None:
        for name, value in frame.f_locals.items():
            if isinstance(value, Value) and value.name is None and self._can_be_named(value) and len(name) <= 64:
                self.rename(value, name)

    def _can_be_named(self, value: Value) -> bool:
        return value in self.made and value.op not in LEAVES and value.op not in INITIALISERS

    def rename(self, value: Value, name: str) -> Value:
        """Name a value; values of one name become its versions."""
        if value.name is not None:
            self.versions[value.name] = [v for v in self.versions.get(value.name, []) if v is not value]
        value.name = name
        self.versions.setdefault(name, []).append(value)
        return value

    def leaf(self, op: str, name: str, size: Size, rate: Rate) -> Value:
        """An input or an old state."""
        value = Value(op, (), size, rate, name=check_name(name, "the name of an input or state"))
        value.name = name
        return value

    def weight(self, name: str, size: Size, init: Value, learn: bool, **attrs: Any) -> Value:
        """Declare a weight: one named tensor in the file."""
        self._check_free(check_weight_name(name))
        if init.size not in (SHAPELESS, SCALAR, size):
            fail(
                f"weight {name!r} has size {show_size(size)}, but its initial value {show_size(init.size)}: give a "
                "number, an initialiser, or an expression of the weight's own size"
            )
        if not isinstance(learn, bool):
            fail(f"weight {name!r}: learn must be True for a weight or False for a buffer, got {shown(learn)}")
        if len(size) == 1:
            self._refuse_matrix_starts(name, init)
        value = Value("weight", (), size, Rate.WEIGHTS, name=name, learn=learn, **attrs)
        value.name = name
        self.weights[name], self.inits[name] = value, init
        return value

    def _refuse_matrix_starts(self, name: str, init: Value) -> None:
        for value in walk([init]):
            if starts_matrices(value):
                word = "position(1)" if value.op == "position" else f"{value.op}()"
                fail(
                    f"weight {name!r} is a vector, but {word} is for matrices: use uniform, normal, ramp or position()"
                )

    def _check_free(self, name: str) -> None:
        if name in self.weights:
            fail(
                f"weight {name!r} is declared twice: choose another name, or, to use one weight in two places, declare "
                "it once, as in W = matrix(...), and write W @ v in both"
            )
        group, dot, _ = name.partition(".")
        taken = group in self.weights if dot else any(w.startswith(name + ".") for w in self.weights)
        if taken:
            fail(f"weight {name!r}: {group!r} cannot be both a weight and the name of a linear: choose another")


def settle_names(tracer: Tracer, graph: Graph, taken: set[str]) -> None:
    """Number the versions of rebound names, and drop names of values that the step does not compute.

    The value that becomes a state has the state's name, else the last one keeps the plain name; where something given
    has it (`taken`: weights, inputs, options), none does.
    """
    live = set(walk(graph.roots, shown=True))
    results = {graph.output_name: graph.output, **graph.new}
    for name, values in tracer.versions.items():
        kept = [v for v in values if v in live]
        final = results.get(name)
        if not any(v is final for v in kept):
            final = None if name in taken or not kept else kept[-1]
        for k, value in enumerate([v for v in kept if v is not final], start=1):
            value.version = k
    for value in tracer.made - live:
        if not value.is_leaf:
            value.name = None


def name_results(tracer: Tracer, new: dict[str, Value]) -> None:
    """Name each new state's value after the state."""
    for state, value in new.items():
        if not value.is_leaf and not any(value is v and v.name == k for k, v in new.items() if k != state):
            tracer.rename(value, state)


def name_nets(values: tuple[Value, ...]) -> None:
    """Name the argument of a named activation as its pre-activation: `i` gives `i.net`."""
    for value in values:
        if value.name is None or value.is_leaf or value.version or len(value.args) != 1 or value.op == "neg":
            continue
        net = value.args[0]
        if net.name is None and not net.is_leaf:
            net.name = f"{value.name}.net"


def read_legends(tracer: Tracer, values: tuple[Value, ...]) -> None:
    """Take each value's legend from the comment at the end of its line in the cell, if the source is available."""
    for value in values:
        if value.name is not None and value in tracer.places and not value.is_leaf:
            value.legend = _comment(getline(*tracer.places[value]))


def _comment(line: str) -> str | None:
    if "#" not in line:
        return None
    try:
        for token in tokenize.generate_tokens(StringIO(line.strip()).readline):
            if token.type == tokenize.COMMENT:
                return NOT_FOR_PEOPLE.split(token.string, maxsplit=1)[0].strip("# ").strip() or None
    except (tokenize.TokenError, SyntaxError):
        return None
    return None


def reading(word: str) -> Tracer:
    """The active tracer, for words that may only be used while a cell is read."""
    tracer = listener.get()
    if not isinstance(tracer, Tracer):
        fail(f"{word} can only be called inside a function decorated with @cell")
    return tracer
