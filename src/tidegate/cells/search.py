"""Search for cells by a word in their names, sources, options and comments, or in the glossary."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from tidegate.cells.glossary import Term, plain, terms, terms_of
from tidegate.equations import Cell
from tidegate.errors import ArgumentError


def find(text: str, cells: Mapping[str, Cell]) -> dict[str, list[str]]:
    """The cells that match a word, each with the places where it occurs.

    Raises ArgumentError where no cell matches.
    """
    if not plain(text):
        raise ArgumentError(f"a search takes a word, such as 'forget gate', got {text!r}")
    wanted = meant(text)
    found = {name: list(_places(text, wanted, cell)) for name, cell in cells.items()}
    hits = {name: places for name, places in found.items() if places}
    if not hits:
        raise ArgumentError(f"no cell matches {text!r}: {_advice(text, wanted, cells)}")
    return hits


def meant(text: str) -> tuple[Term, ...]:
    """The terms that a word names; part of a Chinese term is enough."""
    word = plain(text)
    return tuple(
        t for t in terms() if any(word == w or (not word.isascii() and word in w) for w in map(plain, t.words))
    )


def _places(text: str, wanted: tuple[Term, ...], cell: Cell) -> Iterator[str]:
    graph = cell.graph
    if _begins(text, cell.name):
        yield "name"
    if graph.doc and _begins(text, graph.doc):
        yield "title"
    if _begins(text, cell.source):
        yield "source"
    yield from (f"option {option}" for option in cell.options if _begins(text, option))
    legends = {label: v.legend for label, v in graph.named.items() if v.legend and not label.endswith(".net")}
    yield from (f"{label}: {legend}" for label, legend in legends.items() if _begins(text, legend))
    yield from (f"{t.english} {t.chinese}" for t in terms_of(cell) if t in wanted)


def _begins(text: str, where: str) -> bool:
    """Whether the text occurs there at the start of a word."""
    return re.search(rf"(?<!\w){re.escape(plain(text))}", plain(where)) is not None


def _advice(text: str, wanted: tuple[Term, ...], cells: Mapping[str, Cell]) -> str:
    if wanted:
        return f"{wanted[0].english} ({wanted[0].chinese}) is in the glossary, but no cell has it"
    known = {plain(w): w for w in (*cells, *(word for t in terms() for word in t.words))}
    near = [known[w] for w in get_close_matches(plain(text), known, n=3, cutoff=0.7)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}`tidegate cells` lists them all, and docs/glossary.md the words"
