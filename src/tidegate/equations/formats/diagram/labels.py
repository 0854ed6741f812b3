"""Small mathematical labels in SVG: names with subscripts and Greek letters, and their widths."""

import html
import re
from dataclasses import dataclass
from typing import Literal

from tidegate.equations.formats.latex import GREEK

_GREEK = GREEK | {"lam": "λ", "eps": "ε", "dt": "Δt"}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NARROW = frozenset("iljtfr.,;:|!()[] '1")
_WIDE = frozenset("mwMWGOQ@%⊙")
_SMALL = 0.74
_RISE = {"": 0.0, "sub": 0.24, "sup": -0.36}

Place = Literal["", "sub", "sup"]


@dataclass(frozen=True)
class Run:
    """A piece of text in one style."""

    text: str
    italic: bool = False
    place: Place = ""


Label = tuple[Run, ...]


def escape(text: str) -> str:
    """Escape text for XML; characters that XML forbids become U+FFFD."""
    return html.escape(_FORBIDDEN.sub("\ufffd", text), quote=True)


def plain(text: str) -> Label:
    """Upright text."""
    return (Run(text),) if text else ()


def name(text: str, *below: str, version: int = 0) -> Label:
    """A name as a symbol: `alpha_1` becomes α with subscript 1; `below` adds subscripts, `version` a superscript."""
    base, *rest = [piece for piece in re.split(r"[_.]+", text) if piece] or ["_"]
    if base == "log" and rest:
        return (Run("log "), *name("_".join(rest), *below, version=version))
    numbered = re.fullmatch(r"([^\W\d]+)(\d+)", base)
    if numbered:
        base, rest = numbered[1], [numbered[2], *rest]
    lower = ",".join([*(_GREEK.get(piece, piece) for piece in rest), *below])
    runs = [Run(_GREEK.get(base, base), italic=len(base) == 1 or base in _GREEK)]
    runs += [Run(lower, place="sub", italic=lower.isalpha() and len(lower) == 1)] if lower else []
    runs += [Run(f"({version})", place="sup")] if version else []
    return tuple(runs)


def subscript(text: str) -> Run:
    """A name as it appears in a subscript: `g_re` becomes g,re."""
    shown = ",".join(_GREEK.get(piece, piece) for piece in re.split(r"[_.]+", text) if piece) or "_"
    return Run(shown, italic=len(shown) == 1 and shown.isalpha(), place="sub")


def width(label: Label, size: float) -> float:
    """The approximate width of a label at a font size, in pixels; rather too wide than too narrow."""
    return sum(_width(run.text) * size * (_SMALL if run.place else 1.0) for run in label)


def _width(text: str) -> float:
    return sum(0.36 if c in _NARROW else 0.88 if c in _WIDE else 1.0 if ord(c) > 0x2FFF else 0.6 for c in text)


def svg(label: Label, x: float, y: float, size: float, *, anchor: str = "middle", css: str = "") -> str:
    """The label as a text element with its baseline at `y`."""
    spans, at = [], 0.0
    for run in label:
        rise = _RISE[run.place] * size
        style = ' font-style="italic"' if run.italic else ""
        small = f' font-size="{size * _SMALL:.3g}"' if run.place else ""
        shift = f' dy="{rise - at:.3g}"' if rise != at else ""
        spans.append(f"<tspan{style}{small}{shift}>{escape(run.text)}</tspan>")
        at = rise
    kind = f' class="{css}"' if css else ""
    return f'<text x="{x:.5g}" y="{y:.5g}" font-size="{size:g}" text-anchor="{anchor}"{kind}>{"".join(spans)}</text>'
