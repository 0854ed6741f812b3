"""The command `tidegate`: one file a verb, and every heavy import inside the verb that needs it.

Exit codes: 0 done, 1 not usable, or training that cannot go on, 2 wrong use, wrong data, a file that cannot be read or
written, or an extra that is not installed, 130 interrupted by Ctrl-C.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from importlib.metadata import requires, version
from typing import TYPE_CHECKING, Annotated, TextIO

from tidegate.errors import MissingExtraError, TidegateError, TrainingError
from tidegate.files import printable

if TYPE_CHECKING:
    import typer


def main(make: "Callable[[], typer.Typer] | None" = None, name: str = "tidegate") -> int:
    """Run the command line, or that of `make`. Errors that a user can act on are one line, with exit code 2 or 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals and names of files that are not UTF-8
    try:
        (make or application)()(prog_name=name)
    except TidegateError as error:
        return _refuse(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in packages("app"):
            raise
        return _refuse(MissingExtraError("app", "the command line"))
    except OSError as error:
        if not error.filename:  # those of files have one
            _drop(sys.stdout)
        reason = f"{error.filename or 'the standard output'} cannot be read or written: {error.strerror or error}."
        return _refuse(TidegateError(f"{reason} Check the path, its permissions and the free space."))
    return 0


def application() -> "typer.Typer":
    """The whole command line: each verb's file registers itself."""
    import typer

    from tidegate.cli import cells, check_data, diagnose, doctor, explain, fit, learn, predict, report

    app = typer.Typer(
        help="Recurrent neural networks from their equations.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(f"tidegate {version('tidegate')}")
            raise typer.Exit

    flag = typer.Option("--version", help="Print the version and stop.", callback=show, is_eager=True)

    @app.callback()
    def options(version: Annotated[bool, flag] = False) -> None: ...

    for verb in (check_data, fit, predict, learn, report, diagnose, cells, explain, doctor):
        verb.register(app)
    return app


def packages(extra: str | None = None) -> list[str]:
    """The packages that an extra brings, or without one those that Tidegate always needs."""
    found = []
    for line in requires("tidegate") or []:
        requirement, _, marker = line.partition(";")
        wanted = re.search(r"extra\s*==\s*['\"]([\w-]+)", marker)
        if (wanted.group(1) if wanted else None) == extra:
            found.append(re.split(r"[^\w-]", requirement.strip())[0])
    return found


def _drop(stream: TextIO) -> None:
    """Drop what a stream that cannot be written still holds: Python would fail over it at exit."""
    with contextlib.suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _refuse(error: TidegateError) -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"tidegate: {printable(' '.join(str(error).split()))}\n")
    return 1 if isinstance(error, TrainingError) else 2
