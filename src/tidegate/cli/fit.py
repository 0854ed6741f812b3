"""`tidegate fit forecast`: fits a forecaster to a table, judges it, and writes forecast and report."""

import contextlib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidegate.config import ForecastConfig, Options, ReadingOptions
from tidegate.errors import ArgumentError, TidegateError
from tidegate.files import printable, to_json

if TYPE_CHECKING:
    from tidegate.equations import Cell
    from tidegate.tasks.forecast import Forecaster
    from tidegate.training import RunFolder


REPORT = "report.html"
RESUME = (
    "Continue the run of this command where it was interrupted: that in --out, or else the last one under runs/. Where "
    "there is none, a new one begins."
)


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    fit = typer.Typer(help="Train a model on a file and judge it.", no_args_is_help=True)
    command = with_options(forecast, ForecastConfig, "FILE", "A CSV, TSV or Parquet file.", resume=RESUME)
    fit.command("forecast")(command)
    app.add_typer(fit, name="fit")


def with_options(
    verb: Callable[..., None], config: type[Options], name: str, help: str, **flags: str
) -> Callable[..., None]:
    """The verb with the argument `name`, an option for each field of a config, its description being the help, and
    flags with their helps.

    Every option is taken as text, so that the config alone decides what is right and says so in one sentence.
    """

    def command(**given: Any) -> None:
        verb(given.pop("file"), as_json=given.pop("as_json"), **given)

    fields = sorted(config.model_fields, key=lambda name: _rank(config, name))
    annotations = {
        "file": Annotated[str, typer.Argument(metavar=name, help=help)],
        **{name: Annotated[_taken_as(config, name), _option(config, name)] for name in fields},
        **{name: Annotated[bool, typer.Option(f"--{name}", help=text)] for name, text in flags.items()},
        "as_json": Annotated[bool, typer.Option("--json", help="Print JSON.")],
    }
    off = dict.fromkeys([*flags, "as_json"], False)
    defaults = dict.fromkeys(annotations, None) | {"file": inspect.Parameter.empty} | off
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
        for name, annotation in annotations.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = annotations
    command.__doc__ = verb.__doc__
    return command


def _taken_as(config: type[Options], name: str) -> Any:
    """What the command line takes: text, but nothing for what is off unless it is named."""
    field = config.model_fields[name]
    return bool | None if field.annotation is bool and field.default is False else str | None


def _rank(config: type[Options], name: str) -> int:
    """Columns come first in the help, then how they are read, the verb's own options, and those of what it makes."""
    groups = ReadingOptions.__annotations__, ReadingOptions.model_fields, config.__annotations__
    return next((rank for rank, group in enumerate(groups) if name in group), len(groups))


def _option(config: type[Options], name: str) -> Any:
    field = config.model_fields[name]
    if field.is_required():
        note = " Required."
    elif field.default in (None, (), False):
        note = ""
    else:
        shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        note = f" [default: {shown:g}s]" if name == "budget" else f" [default: {shown}]"
    return typer.Option(f"--{name.replace('_', '-')}", help=f"{field.description}{note}", show_default=False)


def forecast(file: str, *, as_json: bool, resume: bool, **given: Any) -> None:
    """Forecast a column of a file by a recurrent net, judged beside naive forecasts on a held-out part.

    Writes a folder with the model, the report and the record of the run, and prints the verdict.
    """
    with _interruptible():
        config = ForecastConfig.make(**given)
        cell = load_cell(config.cell)

        from tidegate.models import load
        from tidegate.tasks.forecast import Forecaster

        folder = _run_folder(file, config, resume)
        forecaster = Forecaster(**{**config.options().model_dump(), "cell": cell})
        with _kept(folder), folder:
            if folder.completed:
                forecaster = load(folder.path / "model")
            else:
                _fit(forecaster, file, config, folder)
            typer.echo(_as_json(forecaster, folder) if as_json else _as_text(forecaster, folder))


def _run_folder(file: str, config: ForecastConfig, resume: bool) -> "RunFolder":
    from tidegate.training import RunFolder

    record = {"task": "forecast", "file": str(Path(file).resolve()), "data": _digest(Path(file))}
    record |= config.model_dump(mode="json")
    if config.out:
        return RunFolder(Path(config.out), record, resume=resume)
    return RunFolder.numbered(Path(file).name.split(".")[0] or "run", record, resume=resume)


def _fit(forecaster: "Forecaster", file: str, config: ForecastConfig, folder: "RunFolder") -> None:
    """Train, or continue training, and write model and report."""
    from tidegate.models import save
    from tidegate.training.progress import TerminalProgress

    with TerminalProgress() as progress:
        forecaster.fit(
            file,
            config.target,
            **config.reading(),
            listeners=[folder, progress],
            checkpoint=folder.checkpoint,
            resume=folder.resume,
        )
    save(forecaster, folder.path / "model")
    forecaster.write_report(folder.path / REPORT)
    folder.complete()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """End with exit code 130 at Ctrl-C, after a sentence."""
    try:
        yield
    except KeyboardInterrupt as error:
        told = str(error) or "There is no checkpoint yet: the same command begins anew."
        typer.echo(f"tidegate: Interrupted. {told}", err=True)
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _kept(folder: "RunFolder") -> Iterator[None]:
    """Let Ctrl-C say what was kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{printable(str(folder.path))} is kept: the same command with --resume continues it."
        raise KeyboardInterrupt(kept if folder.checkpoint.exists() else "") from None


def _digest(file: Path) -> str:
    """A hash of the data, which says whether a run can be continued; "" where the file cannot be read."""
    with contextlib.suppress(OSError), file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
    return ""


def load_cell(text: str) -> "Cell | str":
    """The cell that the text names: a name as it is, or NAME of FILE.py, which is run."""
    path, colon, name = text.rpartition(":")
    if not colon or not path.endswith(".py"):
        return text
    from tidegate.equations import Cell

    found = getattr(_run_file(Path(path)), name, None)
    if not isinstance(found, Cell):
        what = "nothing" if found is None else type(found).__name__
        raise ArgumentError(f"{path}: '{name}' must be a function decorated with @cell, got {what}.")
    return found


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise ArgumentError(f"There is no file {path}. Give FILE.py:NAME, the file and the cell's name in it.")
    spec = importlib.util.spec_from_file_location(f"_cell_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except TidegateError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ArgumentError(f"{path} cannot be run ({reason}). Expected a Python file that defines a cell.") from error
    return module


def _as_text(forecaster: "Forecaster", folder: "RunFolder") -> str:
    notes = (f"note: {note}" for note in forecaster.notes)
    lines = forecaster.verdict, *notes, f"report: {folder.path / REPORT}", f"run: {folder.path}"
    return "\n".join(map(printable, lines))


def _as_json(forecaster: "Forecaster", folder: "RunFolder") -> str:
    result = {
        "verdict": forecaster.verdict,
        "notes": list(forecaster.notes),
        "evaluation": forecaster.evaluation.to_json(),
        "training": forecaster.history.to_json()["finished"],
        "forecast": forecaster.predict().to_json(),
        "run": str(folder.path),
        "report": str(folder.path / REPORT),
    }
    return to_json(result, indent=2)
