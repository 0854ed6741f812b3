"""`tidegate diagnose`: how gradients go through time in the net of a run, as a page and in a few sentences."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.predict import load_forecaster
from tidegate.files import printable, to_json, write_atomic


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("diagnose")(diagnose)


def diagnose(
    run: Annotated[str, typer.Argument(help="The folder that `tidegate fit forecast` wrote.")],
    data: Annotated[
        str | None, typer.Option(help="A file of rows as for `predict`; without it, the end of the fit's data.")
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="A gradient rule to hold beside the exact gradient, as truncated:8,16. May be repeated."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Write into this folder instead of the run's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Write diagnosis.html and diagnosis.json, and say what vanishes, explodes, is saturated or dead."""
    from tidegate import report
    from tidegate.gradients import rule_from_text

    rules = [rule_from_text(text) for text in rule] if rule else None
    forecaster = load_forecaster(Path(run))
    found = forecaster.diagnose(data, rules=rules)
    numbers, page = found.to_json(), Path(out or run) / "diagnosis.html"
    html = report.diagnosis_page(
        numbers,
        title=f"Diagnosis of {Path(run).resolve().name}",
        subtitle=f"{', '.join(found.cells)}: {found.rows} x {found.steps} steps of {data or 'the data of the fit'}",
        footer=f"Written by Tidegate {version('tidegate')}.",
    )
    text = to_json(numbers, indent=2)
    write_atomic(page.with_suffix(".json"), text.encode())
    write_atomic(page, html.encode())
    typer.echo(text if as_json else "\n".join([*found.sentences, printable(f"report: {page}")]))
