"""The parts of a page. Each function escapes its arguments and returns a `Part`; only SVG is inserted unchanged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tidegate.errors import ArgumentError
from tidegate.report.html import element, escape

Tone = Literal["good", "mixed", "bad", "note"]
_TONES = {"good": "✓", "mixed": "≈", "bad": "✗", "note": "i"}


@dataclass(frozen=True)
class Part:
    """A piece of a page: HTML that is already escaped."""

    html: str


def text(*paragraphs: str) -> Part:
    """Paragraphs of plain text."""
    return Part("".join(element("p", escape(paragraph)) for paragraph in paragraphs))


def section(title: str, *parts: Part) -> Part:
    """Parts under a heading."""
    return Part(element("section", element("h2", escape(title)) + join(parts)))


def columns(*parts: Part) -> Part:
    """Parts side by side; below each other where the page is narrow."""
    return Part(element("div", "".join(element("div", part.html) for part in parts), class_="columns"))


def details(summary: str, *parts: Part, open_: bool = False) -> Part:
    """Collapsible parts; a printed page shows them if `open_`."""
    return Part(element("details", element("summary", escape(summary)) + join(parts), open="" if open_ else None))


def banner(sentence: str, *, tone: Tone = "note", more: str | None = None) -> Part:
    """The verdict or a note in one sentence, `more` in smaller type below; `tone` sets its sign and colour."""
    if tone not in _TONES:
        raise ArgumentError(f"banner(tone={tone!r}): expected one of {', '.join(map(repr, _TONES))}")
    below = element("p", escape(more), class_="more") if more else ""
    sign = element("span", _TONES[tone], class_="sign", aria_hidden="true")
    body = element("div", element("p", escape(sentence)) + below)
    return Part(element("div", sign + body, class_=f"banner {tone}", role="note"))


def key_figures(figures: Iterable[tuple[str, str] | tuple[str, str, str]]) -> Part:
    """Large numbers in a row: `(value, label)` or `(value, label, note)`, formatted by the caller."""
    return Part(element("dl", "".join(_key_figure(*one) for one in figures), class_="key-figures"))


def _key_figure(value: str, label: str, note: str = "") -> str:
    under = element("dd", escape(note), class_="note") if note else ""
    return element("div", element("dt", escape(label)) + element("dd", escape(value), class_="value") + under)


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str | None = None, strong: Iterable[int] = ()
) -> Part:
    """A table. Columns of numbers are right-aligned; rows with an index in `strong` are bold.

    Numbers are formatted by `str`; pass text to control digits. Text that parses as a number counts
    as one. None is a dash.
    """
    body = [list(row) for row in rows]
    for index, row in enumerate(body):
        if len(row) != len(header):
            raise ArgumentError(f"table: row {index} has {len(row)} cells; expected {len(header)}, one for each column")
    kinds = ["number" if _numeric(row[k] for row in body) else None for k in range(len(header))]
    head = "".join(element("th", escape(h), scope="col", class_=kind) for h, kind in zip(header, kinds, strict=True))
    chosen = set(strong)
    lines = "".join(_row(row, kinds, index in chosen) for index, row in enumerate(body))
    title = element("caption", escape(caption)) if caption else ""
    whole = element("table", title + element("thead", element("tr", head)) + element("tbody", lines))
    return Part(element("div", whole, class_="wide"))


def _row(row: Sequence[object], kinds: Sequence[str | None], strong: bool) -> str:
    cells = (element("td", "–" if c is None else escape(c), class_=kind) for c, kind in zip(row, kinds, strict=True))
    return element("tr", "".join(cells), class_="strong" if strong else None)


def _numeric(cells: Iterable[object]) -> bool:
    shown = [str(cell).strip().rstrip("%").replace("−", "-").replace(",", "") for cell in cells if cell is not None]
    return bool(shown) and all(_is_number(cell) for cell in shown)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def figure(svg: str, caption: str | None = None) -> Part:
    """A drawing of this package (SVG text, inserted unchanged) above its caption."""
    below = element("figcaption", escape(caption)) if caption else ""
    return Part(element("figure", svg + below))


def diagram(svg: str, caption: str | None = None) -> Part:
    """A diagram of a cell or net: as `figure`, at its own size and centred."""
    below = element("figcaption", escape(caption)) if caption else ""
    return Part(element("figure", element("div", svg, class_="wide") + below, class_="diagram"))


def listing(source: str, *, caption: str | None = None) -> Part:
    """Program text or a printed form, in a fixed-width face."""
    below = element("figcaption", escape(caption)) if caption else ""
    return Part(element("figure", element("pre", element("code", escape(source))) + below, class_="listing"))


def join(parts: Iterable[Part]) -> str:
    """The HTML of parts in order; raises for plain strings, which would not be escaped."""
    return "\n".join(_checked(part).html for part in parts)


def _checked(part: Part) -> Part:
    if not isinstance(part, Part):
        raise ArgumentError(f"a page takes parts, got {type(part).__name__}: wrap it, for example in text(...)")
    return part
