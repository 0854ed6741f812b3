"""What runs gave besides their figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from reproductions.summary import BAR, Summary


def further(found: Sequence[Summary]) -> Iterator[str]:
    """The lines of a table in Markdown: a row a name, a column a configuration, the means over seeds; none where there
    is nothing."""
    names = dict.fromkeys(name for s in found for run in s.runs for name in run.outcome.also)
    if names:
        yield f"| mean over seeds | {' | '.join(s.configuration.name for s in found)} |"
        yield f"|{'---|' * (len(found) + 1)}"
    for name in names:
        yield f"| {name.replace('|', BAR)} | {' | '.join(_mean(s, name) for s in found)} |"


def _mean(summary: Summary, name: str) -> str:
    given = [run.outcome.also[name] for run in summary.runs if name in run.outcome.also]
    return f"{fmean(given):.3g}" if given else "-"
