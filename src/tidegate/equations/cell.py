"""`@cell`: turns a function that states equations into a Cell."""

import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.equations.formats.diagram.step import step_diagram
from tidegate.equations.formats.from_json import graph_from_json
from tidegate.equations.formats.latex import latex
from tidegate.equations.formats.text import option_text, print_graph
from tidegate.equations.formats.to_json import graph_to_json, with_options
from tidegate.equations.graph import Graph
from tidegate.equations.names import check_identifier
from tidegate.equations.reading import complain, read
from tidegate.equations.values import fail, finite, listener, shown
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
        """The options and their values."""
        return self.graph.options

    def __call__(self, **options: Any) -> "Cell":
        """The same cell with these options changed."""
        chosen = dict(self.options)
        for name, value in options.items():
            if name not in chosen:
                known = ", ".join(chosen) or "none"
                raise EquationError(f"cell {self.name!r} has no option {name!r}; its options are: {known}")
            chosen[name] = _checked_option(self.name, name, _plain(value), chosen[name])
        return Cell(self._define(chosen), self._define)

    def __deepcopy__(self, memo: object) -> "Cell":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Cell.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={option_text(v)}" for k, v in self.options.items())
        return f"Cell({self.name}{': ' + options if options else ''})"

    def print(self) -> str:
        """The graph as text, one line per value."""
        return print_graph(self.graph)

    def latex(self) -> str:
        """The cell's formulas, as the rows of a LaTeX `aligned` block."""
        return latex(self.graph)

    def diagram(self) -> str:
        """A drawing of one step, as SVG."""
        return step_diagram(self.graph)

    def to_json(self) -> dict[str, Any]:
        """The equations as plain data; `Cell.from_json` reads them back without running code."""
        return graph_to_json(self.graph)

    @classmethod
    def from_json(cls, data: object) -> "Cell":
        """Read a cell from what `to_json` returned. Raises EquationError if the data is not a valid graph."""
        graph = graph_from_json(data)
        return cls(graph, lambda options: with_options(graph, options))


def _checked_option(cell: str, name: str, value: Any, present: Any) -> Any:
    if isinstance(present, float):
        number = finite(value)
        if number is None:
            raise EquationError(f"option {name!r} of cell {cell!r} must be a finite number, got {shown(value)}")
        return number
    if isinstance(present, bool | int) and type(value) is not type(present):
        wanted = "True or False" if isinstance(present, bool) else "a whole number"
        raise EquationError(f"option {name!r} of cell {cell!r} must be {wanted}, got {shown(value)}")
    if inspect.isfunction(present) and value is not None and not callable(value):
        raise EquationError(
            f"option {name!r} of cell {cell!r} must be a function of the language, such as tanh, got {shown(value)}"
        )
    return value


def _plain(option: Any) -> Any:
    """Convert numpy numbers to Python's own."""
    if isinstance(option, numbers.Number) and callable(getattr(option, "item", None)):
        return option.item()  # type: ignore[attr-defined]
    return option


def cell(
    *misplaced: object,
    states: str | None = None,
    inputs: str | None = None,
    output: str | None = None,
    source: str = "",
    symbols: Any = None,
) -> Callable[[Callable[..., Any]], Cell]:
    r"""Make a cell from a function that states its equations.

    `states="h c | m=-1e9"` names the states in the order of the state, as NAME[:SIZE][*OPTION][=START], bookkeeping
    states right of the bar; `inputs="x dt:1"` the inputs, as NAME[:SIZE][@sequence], the first of size I unless
    declared; `output` is a state (the first unless declared) or a new name, and then the function returns the output
    first. `source` is the paper, if there is one. `symbols={"log_f": r"\log f"}` overrides how names print in
    formulas. Keyword-only parameters are the cell's options. Raises EquationError, with file and line, where the
    equations are not sound.
    """

    _refuse_bare(misplaced, states)

    def decorate(function: Callable[..., Any]) -> Cell:
        _refuse_other_than_functions(function)
        _refuse_header(function, states=states, inputs=inputs or "", output=output or "", source=source)
        _refuse_symbols(function, symbols or {})
        header = (str(states), inputs, output, source, dict(symbols or {}))
        options = {
            p.name: _plain(p.default)
            for p in inspect.signature(function).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }

        def define(chosen: Mapping[str, Any]) -> Graph:
            return read(function, header, dict(chosen))

        _refuse_options(function, options)
        return Cell(define(options), define)

    if listener.get() is not None:
        fail("a cell's equations cannot define another cell: move the inner @cell out of them")
    return decorate


def _refuse_bare(misplaced: tuple[object, ...], states: object) -> None:
    form = "write @cell(states='h') above the function"
    if misplaced:
        function = misplaced[0]
        said = f"@cell takes its header by keyword, got {shown(function)}: {form}"
        if len(misplaced) == 1 and inspect.isfunction(function):
            complain(function, f"@cell needs a header: {form}")
        raise EquationError(said)
    if states is None:
        raise EquationError(f"@cell(...) needs states=: {form}")


def _refuse_other_than_functions(function: object) -> None:
    step_by_step = inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function)
    if step_by_step or not inspect.isfunction(function) or function.__name__ == "<lambda>":
        fail(f"@cell takes a function defined with def, without yield and async, got {shown(function)}")


def _refuse_header(function: Callable[..., Any], **texts: object) -> None:
    for word, text in texts.items():
        if not isinstance(text, str):
            complain(function, f"{word}= must be a string, got {shown(text)}: write {word}='...'")


def _refuse_symbols(function: Callable[..., Any], symbols: object) -> None:
    if not isinstance(symbols, Mapping) or not all(isinstance(t, str) for pair in symbols.items() for t in pair):
        complain(function, f"symbols= must map names to LaTeX, as in {{'log_f': r'\\log f'}}, got {shown(symbols)}")


def _refuse_options(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    for name, default in options.items():
        check_identifier(name, "an option")
        if default is inspect.Parameter.empty:
            complain(function, f"option {name!r} has no default: write {name}=... in the function's header")
        if isinstance(default, float) and finite(default) is None:
            complain(function, f"option {name!r} must be a finite number such as 1e9, got {default}")
