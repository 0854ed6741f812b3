"""`@cell`: a function of symbols becomes a Cell, read once when it is defined."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from tidegate.equations.diagram import step_diagram
from tidegate.equations.graph import Graph, Input, State
from tidegate.equations.latex import latex
from tidegate.equations.loading import graph_from_json
from tidegate.equations.names import HEADER, check_identifier, check_name, parse_size
from tidegate.equations.printing import option_text, print_graph
from tidegate.equations.serial import graph_to_json, with_options
from tidegate.equations.tracer import Tracer, call_with_symbols, name_nets, name_results, read_legends, settle_names
from tidegate.equations.values import SCALAR, Rate, Value, fail, finite, lift, listener, show_size, shown
from tidegate.equations.verify import MAX_STATES, verify, verify_derivatives, verify_reads
from tidegate.errors import EquationError


class Cell:
    """A recurrent cell: its equations for one step, with its options.

    `cell(option=value)` is the cell with that option changed. `cell.graph` holds the equations as written, from which
    everything else is derived: `print()` as text, `latex()` as formulas, `diagram()` as a drawing, `to_json()` as data.
    """

    def __init__(self, graph: Graph, define: Callable[[Mapping[str, Any]], Graph]) -> None:
        self.graph, self._define = graph, define

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.graph.name

    @property
    def source(self) -> str:
        """The paper that the equations are from."""
        return self.graph.source

    @property
    def options(self) -> Mapping[str, Any]:
        """The options with their present values."""
        return self.graph.options

    def __call__(self, **options: Any) -> Cell:
        """The cell with these options changed."""
        chosen = dict(self.options)
        for name, value in options.items():
            if name not in chosen:
                known = ", ".join(chosen) or "none"
                raise EquationError(f"cell {self.name!r} has no option {name!r}; its options are: {known}")
            chosen[name] = _checked_option(self.name, name, value, chosen[name])
        return Cell(self._define(chosen), self._define)

    def __deepcopy__(self, memo: object) -> Cell:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Cell.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={option_text(v)}" for k, v in self.options.items())
        return f"Cell({self.name}{': ' + options if options else ''})"

    def print(self) -> str:
        """The graph as text, a line for each value."""
        return print_graph(self.graph)

    def latex(self) -> str:
        """The rows of an `aligned` block: the cell's formulas."""
        return latex(self.graph)

    def diagram(self) -> str:
        """One step drawn, as SVG."""
        return step_diagram(self.graph)

    def to_json(self) -> dict[str, Any]:
        """The equations as plain data; `Cell.from_json` reads them back without running code."""
        return graph_to_json(self.graph)

    @classmethod
    def from_json(cls, data: object) -> Cell:
        """A cell from what `to_json` gave. Raises EquationError where the data is not a sound graph."""
        graph = graph_from_json(data)
        return cls(graph, lambda options: with_options(graph, options))


def _checked_option(cell: str, name: str, value: Any, present: Any) -> Any:
    if isinstance(present, float):
        number = finite(value)
        if number is None:
            raise EquationError(f"option {name!r} of cell {cell!r} is a finite number, and {shown(value)} came")
        return number
    if isinstance(present, bool | int) and type(value) is not type(present):
        wanted = "True or False" if isinstance(present, bool) else "a whole number"
        raise EquationError(f"option {name!r} of cell {cell!r} is {wanted}, and {shown(value)} came")
    return value


def cell(
    *, states: str, inputs: str | None = None, output: str | None = None, source: str, symbols: Any = None
) -> Callable[[Callable[..., Any]], Cell]:
    r"""Make a cell of a function that states its equations.

    `states="h c | m=-1e9"` names the states in the order of the state, as NAME[:SIZE][*OPTION][=START], bookkeeping
    states right of the bar; `inputs="x dt:1"` the inputs, as NAME[:SIZE][@sequence], the first of size I unless
    declared; `output` is a state (the first unless declared) or a new name, and then the function returns the output
    first. `source` is the paper. `symbols={"log_f": r"\log f"}` overrides how names print in formulas. Keyword-only
    parameters are the cell's options. Raises EquationError, with file and line, where the equations are not sound.
    """

    def decorate(function: Callable[..., Any]) -> Cell:
        _refuse_other_than_functions(function)
        _refuse_header(function, states=states, inputs=inputs or "", output=output or "", source=source)
        _refuse_symbols(function, symbols or {})
        header = (states, inputs, output, source, dict(symbols or {}))
        options = {
            p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
        }

        def define(chosen: Mapping[str, Any]) -> Graph:
            return _read(function, header, dict(chosen))

        _refuse_options(function, options)
        return Cell(define(options), define)

    if listener.get() is not None:
        fail("@cell inside a cell: a cell's equations cannot define another cell")
    return decorate


