"""Rows and verdicts as text: for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

from benchmarks.lines import Verdict
from benchmarks.rows import USUAL, Row
from benchmarks.timing import Timing

HEADINGS = ("cell", "T B I H", "what", "peer", "difference", "ours", "theirs", "ratio", "GF/s", "limit")
_WIDTHS = (15, 14, 20, 16, 10, 26, 26, 6, 6, 5)
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def heading() -> str:
    """The names of the columns, as wide as the rows below."""
    return _fitted(HEADINGS)


def line(row: Row) -> str:
    """A row, for a terminal."""
    return _fitted(cells(row))


def cells(row: Row) -> tuple[str, ...]:
    """A row's columns, in the order of the headings."""
    return (
        row.subject,
        str(row.shape),
        row.what if row.memory is None else f"{row.what}, {row.memory:.1%} kept",
        row.peer,
        off(row),
        timing(row.ours),
        ("WRONG " if row.they_are_wrong else "") + (timing(row.theirs) if row.theirs else "-"),
        ratio(row),
        "-" if row.speed is None else f"{row.speed / 1e9:.4g}",
        "-" if row.share is None else f"{row.share:.0%}",
    )


def ratio(row: Row) -> str:
    """Their time by ours; `~` where the machine was not quiet."""
    return "-" if row.ratio is None else f"{'~' if row.noisy else ''}{digits(row.ratio)}"


def digits(ratio: float) -> str:
    """Two places; of what is far below 1, two digits."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def off(row: Row) -> str:
    """Our largest difference, which shouts where it is too large."""
    if row.difference is None:
        return "-"
    return ("WRONG " if row.wrong else "") + (f"{row.difference:.0e}" if isfinite(row.difference) else "not finite")


def timing(taken: Timing) -> str:
    """The median, and in parentheses the least and the most."""
    size, unit = next(((s, u) for s, u in _UNITS if taken.median >= s), _UNITS[-1])
    median, least, most = (f"{seconds / size:.3g}" for seconds in (taken.median, taken.least, taken.most))
    return f"{median} {unit} ({least}-{most})"


def seconds(value: float) -> str:
    """A time with three digits and its unit."""
    size, unit = next(((s, u) for s, u in _UNITS if abs(value) >= s), _UNITS[-1])
    return f"{value / size:.3g} {unit}"


def load_average(load: Iterable[float]) -> str:
    """The load average over 1, 5 and 15 minutes."""
    return ", ".join(f"{value:.2f}" for value in load) or "unknown"


def verdict(found: Verdict) -> str:
    """One line for a verdict, with the shapes that stay below."""
    said = f"{'MET' if found.met else 'NOT MET'}: {found.line.text}: {outcome(found)}"
    return said + (f"; below: {'; '.join(found.below)}" if found.below else "")


def outcome(found: Verdict) -> str:
    """The figure that a verdict is by, and of what it is."""
    noise = f", noisy rows: {found.noisy}" if found.noisy else ""
    if found.line.measure == "products":
        return f"{found.figure:.0%} of the speed of products{noise}"
    if found.line.measure != "ratio":
        most = f"{found.figure:.1%}" if found.line.measure == "memory" else seconds(found.figure)
        return f"{most} at most{noise}"
    over = f"{found.shapes} shape{'s' * (found.shapes > 1)}"
    among = f", of {found.cell}, the lowest of {found.cells} cells" if found.cells > 1 else ""
    return f"{digits(found.figure)} over {over}{among}{noise}"


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table of a page; where there are both, the ratio with memory kept stands beside the usual one."""
    usual = [row for row in rows if row.malloc == USUAL]
    kept = {_key(row): row for row in rows if row.malloc != USUAL}
    headings = [*HEADINGS[:8], *(["ratio, memory kept"] if kept else []), *HEADINGS[8:]]
    lines = [headings, ["---"] * len(headings)]
    for row in usual:
        shown = list(cells(row))
        if kept:
            other = kept.get(_key(row))
            shown.insert(8, "-" if other is None else ratio(other))
        lines.append(shown)
    return "\n".join(f"| {' | '.join(columns)} |" for columns in lines)


def _key(row: Row) -> tuple[object, ...]:
    return row.subject, row.shape, row.what, row.peer


def _fitted(columns: Iterable[str]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(columns, _WIDTHS, strict=True)).rstrip()
