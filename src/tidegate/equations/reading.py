"""Reads a cell's header and function into a graph."""

import inspect
import math
from collections.abc import Callable
from typing import Any, NoReturn

from tidegate.equations.graph import Graph, Input, StateVariable
from tidegate.equations.names import HEADER, LETTER, NO_MATRICES, check_name, parse_size
from tidegate.equations.tracer import Tracer, name_nets, name_results, read_legends, settle_names
from tidegate.equations.values import SCALAR, Rate, Value, constant, lift, show_size, shown
from tidegate.equations.verify import MAX_STATES, verify, verify_derivatives, verify_reads
from tidegate.errors import EquationError


def complain(function: Callable[..., Any], message: str) -> NoReturn:
    """Raise an EquationError that points to a cell's function."""
    code, prefix = function.__code__, f"cell {function.__name__!r}"
    whole = message if message.startswith(prefix) else f"{prefix}: {message}"
    raise EquationError(whole, file=code.co_filename, line=code.co_firstlineno)


Header = tuple[str, str | None, str | None, str, dict[str, str]]


def read(function: Callable[..., Any], header: Header, options: dict[str, Any]) -> Graph:
    """Call a cell's function once with symbols, and return the checked graph of what it computes."""
    try:
        return _Reading(function, header, options).graph()
    except EquationError as error:
        if error.file is None:
            complain(function, str(error))
        raise


