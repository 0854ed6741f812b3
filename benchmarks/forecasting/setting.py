"""What a run is asked for, and what a case gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.forecasting.archives import Archives
from benchmarks.forecasting.peers import PeerCache

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)  # the forecaster's own
INTERVALS = (0.8, 0.9)  # whose coverage is reported


@dataclass(frozen=True)
class Setting:
    """Where data and cache are, which series are wanted (none: all), and how much is measured.

    With `peers_only` the peers' forecasts are computed and kept, and nothing else is done. `say` shows a line.
    """

    archives: Archives
    cache: PeerCache
    etth1: Path | None = None
    only: tuple[str, ...] = ()
    quick: bool = False
    peers_only: bool = False
    say: Callable[[str], None] = field(default=print)

    @property
    def origins(self) -> int:
        """The most origins of a series."""
        return 3 if self.quick else 30

    @property
    def training(self) -> dict[str, Any]:
        """Options of the forecaster beside those of the case: none, but for a quick run."""
        return {"budget": "3s"} if self.quick else {}


@dataclass(frozen=True)
class Table:
    """A table of a page; the first column is text, the others are aligned to the right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.headings, ["---", *["---:"] * (len(self.headings) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass(frozen=True)
class Outcome:
    """A case's result: paragraphs and tables for the page, and the figures as plain data."""

    case: str
    parts: Sequence[str | Table]
    figures: Any

    def markdown(self) -> str:
        """The parts as Markdown, with a blank line between them."""
        return "\n\n".join(part if isinstance(part, str) else part.markdown() for part in self.parts)


def number(value: float, digits: int = 2) -> str:
    """A figure of a table; a dash where there is none."""
    return "-" if value != value else f"{value:.{digits}f}"


def percent(value: float) -> str:
    """A share in whole percent; a dash where there is none."""
    return "-" if value != value else f"{100 * value:.0f} %"
