"""`tidegate report`: the report of a run, written again."""

from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.predict import load_forecaster
from tidegate.files import printable


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("report")(report)


def report(
    run: Annotated[str, typer.Argument(help="The folder that `tidegate fit forecast` wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers of the report as JSON.")] = False,
) -> None:
    """Write report.html and report.json into the run's folder once more, and say where they are."""
    page = load_forecaster(Path(run)).write_report(Path(run) / "report.html")
    typer.echo(page.with_suffix(".json").read_text("utf-8") if as_json else printable(f"report: {page}"))