class _Reading:
    """Reads one cell's function with given options."""

    def __init__(self, function: Callable[..., Any], header: Header, options: dict[str, Any]) -> None:
        self.function, self.options = function, options
        self.states_text, self.inputs_text, self.output_name, self.source, self.symbols = header
        self.name = check_name(function.__name__, "the name of a cell")
        self.tracer = Tracer(function.__code__)
        self.groups: dict[str, list[str] | str] = {}  # a state's name -> its array's names, or itself
        self.states: list[StateVariable] = []

    def graph(self) -> Graph:
        self._parse_states()
        parameters = self._positional()
        inputs = self._parse_inputs([p for p in parameters if p not in self.groups])
        leaves = {i.name: self.tracer.leaf("input", i.name, i.size, i.rate) for i in inputs}
        old = {s.name: self.tracer.leaf("old", s.name, s.size, Rate.STATE) for s in self.states}
        symbols = {g: [old[n] for n in ns] if isinstance(ns, list) else old[ns] for g, ns in self.groups.items()}
        arguments = [symbols[p] if p in symbols else leaves[p] for p in parameters]
        options = {k: constant(v, k) if isinstance(v, float) else v for k, v in self.options.items()}
        with self.tracer.listening():
            returned = self.function(*arguments, **options)
        return self._finish(inputs, returned)

    def _positional(self) -> list[str]:
        names = []
        for p in inspect.signature(self.function).parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                stars = "*" if p.kind is p.VAR_POSITIONAL else "**"
                raise EquationError(f"a cell must list its inputs, states and options one by one, got {stars}{p.name}")
            if p.kind is not p.KEYWORD_ONLY and p.default is not p.empty:
                raise EquationError(
                    f"parameter {p.name!r} has a default, which only options may have: write options after a star, "
                    f"as in def {self.name}(x, h, *, {p.name}=...)"
                )
            if p.kind is not p.KEYWORD_ONLY:
                names.append(p.name)
        missing = [g for g in self.groups if g not in names]
        if missing:
            raise EquationError(
                f"state {missing[0]!r} of the header is not a parameter of the function, which takes "
                f"{', '.join(names) or 'none'}: add it there (the state before the step), or remove it from states="
            )
        return names

    def _parse_states(self) -> None:
        plain, _, bookkeeping = self.states_text.partition("|")
        for text, kept in ((plain, False), (bookkeeping, True)):
            for token in text.split():
                self._add_state(token, kept)
        if not self.states:
            raise EquationError(
                f"states={self.states_text!r} names no state: a recurrent cell carries at least one, as in states='h'"
            )
        names = [s.name for s in self.states]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice:
            raise EquationError(f"state {twice!r} appears twice in states={self.states_text!r}: rename one of them")

    def _add_state(self, token: str, bookkeeping: bool) -> None:
        match = HEADER.fullmatch(token)
        if match is None or match["rate"]:
            raise EquationError(f"states={self.states_text!r}: {token!r} must be NAME[:SIZE][*OPTION][=START]")
        name, size, start = match["name"], parse_size(match["size"] or "H"), self._start(token, match["start"])
        count = self._array_length(match["array"]) if match["array"] else None
        names = [name] if count is None else [f"{name}{k}" for k in range(count)]
        self.groups[name] = name if count is None else names
        self.states += [StateVariable(check_name(n, "the name of a state"), size, start, bookkeeping) for n in names]

    def _start(self, token: str, text: str | None) -> float:
        try:
            value = float(text or 0.0)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise EquationError(f"state {token!r} must start at a finite number, such as -1e9")
        return value

    def _array_length(self, text: str) -> int:
        if LETTER.fullmatch(text) and text not in self.options:
            raise EquationError(f"'*{text}' in states={self.states_text!r} makes a matrix: {NO_MATRICES}")
        count = int(text[:9]) if text.isdecimal() else self.options.get(text)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_STATES:
            raise EquationError(
                f"'*{text}' in states={self.states_text!r} must be a whole number from 1 to {MAX_STATES}, or an option "
                "that is one"
            )
        return count

    def _parse_inputs(self, parameters: list[str]) -> tuple[Input, ...]:
        declared = [self._input(token, k) for k, token in enumerate((self.inputs_text or "").split())]
        if self.inputs_text is None and len(parameters) == 1:
            declared = [Input(parameters[0], ("I",))]
        names = [i.name for i in declared]
        if sorted(names) != sorted(parameters):
            proposal = " ".join(p if k == 0 else p + ":1" for k, p in enumerate(parameters))
            raise EquationError(
                f"the function takes the inputs {parameters}, but the header declares {names}: "
                f"write inputs='{proposal}' with their sizes"
            )
        if not any(i.rate == Rate.INPUT for i in declared):
            raise EquationError(
                "a cell must read an input at each step, as in def step(x, h), and one marked @sequence comes only "
                "once: for a system without inputs declare inputs='x:1', use x in a linear(...), and give it a constant"
            )
        self._refuse_other_first(declared)
        return tuple(declared)

    def _refuse_other_first(self, declared: list[Input]) -> None:
        first = declared[0]
        if first.rate != Rate.INPUT:
            raise EquationError(
                f"the first input must come at each step, from the layer below, but {first.name!r} comes once per "
                f"sequence: write it after the others in inputs={self.inputs_text!r}"
            )
        other = next((i.name for i in declared if i.size == ("I",)), None)
        if first.size != ("I",) and other is not None:
            raise EquationError(
                f"size I is that of the first input, but {first.name!r} is {show_size(first.size)} and {other!r} is I: "
                f"write {other!r} first in inputs={self.inputs_text!r}, or give it another letter"
            )

    def _input(self, token: str, index: int) -> Input:
        match = HEADER.fullmatch(token)
        if match is None or match["array"] or match["start"] or match["rate"] not in (None, "sequence"):
            raise EquationError(f"inputs={self.inputs_text!r}: {token!r} must be NAME[:SIZE][@sequence]")
        if match["size"] is None and index:
            raise EquationError(f"input {match['name']!r} has no size, which only the first may omit: write {token}:1")
        rate = Rate.SEQUENCE if match["rate"] else Rate.INPUT
        return Input(check_name(match["name"], "the name of an input"), parse_size(match["size"] or "I"), rate)

    def _finish(self, inputs: tuple[Input, ...], returned: Any) -> Graph:
        items = list(returned) if isinstance(returned, tuple) else [returned]
        separate = self.output_name is not None and self.output_name not in [s.name for s in self.states]
        wanted = [self.output_name or ""] * separate + list(self.groups)
        self._refuse_other_results(returned, items, wanted)
        new = self._new_states(items[separate:])
        output_name = check_name(self.output_name or self.states[0].name, "the name of an output")
        if output_name in [i.name for i in inputs]:
            raise EquationError(f"output={output_name!r} is the name of an input: choose another")
        output = lift(items[0]) if separate else new[output_name]
        name_results(self.tracer, new)
        if separate and not output.is_leaf and not any(output is v for v in new.values()):
            self.tracer.rename(output, output_name)
        return self._checked(inputs, output, output_name, new)

    def _refuse_other_results(self, returned: Any, items: list[Any], wanted: list[str]) -> None:
        arrays = [isinstance(self.groups.get(name), list) for name in wanted]
        odd = [i for i, a in zip(items, arrays, strict=False) if not a and isinstance(i, list | tuple | dict | None)]
        if len(items) == len(wanted) and not odd:
            return
        found = f"{len(items)} values" if isinstance(returned, tuple) and not odd else shown(returned)
        more = "" if self.output_name else "; for an output that is no state, name it in the header, as in output='y'"
        raise EquationError(
            f"the function must return its new states one by one, got {found}: end it with return {', '.join(wanted)}"
            + more * (len(items) == len(wanted) + 1)
        )

    def _new_states(self, items: list[Any]) -> dict[str, Value]:
        flat: list[Any] = []
        for (group, names), item in zip(self.groups.items(), items, strict=True):
            if isinstance(names, list) and (not isinstance(item, list | tuple) or len(item) != len(names)):
                raise EquationError(
                    f"state {group!r} is an array: return a list of {len(names)} values for it, got {shown(item)}"
                )
            flat += list(item) if isinstance(names, list) else [item]
        return {s.name: self._new_state(s, item) for s, item in zip(self.states, flat, strict=True)}

    def _new_state(self, state: StateVariable, item: Any) -> Value:
        value = lift(item)
        if value.name != state.name and value.name in self.groups and not value.is_leaf:
            raise EquationError(
                f"expected the new value of state {state.name!r}, got {value.name!r}: "
                f"return the new states in the order of the header, {', '.join(self.groups)}"
            )
        if value.size not in (state.size, SCALAR):
            raise EquationError(
                f"state {state.name!r} has size {show_size(state.size)}, but its new value {show_size(value.size)}: "
                "declare its size in the header, as in states='h:P', or return a value of that size"
            )
        return value

    def _checked(self, inputs: tuple[Input, ...], output: Value, output_name: str, new: dict[str, Value]) -> Graph:
        graph = Graph(
            name=self.name,
            source=self.source,
            doc=inspect.cleandoc(self.function.__doc__ or ""),
            options=self.options,
            symbols=self.symbols,
            inputs=inputs,
            states=tuple(self.states),
            output=output,
            output_name=output_name,
            new=new,
            weights=dict(self.tracer.weights),
            inits=dict(self.tracer.inits),
        )
        floats = {name for name, value in self.options.items() if isinstance(value, float)}
        settle_names(self.tracer, graph, {*graph.weights, *(i.name for i in inputs), *floats})
        name_nets(graph.values)
        read_legends(self.tracer, graph.values)
        verify(graph)
        verify_reads(graph)
        verify_derivatives(graph)
        return graph
