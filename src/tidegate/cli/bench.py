"""`tidegate bench`: how fast this machine runs our layers, beside peers and limits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.errors import ArgumentError
from tidegate.files import write_atomic

if TYPE_CHECKING:
    from tidegate.bench.rows import Result
    from tidegate.bench.run import Event


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("bench")(bench)


def bench(
    case: Annotated[list[str] | None, typer.Option(help="A case; all of them unless given. May be repeated.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="A peer; all but torch.compile unless given. May be repeated.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write this Markdown page, with --json; cases not measured now stay in both.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few shapes and short times: within a minute.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Do not measure again with malloc told to keep memory.")] = False,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Measure nothing: write the page from the file of figures.")
    ] = False,
) -> None:
    """Measure the layers against peers and limits, in turn, in one process.

    Prints a table and the verdict on each line for a case. Exits with 1 if a result was wrong.
    """
    from tidegate.bench.rows import Result
    from tidegate.bench.run import Options, read, run

    if page is not None and json is None:
        raise ArgumentError("--page is made from figures: say with --json where they are kept")
    if redraw and page is None:
        raise ArgumentError("--redraw writes a page and measures nothing: say with --page which")
    results = read(json) if json is not None and page is not None and (redraw or json.exists()) else {}
    options = Options(tuple(case or ()), tuple(peer or ()), quick, page is not None and not quick, not once)
    if redraw:
        write(json, page, results)
        return
    wrong = False
    for event in run(options):
        show(event)
        if isinstance(event, Result):
            results[event.case] = event
            write(json, page, results)  # after each case: a long run that is ended keeps what it had
            wrong |= any(row.wrong or row.they_are_wrong for row in event.rows)
    if wrong:
        typer.echo("A result was WRONG: its time means nothing.", err=True)
        raise typer.Exit(1)


def show(event: "Event") -> None:
    """Print an event."""
    from tidegate.bench import tables
    from tidegate.bench.cases import CASES
    from tidegate.bench.lines import judged
    from tidegate.bench.rows import KEPT, Row
    from tidegate.bench.run import Begun, LeftOut

    if isinstance(event, Begun):
        limit = f"torch.mm reaches {event.limit / 1e9:.0f} GF/s"
        typer.echo(f"{event.case}: {CASES[event.case].about} ({limit})\n{tables.heading()}")
    elif isinstance(event, LeftOut):
        typer.echo(event.reason)
    elif isinstance(event, Row):
        typer.echo(tables.line(event) + ("  memory kept" if event.malloc == KEPT else ""))
    else:
        typer.echo("".join(f"{tables.verdict(found)}\n" for found in judged(event.rows)))


def write(json: Path | None, page: Path | None, results: dict[str, "Result"]) -> None:
    """Write the figures where they are wanted, and with a page that and its plots."""
    from tidegate.bench.run import as_json

    if json is not None and page is not None:
        from tidegate.bench.page import write as write_page

        write_page(page, json, results)
    elif json is not None:
        write_atomic(json, as_json(results).encode())
