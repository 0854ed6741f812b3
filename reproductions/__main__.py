"""`python -m reproductions`: published experiments run again, ours beside the published figure."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reproductions.listing import listing
from reproductions.page import write_page
from reproductions.run import LeftOut, Options, Planned, chosen, run
from reproductions.runs import Run, merged, read, write
from reproductions.summary import summaries, table
from tidegate import cli
from tidegate.errors import ArgumentError


def reproduce(
    name: Annotated[list[str] | None, typer.Argument(help="Experiments; without one they are listed.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Run all experiments: hours.")] = False,
    row: Annotated[list[str] | None, typer.Option(help="Only this row of the tables. May be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only this seed. May be repeated.")] = None,
    seeds: Annotated[int | None, typer.Option(help="So many seeds of each row, in place of its own number.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small rows: about a minute for all.")] = False,
    data: Annotated[Path | None, typer.Option(help="The folder of data files, for experiments that need them.")] = None,
    out: Annotated[Path, typer.Option(help="Keep finished runs here, and find them again.")] = Path("runs/experiments"),
    processes: Annotated[int | None, typer.Option(help="Seeds at a time; as many as cores unless given.")] = None,
    only_kept: Annotated[bool, typer.Option("--kept", help="Run nothing: take what is kept from before.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write all runs to this file.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write this Markdown page, with --json; experiments not run now stay in both.")
    ] = None,
    redraw: Annotated[bool, typer.Option("--redraw", help="Run nothing: write the page from the runs.")] = False,
) -> None:
    """Run published experiments again, several seeds in parallel, and print ours beside the published figure.

    Without a name, list the experiments with their rows, seeds and times.
    """
    options = Options(
        tuple(name or ()), tuple(row or ()), tuple(seed or ()), seeds, quick, out, data, processes, only_kept
    )
    if page is not None and json is None:
        raise ArgumentError("--page is made from runs: say with --json where they are kept")
    if redraw and page is None:
        raise ArgumentError("--redraw writes a page and runs nothing: say with --page which")
    if page is not None and quick:
        raise ArgumentError("--page shows whole experiments, and --quick runs small ones: omit one of them")
    if every and name:
        raise ArgumentError(f"--all runs every experiment, got names as well ({', '.join(name)}): omit one of them")
    if not (name or every or redraw):
        if options != Options(out=out) or json is not None:
            raise ArgumentError("options are for experiments that run: give their names, or --all")
        typer.echo("\n".join(listing()))
        return
    old = read(json) if json is not None and page is not None and (redraw or json.exists()) else []
    runs = merged(old, [] if redraw else show(options))
    if json is not None and page is not None:
        write_page(page, json, runs)
    elif json is not None:
        write(json, runs)


def show(options: Options) -> list[Run]:
    """Run, with progress on stderr, then print a table an experiment. Returns the runs."""
    with progress() as bar:
        runs = [event for event in told(run(options), bar) if isinstance(event, Run)]
    for experiment in chosen(options.names):
        found = summaries(experiment, runs)
        if found:
            typer.echo("\n".join([f"{experiment.title}: {experiment.source}", *table(found), ""]))
    return runs


@contextmanager
def progress() -> Iterator[Progress]:
    """A line on stderr that moves where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar


def told(events: Iterable[Planned | LeftOut | Run], bar: Progress) -> Iterator[Planned | LeftOut | Run]:
    """The same events, each told on stderr."""
    line = bar.add_task("seeds", total=None)
    for event in events:
        if isinstance(event, LeftOut):
            bar.console.print(event.reason, soft_wrap=True, markup=False, highlight=False)
        elif isinstance(event, Planned):
            bar.update(line, total=event.total)
            if event.found:
                bar.console.print(f"{event.found} of {event.total} seeds were kept from before", highlight=False)
        else:
            said = f"{event.experiment}, {event.configuration}, seed {event.seed}: {event.outcome.said}"
            bar.console.print(f"{said}, {event.seconds:,.1f} s", soft_wrap=True, markup=False, highlight=False)
            bar.advance(line)
        yield event


def application() -> typer.Typer:
    """The command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(reproduce)
    return app


if __name__ == "__main__":
    sys.exit(cli.main(application, "python -m reproductions"))
