"""Drawing of figures: one style, colours that follow the page's scheme, reproducible bytes."""

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from tidegate.report.html import element, escape, printable

# Okabe and Ito's palette, darkened for contrast on white. In an SVG each colour is `var(--tg-NAME, #hex)`.
COLOURS = {
    "ink": "#1c2329",
    "soft": "#5a6570",
    "grid": "#e5e8eb",
    "shade": "#eef1f3",
    "paper": "#fefefe",
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "purple": "#b85d94",
    "orange": "#d99000",
    "grey": "#7f8a94",
}
CYCLE = ("blue", "vermillion", "green", "purple", "orange", "grey")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
WIDTH, HALF = 9.0, 4.6

_NAMES = {colour: name for name, colour in COLOURS.items()}
_TAG = re.compile(r"<[^<>]+>")
_COLOUR = re.compile("|".join(_NAMES))
_FONT = re.compile(r"font: ([0-9.]+px) 'DejaVu Sans'")
_PROLOGUE = re.compile(r".*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_REFERENCE = re.compile(r'(?:url\(#|href="#)([^)"]+)')
_IDENTITY = re.compile(r' id="([^"]+)"')
_DARK = re.compile(r"--tg-\w+: #[0-9a-f]{6};")
_SIZE = re.compile(r'\s(?:width|height)="[0-9.]+pt"')


def draw(height: float, paint: Callable[[Figure], None], *, title: str, alt: str, width: float = WIDTH) -> str:
    """An SVG of `width` x `height` inches that `paint` fills; `title` and `alt` are for screen readers.

    A page never enlarges it; figures of full width do not fit into a column.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A glyph that the measuring font lacks is still drawn by the reader's own font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        matplotlib.rc_file(str(resources.files("tidegate.report").joinpath("figures.mplstyle")))
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = _clean(buffer.getvalue(), title, alt)
    kind = "wide" if width > HALF else "narrow"
    return svg.replace("<svg ", f'<svg class="{kind}" style="max-width:{100 * width:.0f}px" ', 1)


def standalone(svg: str) -> str:
    """A figure of a report as a file of its own, including the dark colours that a page would give it."""
    css = resources.files("tidegate.report").joinpath("page.css").read_text("utf-8")
    dark = "".join(_DARK.findall(css))
    style = f"<style>@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    return svg.replace("<title", f"{style}<title", 1) + "\n"


def words(axes: Axes, *, x: str | None = None, y: str | None = None, title: str | None = None) -> None:
    """Set axis labels and a title; dollar signs are literal."""
    for setter, label in ((axes.set_xlabel, x), (axes.set_ylabel, y), (axes.set_title, title)):
        if label is not None:
            setter(printable(label), parse_math=False)


def key(place: Axes | Figure, entries: Iterable[tuple[Any, str]]) -> None:
    """A legend above axes or a figure, of (artist, label) pairs; any text is a label, a leading underscore too."""
    handles, labels = zip(*entries, strict=True)
    figure = place.get_figure(root=True)
    inches = figure.get_figwidth() if figure else WIDTH
    widths = [0.5 + 0.07 * len(label) for label in labels]
    columns = len(labels) if sum(widths) < inches else max(1, int(0.9 * inches / max(widths)))
    where: dict[str, Any] = {"loc": "outside upper right"}
    if isinstance(place, Axes):
        where = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2}
    legend = place.legend(list(handles), [f"{k}" for k in range(len(labels))], ncols=columns, **where)
    for shown, label in zip(legend.get_texts(), labels, strict=True):
        shown.set_parse_math(False)
        shown.set_text(printable(label))


def note(axes: Axes, x: Any, y: Any, label: str, **options: Any) -> None:
    """A small text at a point."""
    style: dict[str, Any] = {"fontsize": 8.5, "color": COLOURS["soft"]}
    axes.text(x, y, printable(label), parse_math=False, **(style | options))


def time_axis(axes: Axes, times: np.ndarray) -> None:
    """Format the time axis, with concise labels for dates; it spans exactly the data."""
    if np.issubdtype(times.dtype, np.datetime64):
        locator = AutoDateLocator(minticks=4, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.grid(False, axis="x")
    axes.margins(x=0.01)


def _clean(svg: str, title: str, alt: str) -> str:
    svg = _METADATA.sub("", _PROLOGUE.sub("", svg, count=1), count=1)
    svg = _TAG.sub(lambda tag: _recoloured(tag[0]), svg)
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    used = {name for tag in _TAG.findall(svg) for name in _REFERENCE.findall(tag)}
    head, _, rest = _TAG.sub(lambda tag: _own_identity(tag[0], mark, used), svg).partition(">")
    names = element("title", escape(title), id=f"{mark}-t") + element("desc", escape(alt), id=f"{mark}-d")
    return f'{_SIZE.sub("", head)} role="img" aria-labelledby="{mark}-t {mark}-d">{names}{rest.strip()}'


def _recoloured(tag: str) -> str:
    tag = _FONT.sub(r"font-size: \1; font-family: system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", tag)
    return _COLOUR.sub(lambda found: f"var(--tg-{_NAMES[found[0]]}, {found[0]})", tag)


def _own_identity(tag: str, mark: str, used: set[str]) -> str:
    """Drop unused ids, and make the others unique on the page."""
    tag = _IDENTITY.sub(lambda found: f' id="{mark}-{found[1]}"' if found[1] in used else "", tag)
    return _REFERENCE.sub(lambda found: found[0].replace("#", f"#{mark}-", 1), tag)
