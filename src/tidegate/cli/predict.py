"""`tidegate predict`: a fitted run forecasts, from the end of its own data or from that of a new file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.errors import ArgumentError

if TYPE_CHECKING:
    from tidegate.tasks.forecast import Forecaster


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("predict")(predict)


def predict(
    run: Annotated[str, typer.Argument(help="The folder that `tidegate fit forecast` wrote.")],
    file: Annotated[str | None, typer.Argument(help="New rows; without it the forecast goes on from the fit.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Write a CSV file instead of printing it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forecast the next steps, as quantiles."""
    forecaster = load_forecaster(Path(run))
    if out is not None and Path(out).exists():
        raise ArgumentError(f"The file {out} exists already and is not overwritten. Give another name.")
    forecast = forecaster.predict(file)
    if as_json:
        typer.echo(json.dumps(forecast.to_json(), indent=2, ensure_ascii=False))
    if out is not None:
        from tidegate.files import write_atomic

        write_atomic(Path(out), forecast.to_csv().encode())
    elif not as_json:
        typer.echo(forecast.to_csv(), nl=False)


def load_forecaster(run: Path) -> "Forecaster":
    """The forecaster of a run's folder, or of a model's folder itself."""
    from tidegate.models import load
    from tidegate.tasks.forecast import Forecaster

    folder = run / "model" if (run / "model").is_dir() else run
    if not folder.is_dir():
        raise ArgumentError(f"There is no folder {run}. Give the folder that `tidegate fit forecast` wrote.")
    found = load(folder)
    if not isinstance(found, Forecaster):
        raise ArgumentError(f"{folder} holds a {type(found).__name__}. Expected a run of `tidegate fit forecast`.")
    return found
