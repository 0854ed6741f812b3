"""`@cell`: a function of symbols becomes a Cell, read once when it is defined."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.equations.graph import Graph, Input, Rate, Size, State, Value, fail, join, lift, listener, show_size
from tidegate.equations.names import HEADER, check_name, parse_size
from tidegate.equations.tracer import Tracer, call_with_symbols, name_nets, read_legends, settle_names
from tidegate.equations.verify import verify, verify_derivatives, verify_reads
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
                known = ", ".join(chosen) or "no options"
                raise EquationError(f"cell {self.name!r} has no option {name!r}; it has {known}")
            chosen[name] = _checked_option(self.name, name, value, chosen[name])
        return Cell(self._define(chosen), self._define)

    def __deepcopy__(self, memo: object) -> Cell:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Cell.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={_option_text(v)}" for k, v in self.options.items())
        return f"Cell({self.name}{': ' + options if options else ''})"

    def print(self) -> str:
        """The graph as text, a line for each value."""
        from tidegate.equations.printing import print_graph

        return print_graph(self.graph)

    def latex(self) -> str:
        """The rows of an `aligned` block: the cell's formulas."""
        from tidegate.equations.latex import latex

        return latex(self.graph)

    def diagram(self) -> str:
        """One step drawn, as SVG."""
        from tidegate.equations.diagram import step_diagram

        return step_diagram(self.graph)

    def to_json(self) -> dict[str, Any]:
        """The equations as plain data; `Cell.from_json` reads them back without running code."""
        from tidegate.equations.serial import graph_to_json

        return graph_to_json(self.graph)

    @classmethod
    def from_json(cls, data: object) -> Cell:
        """A cell from what `to_json` gave. Raises EquationError where the data is not a sound graph."""
        from tidegate.equations.serial import graph_from_json, with_options

        graph = graph_from_json(data)
        return cls(graph, lambda options: with_options(graph, options))


def _option_text(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


def _checked_option(cell: str, name: str, value: Any, present: Any) -> Any:
    if isinstance(present, float):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise EquationError(f"option {name!r} of cell {cell!r} is a finite number, and {value!r} came")
        return float(value)
    if isinstance(present, bool | int) and type(value) is not type(present):
        wanted = "True or False" if isinstance(present, bool) else "a whole number"
        raise EquationError(f"option {name!r} of cell {cell!r} is {wanted}, and {value!r} came")
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
        header = (states, inputs, output, source, dict(symbols or {}))
        options = {
            p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
        }

        def define(chosen: Mapping[str, Any]) -> Graph:
            return _read(function, header, dict(chosen))

        _refuse_missing_defaults(function, options)
        return Cell(define(options), define)

    if listener.get() is not None:
        fail("@cell inside a cell: a cell's equations cannot define another cell")
    return decorate


def _refuse_missing_defaults(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    for name, default in options.items():
        if default is inspect.Parameter.empty:
            _complain(function, f"option {name!r} has no default: write {name}=... in the function's header")


def _complain(function: Callable[..., Any], message: str) -> None:
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
                raise EquationError(f"*{p.name}: a cell names its inputs, states and options one by one")
            if p.kind is not p.KEYWORD_ONLY:
                names.append(p.name)
        missing = [g for g in self.groups if g not in names]
        if missing:
            raise EquationError(f"state {missing[0]!r} of the header is no parameter: the parameters are {names}")
        return names

    def _parse_states(self) -> None:
        plain, _, bookkeeping = self.states_text.partition("|")
        for text, kept in ((plain, False), (bookkeeping, True)):
            for token in text.split():
                self._add_state(token, kept)
        if not self.states:
            raise EquationError("states='' names no state: a recurrent cell carries at least one")
        names = [s.name for s in self.states]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice:
            raise EquationError(f"state {twice!r} is named twice in states={self.states_text!r}")

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
        count = int(text) if text.isdigit() else self.options.get(text)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise EquationError(
                f"'*{text}' in states={self.states_text!r} must be an option that is a whole number >= 1"
            )
        return count

    def _parse_inputs(self, parameters: list[str]) -> tuple[Input, ...]:
        declared = [self._input(token, k) for k, token in enumerate((self.inputs_text or "").split())]
        if self.inputs_text is None and len(parameters) == 1:
            declared = [Input(parameters[0], ("I",))]
        names = [i.name for i in declared]
        if sorted(names) != sorted(parameters):
            raise EquationError(
                f"the parameters that are no state are {parameters}, and the header declares the inputs {names}: "
                f"write inputs='{' '.join(p if k == 0 else p + ':1' for k, p in enumerate(parameters))}' with their sizes"
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
            raise EquationError(
                f"the function returns {len(items)} values, and these were expected: {', '.join(wanted)}"
            )
        new = self._new_states(items[separate:])
        output_name = self.output_name or self.states[0].name
        output = lift(items[0]) if separate else new[output_name]
        settle_names(self.tracer, new)
        if separate and not output.is_leaf and not any(output is v for v in new.values()):
            self.tracer.rename(output, check_name(output_name, "the name of an output"))
        return self._checked(inputs, output, output_name, new)

    def _new_states(self, items: list[Any]) -> dict[str, Value]:
        flat: list[Any] = []
        for (group, names), item in zip(self.groups.items(), items, strict=True):
            if isinstance(names, list) and (not isinstance(item, list | tuple) or len(item) != len(names)):
                raise EquationError(
                    f"state {group!r} is an array of {len(names)}: return a list of {len(names)} values"
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
        if join(state.size, value.size) != state.size:
            raise EquationError(
                f"state {state.name!r} is {show_size(state.size)}, its new value {show_size(value.size)}"
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
        name_nets(graph.values)
        read_legends(graph.values)
        verify(graph)
        verify_reads(graph)
        verify_derivatives(graph)
        return graph
