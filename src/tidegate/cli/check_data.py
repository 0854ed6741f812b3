"""`tidegate check-data`: says what a table holds and how `fit forecast` would read it, before anything is trained."""

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from tidegate.cli.fit import with_options
from tidegate.config import CheckConfig
from tidegate.files import printable, to_json

if TYPE_CHECKING:
    from tidegate.data import TableCheck

_SHOWN = 10  # series, and values in doubt


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("check-data")(with_options(check_data, CheckConfig, "FILE", "A CSV, TSV or Parquet file."))


def check_data(file: str, *, as_json: bool, **given: Any) -> None:
    """Say what a table holds, and how `tidegate fit forecast` would read it with these options.

    Shows each column with its kind and number format, the time, step, zone and season, the series with their lengths
    and gaps, values in doubt, and the command to go on with. Columns that are not named are guessed. The exit code is 2
    where the table cannot be read as series.
    """
    config = CheckConfig.make(**given)
    from tidegate.data import check_table

    found = check_table(file, config.target, **config.reading())
    command = _command(file, found, config)
    if as_json:
        typer.echo(to_json({**asdict(found), "command": command}, indent=2))
    else:
        typer.echo("\n".join(map(printable, [*_lines(found), *_end(found, command)])))
    if found.problem:
        raise typer.Exit(2)


def _lines(found: "TableCheck") -> list[str]:
    width = max(len(column.name) for column in found.columns)
    lines = [f"{found.name}: {_counted(found.rows, 'row')}", "", "columns"]
    for column in found.columns:
        missing = f"; {column.missing} missing" if column.missing else ""
        lines.append(f"  {column.name:{width}}  {column.kind}: {column.detail}{missing}")
    if found.problem:
        return lines
    zone = f", zone {found.zone}" if found.zone else ""
    lines += ["", f"time    {found.time or 'none, rows are counted'}; steps of {found.step}{zone}"]
    lines += [f"season  {found.season} steps" if found.season > 1 else "season  none by default"]
    lines += [f"target  {found.target}", f"series  {len(found.series)}{f', by {found.id}' if found.id else ''}"]
    for one in found.series[:_SHOWN]:
        gaps = f", {one.missing} without a value" if one.missing else ""
        name = f"{one.name}: " if one.name else ""
        lines.append(f"  {name}{_counted(one.steps, 'step')} from {one.first} to {one.last}{gaps}")
    lines += [f"  and {len(found.series) - _SHOWN} more"] if len(found.series) > _SHOWN else []
    for doubt in found.doubts[:_SHOWN]:
        whose = f" of {doubt.series}" if doubt.series else ""
        far = f"{doubt.distance:.0f} robust standard deviations from the median"
        lines.append(f"doubt   {doubt.value:g} at {doubt.time}{whose} is {far}: correct it, or leave it empty")
    return [*lines, *(f"note    {note}" for note in found.notes)]


def _end(found: "TableCheck", command: str) -> list[str]:
    if found.problem:
        return ["", f"It cannot be read as series: {found.problem}"]
    return ["", "To forecast it:", f"  {command}"]


def _command(file: str, found: "TableCheck", config: CheckConfig) -> str:
    """The command line of a fit that reads the table as it was read here."""
    if found.problem:
        return ""
    given = config.model_dump(exclude={"target", "time", "id", "wide"}, exclude_defaults=True)
    options = {"target": found.target, "time": found.time, "id": found.id, **given}
    words = ["tidegate", "fit", "forecast", file]
    for name, value in options.items():
        text = ",".join(f'"{one}"' if "," in one else one for one in value) if isinstance(value, tuple) else value
        words += [f"--{name}", str(text)] if text is not None else []
    words += ["--wide"] if config.wide else []
    return shlex.join([*words, "--horizon", str(found.season if found.season > 1 else 12)])


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
