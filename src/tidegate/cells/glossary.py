"""The terms of the field in English and Chinese: synonyms, symbols and meanings.

docs/glossary.md, `tidegate cells --search` and the labels of plots all come from the table in glossary.toml.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from types import MappingProxyType
from typing import Any

from tidegate.equations import Cell, Graph
from tidegate.errors import ArgumentError

_CHINESE = "[\u4e00-\u9fff]"  # a letter


@dataclass(frozen=True)
class Term:
    """A term, its symbol in formulas and its meaning; `cells` have the term though no comment in them says so."""

    english: str
    chinese: str
    meaning: str
    symbol: str = ""
    synonyms: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All names of the term, in both languages."""
        return (self.english, self.chinese, *self.synonyms)


@cache
def glossary() -> Mapping[str, tuple[Term, ...]]:
    """The terms of each group of the table, in its order."""
    text = resources.files("tidegate.cells").joinpath("glossary.toml").read_text("utf-8")
    groups = tomllib.loads(text)
    return MappingProxyType({group: tuple(Term(**_row(row)) for row in rows) for group, rows in groups.items()})


def terms() -> tuple[Term, ...]:
    """The terms of all groups."""
    return tuple(chain.from_iterable(glossary().values()))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def plain(text: str) -> str:
    """Normalise text for comparison: lower case, single spaces, none next to Chinese, no dashes."""
    return re.sub(rf"(?<={_CHINESE}) | (?={_CHINESE})", "", re.sub(r"[-_\s]+", " ", text.casefold()).strip())


@cache
def _by_word() -> dict[str, Term]:
    return {plain(word): term for term in terms() for word in term.words}


def term_of(text: str) -> Term | None:
    """The longest term that a text equals or begins with."""
    words, known = plain(text).split(), _by_word()
    beginnings = (" ".join(words[:n]) for n in range(len(words), 0, -1))
    return next((known[b] for b in beginnings if b in known), None)


def terms_of(cell: Cell) -> tuple[Term, ...]:
    """The terms of a cell: from its comments and options, and those that list the cell."""
    said = {term_of(head(v.legend)) for v in cell.graph.named.values() if v.legend}
    said |= {term_of(option) for option in cell.options}
    return tuple(t for t in terms() if t in said or cell.name in t.cells)


def head(legend: str) -> str:
    """The part of a comment that names its value, without further explanation."""
    return re.split(r"[,:;(]", legend, maxsplit=1)[0].strip()


def label(graph: Graph, name: str, chinese: bool = False) -> str:
    """The label of a named value in plots: `forget gate f`, or in Chinese `遗忘门 f`.

    A comment whose first words are a term, or a synonym of one, gives that term; any other comment gives those words.
    A value without a comment keeps its bare name. Raises ArgumentError for a name that the graph does not have.
    """
    if name not in graph.named:
        known = ", ".join(graph.named)
        raise ArgumentError(f"cell {graph.name!r} has no value {name!r} to label; it has {known}")
    base = name.removesuffix(".net")
    called = _called(graph, base, chinese)
    if base == name:
        return called
    return f"{called}，净输入" if chinese else f"{called}, net input"


def _called(graph: Graph, name: str, chinese: bool) -> str:
    value = graph.named.get(name)
    words = head(value.legend) if value is not None and value.legend else ""
    term = term_of(words) if words else None
    if term is not None and plain(words) in map(plain, term.words):
        words = term.chinese if chinese else term.english
    return f"{words} {name}".strip()
