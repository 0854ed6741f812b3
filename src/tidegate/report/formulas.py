"""Formulas: LaTeX to MathML, with the source beside it."""

import html
import re
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

from latex2mathml import exceptions
from latex2mathml.converter import convert_to_element

from tidegate.errors import ArgumentError
from tidegate.report.html import element, escape, printable
from tidegate.report.parts import Part

_TOKEN = re.compile(r"\\begin\{|\\end\{|\\\\|\\.|[{}&]", re.DOTALL)
# \\begin{ opens an environment and a brace; \\end{ closes the one and opens the other.
_DEPTH = {r"\begin{": 2, r"\end{": 0, "{": 1, "}": -1}
_ERRORS: tuple[type[Exception], ...] = tuple(
    e for e in vars(exceptions).values() if isinstance(e, type) and issubclass(e, Exception)
)
_UNREADABLE: tuple[type[Exception], ...] = (
    *_ERRORS,
    StopIteration,
    RecursionError,
    LookupError,
)  # raised by its parser for invalid input
_KEPT = frozenset({"columnalign", "columnspacing", "displaystyle", "fence", "form", "linethickness", "lspace"})
_KEPT |= {"mathvariant", "maxsize", "minsize", "movablelimits", "rspace", "scriptlevel", "stretchy", "width"}


def formulas(latex: str, *, legend: Sequence[tuple[str, str]] = (), source: bool = True) -> Part:
    r"""The rows of an `aligned` body (`a &= b \\ c &= d`) as MathML, with a legend below.

    `legend` has pairs of a LaTeX symbol and its meaning. The LaTeX source can be folded out unless `source` is False.
    """
    rows = split(latex.strip(), "\\\\")
    body = "".join(_row(row) for row in rows if row.strip())
    annotation = element("annotation", escape(_aligned(latex)), encoding="application/x-tex")
    table = element("mtable", body, class_="aligned")
    math = element("math", element("semantics", table + annotation), display="block")
    folded = element("summary", "LaTeX") + element("pre", element("code", escape(_aligned(latex))))
    shown = element("div", math, class_="wide") + _legend(legend)
    return Part(element("div", shown + (element("details", folded) if source else ""), class_="formulas"))


def inline(latex: str) -> str:
    """One formula as MathML within a line of text."""
    return f'<math display="inline">{_converted(latex)}</math>'


def split(latex: str, at: str) -> list[str]:
    r"""`latex` cut at each `at` (`\\` or `&`) that stands in no braces and in no environment."""
    pieces, start, depth = [], 0, 0
    for token in _TOKEN.finditer(latex):
        found = token.group()
        if found == at and depth == 0:
            pieces.append(latex[start : token.start()])
            start = token.end()
        else:
            depth += _DEPTH.get(found, 0)
    return [*pieces, latex[start:]]


def _row(row: str) -> str:
    cells = "".join(element("mtd", _converted(cell)) for cell in split(row, "&"))
    return element("mtr", cells)


def _converted(latex: str) -> str:
    if not latex.strip():
        return "<mrow></mrow>"
    try:
        math = convert_to_element(latex)
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise ArgumentError(f"cannot show {latex!r} ({reason}): expected LaTeX mathematics") from error
    _tidy(math)
    return "".join(tostring(child, encoding="unicode") for child in math)


def _tidy(node: Element) -> None:
    """Clean the converter's output: decode entities, escape text and drop links."""
    node.text = printable(html.unescape(node.text)) if node.text else None
    for name in set(node.attrib) - _KEPT:
        del node.attrib[name]
    if node.tag == "mo" and node.text and len(node.text) > 1 and node.text.isalpha() and node.text != "mod":
        node.tag = "mi"
    for place, child in reversed(list(enumerate(node))):
        _tidy(child)
        if _is_function(child) and place + 1 < len(node) and node[place + 1].tag in ("mi", "msub", "msubsup"):
            node.insert(place + 1, Element("mspace", width="0.167em"))


def _is_function(node: Element) -> bool:
    return node.tag == "mi" and len(node.text or "") > 1 and (node.text or "").isalpha()


def _aligned(latex: str) -> str:
    return "\\begin{aligned}\n" + latex.strip() + "\n\\end{aligned}"


def _legend(legend: Iterable[tuple[str, str]]) -> str:
    pairs = "".join(element("dt", inline(symbol)) + element("dd", escape(meaning)) for symbol, meaning in legend)
    return element("dl", pairs, class_="legend") if pairs else ""
