"""`python -m benchmarks`: how fast this machine runs our layers, beside peers and limits."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import tables
from benchmarks.cases import CASES
from benchmarks.lines import judged
from benchmarks.page import write as write_page
from benchmarks.rows import KEPT, Figures, Result, Row
from benchmarks.run import Begun, Event, LeftOut, Options, as_json, read, run
from tidegate import cli
from tidegate.errors import ArgumentError
from tidegate.files import write_atomic


def bench(
    case: Annotated[list[str] | None, typer.Option(help="A case; all of them unless given. May be repeated.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="A peer; all but torch.compile unless given. May be repeated.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write this Markdown page, with --json; other processors and cases stay in both."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few shapes and short times: within a minute.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Do not measure again with malloc told to keep memory.")] = False,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Measure nothing: write the page from the file of figures.")
    ] = False,
) -> None:
    """Measure the layers against peers and limits, in turn.

    Prints a table and the verdict on each line for a case. Exits with 1 if a result was wrong.
    """
    if page is not None and json is None:
        raise ArgumentError("--page is made from figures: say with --json where they are kept")
    if redraw and page is None:
        raise ArgumentError("--redraw writes a page and measures nothing: say with --page which")
    figures = read(json) if json is not None and page is not None and (redraw or json.exists()) else {}
    options = Options(tuple(case or ()), tuple(peer or ()), quick, page is not None and not quick, not once)
    if redraw:
        write(json, page, figures)
        return
    wrong = False
    for event in run(options):
        show(event)
        if isinstance(event, Result):
            figures.setdefault(event.processor, {})[event.case] = event
            write(json, page, figures)  # after each case: a long run that is ended keeps what it had
            wrong |= any(row.wrong or row.they_are_wrong for row in event.rows)
    if wrong:
        typer.echo("A result was WRONG: its time means nothing.", err=True)
        raise typer.Exit(1)


def show(event: Event) -> None:
    """Print an event."""
    if isinstance(event, Begun):
        machine = f"torch.mm reaches {event.limit / 1e9:.0f} GF/s, load average {tables.load_average(event.load)}"
        typer.echo(f"{event.case}: {CASES[event.case].about} ({machine})\n{tables.heading()}")
    elif isinstance(event, LeftOut):
        typer.echo(event.reason)
    elif isinstance(event, Row):
        typer.echo(tables.line(event) + ("  memory kept" if event.malloc == KEPT else ""))
    else:
        typer.echo("".join(f"{tables.verdict(found)}\n" for found in judged(event.rows)))


def write(json: Path | None, page: Path | None, figures: Figures) -> None:
    """Write the figures where they are wanted, and with a page that and its plots."""
    if json is not None and page is not None:
        write_page(page, json, figures)
    elif json is not None:
        write_atomic(json, as_json(figures).encode())


def application() -> typer.Typer:
    """The command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(bench)
    return app


if __name__ == "__main__":
    sys.exit(cli.main(application, "python -m benchmarks"))