def _refuse_other_than_functions(function: object) -> None:
    step_by_step = inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function)
    if step_by_step or not inspect.isfunction(function):
        fail(f"@cell is for a function defined with def, without yield and async, and {shown(function)} came")


def _refuse_header(function: Callable[..., Any], **texts: object) -> None:
    for word, text in texts.items():
        if not isinstance(text, str):
            _complain(function, f"{word}= is a text, and {shown(text)} came: write {word}='...'")


def _refuse_symbols(function: Callable[..., Any], symbols: object) -> None:
    if not isinstance(symbols, Mapping) or not all(isinstance(t, str) for pair in symbols.items() for t in pair):
        _complain(function, f"symbols= gives LaTeX by name, as in {{'log_f': r'\\log f'}}, and {shown(symbols)} came")


def _refuse_options(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    for name, default in options.items():
        check_identifier(name, "an option")
        if default is inspect.Parameter.empty:
            _complain(function, f"option {name!r} has no default: write {name}=... in the function's header")
        if isinstance(default, float) and finite(default) is None:
            _complain(function, f"option {name!r} is {default}: a number must be finite, such as 1e9")


def _complain(function: Callable[..., Any], message: str) -> NoReturn:
    code, prefix = function.__code__, f"cell {function.__name__!r}"
    whole = message if message.startswith(prefix) else f"{prefix}: {message}"
    raise EquationError(whole, file=code.co_filename, line=code.co_firstlineno)


Header = tuple[str, str | None, str | None, str, dict[str, str]]


def _read(function: Callable[..., Any], header: Header, options: dict[str, Any]) -> Graph:
    try:
        return _Reading(function, header, options).graph()
    except EquationError as error:
        if error.file is None:
            _complain(function, str(error))
        raise


class _Reading:
    """One reading of a cell's function with given options."""

    def __init__(self, function: Callable[..., Any], header: Header, options: dict[str, Any]) -> None:
        self.function, self.options = function, options
        self.states_text, self.inputs_text, self.output_name, self.source, self.symbols = header
        self.name = check_name(function.__name__, "the name of a cell")
        self.tracer = Tracer(function.__code__)
        self.groups: dict[str, list[str] | str] = {}  # a state's name -> its array's names, or itself
        self.states: list[State] = []

    def graph(self) -> Graph:
        self._parse_states()
        parameters = self._positional()
        inputs = self._parse_inputs([p for p in parameters if p not in self.groups])
        leaves = {i.name: self.tracer.leaf("input", i.name, i.size, i.rate) for i in inputs}
        old = {s.name: self.tracer.leaf("old", s.name, s.size, Rate.STATE) for s in self.states}
        symbols = {g: [old[n] for n in ns] if isinstance(ns, list) else old[ns] for g, ns in self.groups.items()}
        arguments = [symbols[p] if p in symbols else leaves[p] for p in parameters]
        options = {k: self.tracer.option(k, v) if isinstance(v, float) else v for k, v in self.options.items()}
        returned = call_with_symbols(self.function, self.tracer, arguments, options)
        return self._finish(inputs, returned)

    def _positional(self) -> list[str]:
        names = []
        for p in inspect.signature(self.function).parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                stars = "*" if p.kind is p.VAR_POSITIONAL else "**"
                raise EquationError(f"{stars}{p.name}: a cell names its inputs, states and options one by one")
            if p.kind is not p.KEYWORD_ONLY and p.default is not p.empty:
                raise EquationError(
                    f"parameter {p.name!r} has a default, and inputs and states have none: write options after a star, "
                    f"as in def {self.name}(x, h, *, {p.name}=...)"
                )
            if p.kind is not p.KEYWORD_ONLY:
                names.append(p.name)
        missing = [g for g in self.groups if g not in names]
        if missing:
            raise EquationError(
                f"state {missing[0]!r} of the header is no parameter of the function: its parameters are "
                f"{', '.join(names) or 'none'}; add it there (it is the state before the step), or take it out of "
                "states="
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
            raise EquationError(f"state {twice!r} stands twice in states={self.states_text!r}: rename one of them")

    def _add_state(self, token: str, bookkeeping: bool) -> None:
        match = HEADER.fullmatch(token)
        if match is None or match["rate"]:
            raise EquationError(f"states={self.states_text!r}: {token!r} is not NAME[:SIZE][*OPTION][=START]")
        name, size, start = match["name"], parse_size(match["size"] or "H"), self._start(token, match["start"])
        count = self._array_length(match["array"]) if match["array"] else None
        names = [name] if count is None else [f"{name}{k}" for k in range(count)]
        self.groups[name] = name if count is None else names
        self.states += [State(check_name(n, "the name of a state"), size, start, bookkeeping) for n in names]

    def _start(self, token: str, text: str | None) -> float:
        try:
            value = float(text or 0.0)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise EquationError(f"state {token!r}: a start is a finite number (0 times infinity is NaN), such as -1e9")
        return value

    def _array_length(self, text: str) -> int:
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
                f"the parameters that are no state are {parameters}, and the header declares the inputs {names}: "
                f"write inputs='{proposal}' with their sizes"
            )
        if not any(i.rate == Rate.INPUT for i in declared):
            raise EquationError(
                "no input comes at each step: a recurrent cell reads at least one, as in def step(x, h), and @sequence "
                "marks what comes once a sequence"
            )
        return tuple(declared)

    def _input(self, token: str, index: int) -> Input:
        match = HEADER.fullmatch(token)
        if match is None or match["array"] or match["start"] or match["rate"] not in (None, "sequence"):
            raise EquationError(f"inputs={self.inputs_text!r}: {token!r} is not NAME[:SIZE][@sequence]")
        if match["size"] is None and index:
            raise EquationError(
                f"input {match['name']!r} has no size: only the first may leave it out; write {token}:1"
            )
        rate = Rate.SEQUENCE if match["rate"] else Rate.INPUT
        return Input(check_name(match["name"], "the name of an input"), parse_size(match["size"] or "I"), rate)

    def _finish(self, inputs: tuple[Input, ...], returned: Any) -> Graph:
        items = list(returned) if isinstance(returned, tuple) else [returned]
        separate = self.output_name is not None and self.output_name not in [s.name for s in self.states]
        wanted = [self.output_name or ""] * separate + list(self.groups)
        if len(items) != len(wanted):
            came = f"{len(items)} values" if isinstance(returned, tuple) else f"one value, {shown(returned)}"
            raise EquationError(f"the function returns {came}; write: return {', '.join(wanted)}")
        new = self._new_states(items[separate:])
        output_name = check_name(self.output_name or self.states[0].name, "the name of an output")
        if output_name in [i.name for i in inputs]:
            raise EquationError(f"output={output_name!r} is the name of an input: choose another")
        output = lift(items[0]) if separate else new[output_name]
        name_results(self.tracer, new)
        if separate and not output.is_leaf and not any(output is v for v in new.values()):
            self.tracer.rename(output, output_name)
        return self._checked(inputs, output, output_name, new)

    def _new_states(self, items: list[Any]) -> dict[str, Value]:
        flat: list[Any] = []
        for (group, names), item in zip(self.groups.items(), items, strict=True):
            if isinstance(names, list) and (not isinstance(item, list | tuple) or len(item) != len(names)):
                raise EquationError(
                    f"state {group!r} is an array of {len(names)}, and {shown(item)} is returned in its place: return "
                    f"a list of {len(names)} values"
                )
            flat += list(item) if isinstance(names, list) else [item]
        return {s.name: self._new_state(s, item) for s, item in zip(self.states, flat, strict=True)}

    def _new_state(self, state: State, item: Any) -> Value:
        value = lift(item)
        if value.name != state.name and value.name in self.groups and not value.is_leaf:
            raise EquationError(
                f"{value.name!r} is returned where state {state.name!r} is expected: "
                f"return the new states in the order of the header, {', '.join(self.groups)}"
            )
        if value.size not in (state.size, SCALAR):
            raise EquationError(
                f"state {state.name!r} is {show_size(state.size)}, and its new value is {show_size(value.size)}: "
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
