"""`tidegate experiments`: published experiments run again, ours beside the published figure."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.errors import ArgumentError

if TYPE_CHECKING:
    from rich.progress import Progress

    from tidegate.experiments.run import LeftOut, Options, Planned
    from tidegate.experiments.runs import Run


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("experiments")(experiments)


def experiments(
    name: Annotated[list[str] | None, typer.Argument(help="Experiments; all of them unless given.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of each configuration, in place of its own number.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small configurations: about a minute for all.")] = False,
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
    """Run published experiments again, several seeds in parallel, and print ours beside the published figure."""
    from tidegate.experiments.run import Options
    from tidegate.experiments.runs import merged, read, write

    if page is not None and json is None:
        raise ArgumentError("--page is made from runs: say with --json where they are kept")
    if redraw and page is None:
        raise ArgumentError("--redraw writes a page and runs nothing: say with --page which")
    if page is not None and quick:
        raise ArgumentError("--page shows whole experiments, and --quick runs small ones: omit one of them")
    old = read(json) if json is not None and page is not None and (redraw or json.exists()) else []
    options = Options(tuple(name or ()), seeds, quick, out, data, processes, only_kept)
    runs = merged(old, [] if redraw else show(options))
    if json is not None and page is not None:
        from tidegate.experiments.page import write_page

        write_page(page, json, runs)
    elif json is not None:
        write(json, runs)


def show(options: "Options") -> "list[Run]":
    """Run, with progress on stderr, then print a table an experiment. Returns the runs."""
    from tidegate.experiments.run import chosen, run
    from tidegate.experiments.runs import Run
    from tidegate.experiments.summary import summaries, table

    with progress() as bar:
        runs = [event for event in told(run(options), bar) if isinstance(event, Run)]
    for experiment in chosen(options.names):
        found = summaries(experiment, runs)
        if found:
            typer.echo("\n".join([f"{experiment.title}: {experiment.source}", *table(found), ""]))
    return runs


@contextmanager
def progress() -> "Iterator[Progress]":
    """A line on stderr that moves where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar


def told(events: "Iterable[Planned | LeftOut | Run]", bar: "Progress") -> "Iterator[Planned | LeftOut | Run]":
    """The same events, each told on stderr."""
    from tidegate.experiments.run import LeftOut, Planned

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
