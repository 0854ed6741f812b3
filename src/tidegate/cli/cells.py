"""`tidegate cells`: lists cells, searches them, and shows the equations of one."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidegate.errors import ArgumentError
from tidegate.files import to_json

if TYPE_CHECKING:
    from tidegate.equations import Cell, Input, StateVariable

_COLUMNS = ("name", "states", "inputs", "linears", "source")
_FOUND = ("name", "source", "found")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("cells")(cells)


def cells(
    name: Annotated[str | None, typer.Argument(help="A cell to show whole.")] = None,
    search: Annotated[str | None, typer.Option(metavar="WORD", help="List the cells that match a word.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the cells, those that match a word, or show the equations of one.

    With a NAME: its formulas as text and LaTeX, its weights with sizes and initial values, options and legends. A WORD
    may be in a name, a source, an option, a comment or the glossary, in English or Chinese, with synonyms.
    """
    from tidegate.cells import CELLS, get

    if name is not None and search is not None:
        raise ArgumentError(f"a name and --search exclude each other: omit {name!r} or --search {search!r}")
    if search is not None:
        rows = found(search, CELLS)
        typer.echo(as_data(rows) if as_json else table([r | {"found": "; ".join(r["found"])} for r in rows], _FOUND))
    elif name is None:
        rows = [summary(cell) for cell in CELLS.values()]
        typer.echo(as_data(rows) if as_json else table(rows))
    else:
        typer.echo(as_data(details(get(name))) if as_json else page(get(name)))


def summary(cell: "Cell") -> dict[str, Any]:
    """What the list says of a cell."""
    return {
        "name": cell.name,
        "states": _sized(cell.graph.states),
        "inputs": _sized(cell.graph.inputs),
        "linears": sum(v.op == "linear" for v in cell.graph.values),
        "source": cell.source,
    }


def found(word: str, cells: "Mapping[str, Cell]") -> list[dict[str, Any]]:
    """The cells that a word finds, and where it was found."""
    from tidegate.cells.search import find

    return [summary(cells[name]) | {"found": places} for name, places in find(word, cells).items()]


def details(cell: "Cell") -> dict[str, Any]:
    """Everything about a cell that can be read: formulas as text and LaTeX, weights, options, legends."""
    from tidegate.equations.formats.text import expression, option_text
    from tidegate.equations.values import show_size

    graph = cell.graph
    return summary(cell) | {
        "options": {option: option_text(value) for option, value in cell.options.items()},
        "weights": [
            {"name": w, "size": show_size(v.size), "learn": v.attrs["learn"], "start": expression(graph.inits[w])}
            for w, v in graph.weights.items()
        ],
        "formulas": {label: expression(value, top=True) for label, value in graph.named.items()},
        "legends": {label: v.legend for label, v in graph.named.items() if v.legend and not label.endswith(".net")},
        "latex": cell.latex(),
        "text": cell.print(),
    }


def page(cell: "Cell") -> str:
    """A cell for people: the printed graph, then the formulas in LaTeX."""
    return f"{cell.print().rstrip()}\n\nLaTeX\n{cell.latex().rstrip()}"


def table(rows: list[dict[str, Any]], columns: tuple[str, ...] = _COLUMNS) -> str:
    """Rows below their headings, each column as wide as its longest entry."""
    lines = [columns, *(tuple(str(row[column]) for column in columns) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def as_data(found: object) -> str:
    """JSON for other programs."""
    return to_json(found, indent=2)


def _sized(items: Iterable["Input | StateVariable"]) -> str:
    from tidegate.equations.values import show_size

    return " ".join(f"{item.name}:{show_size(item.size)}" for item in items)
