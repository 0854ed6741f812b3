"""`tidegate predict`: a fitted run forecasts, from the end of its own data or from that of a new file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.config import SpellingOptions
from tidegate.errors import ArgumentError
from tidegate.files import printable, to_json, write_atomic

if TYPE_CHECKING:
    from tidegate.tasks.forecast import Forecaster


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("predict")(predict)


def predict(
    run: Annotated[str, typer.Argument(help="The folder that `tidegate fit forecast` wrote.")],
    file: Annotated[str | None, typer.Argument(help="New rows; without it the forecast goes on from the fit.")] = None,
    future: Annotated[
        str | None, typer.Option("--future", help="A file of the columns known in advance, for the steps ahead.")
    ] = None,
    digits: Annotated[
        int | None, typer.Option("--digits", min=0, max=15, help="Round to so many decimal places.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="Write a CSV file instead of printing it.")] = None,
    decimal: Annotated[str | None, typer.Option("--decimal", help="The decimal mark of the file's numbers.")] = None,
    encoding: Annotated[str | None, typer.Option("--encoding", help="The encoding of a text file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forecast the next steps, as quantiles."""
    forecaster = load_forecaster(Path(run))
    if out is not None and Path(out).exists():
        raise ArgumentError(f"The file {out} exists already and is not overwritten. Give another name.")
    spelling = SpellingOptions.make(decimal=decimal, encoding=encoding)
    forecast = forecaster.predict(file, future=future, decimal=spelling.decimal, encoding=spelling.encoding)
    if digits is not None:
        forecast = forecast.rounded(digits)
    if as_json:
        typer.echo(to_json(forecast.to_json(), indent=2))
    if out is not None:
        write_atomic(Path(out), forecast.to_csv().encode())
    elif not as_json:
        shown = "\n".join(map(printable, forecast.to_csv().split("\n"))) if sys.stdout.isatty() else forecast.to_csv()
        typer.echo(shown, nl=False, color=True)


def load_forecaster(run: Path) -> "Forecaster":
    """The forecaster of a run's folder, or of a model's folder itself."""
    from tidegate.models import load
    from tidegate.tasks.forecast import Forecaster

    folder = run / "model" if (run / "model").is_dir() else run
    if not folder.is_dir():
        raise ArgumentError(f"There is no folder {run}. Give the folder that `tidegate fit forecast` wrote.")
    found = load(folder)
    if not isinstance(found, Forecaster):
        raise ArgumentError(f"{folder} must be a run of `tidegate fit forecast`, got {type(found).__name__}.")
    return found
