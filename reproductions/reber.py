"""Reber's grammar, embedded in itself: strings, what may follow at each step, and streams of strings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SYMBOLS = "BTPSXVE"
EDGES: tuple[dict[str, int], ...] = (  # from each state, by what symbol to which
    {"B": 1},
    {"T": 2, "P": 3},
    {"S": 2, "X": 4},
    {"T": 3, "V": 5},
    {"X": 3, "S": 6},
    {"P": 4, "V": 6},
    {"E": 7},
)
END = 7
Random = np.random.Generator


@dataclass(frozen=True)
class Walk:
    """A string as indices of SYMBOLS, and the symbols that may follow each, all but the last: `[len - 1, 7]`."""

    symbols: np.ndarray
    legal: np.ndarray

    @property
    def text(self) -> str:
        """The string as it is written."""
        return "".join(SYMBOLS[k] for k in self.symbols)


def inner(random: Random) -> tuple[str, list[str]]:
    """A string of Reber's grammar, each edge with chance 1/2, and before each symbol those that were legal."""
    text, legal, state = "", [], 0
    while state != END:
        edges = EDGES[state]
        legal.append("".join(edges))
        symbol = legal[-1][random.integers(len(edges))]
        text, state = text + symbol, edges[symbol]
    return text, legal


def embedded(random: Random) -> Walk:
    """B, T or P, a string of Reber's grammar, the same T or P again, E."""
    outer = "TP"[random.integers(2)]
    text, legal = inner(random)
    follow = ["TP", *legal, outer, "E"]
    return Walk(indices(f"B{outer}{text}{outer}E"), np.array([[s in f for s in SYMBOLS] for f in follow]))


def strings(random: Random, count: int, without: set[str] | None = None) -> list[Walk]:
    """`count` strings, none of them in `without`."""
    found: list[Walk] = []
    while len(found) < count:
        walk = embedded(random)
        if without is None or walk.text not in without:
            found.append(walk)
    return found


def indices(text: str) -> np.ndarray:
    """Symbols as numbers."""
    return np.array([SYMBOLS.index(symbol) for symbol in text], dtype=np.int64)


def right(outputs: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """Where all legal symbols are more active than all others, `[...]` for `[..., 7]` of both."""
    least = np.where(legal, outputs, np.inf).min(-1)
    most = np.where(legal, -np.inf, outputs).max(-1)
    found: np.ndarray = least > most
    return found


class Stream:
    """Embedded strings one after another, without an end; after each E the next symbol is a B."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._symbols = np.empty(0, dtype=np.int64)
        self._legal = np.empty((0, len(SYMBOLS)), dtype=bool)
        self._outer = np.empty(0, dtype=bool)

    def take(self, steps: int) -> Piece:
        """The next steps."""
        while len(self._symbols) <= steps:
            self._append(embedded(self._random))
        symbols = self._symbols[: steps + 1]
        piece = Piece(symbols[:-1], symbols[1:], self._legal[:steps], self._outer[:steps])
        self._symbols, self._legal, self._outer = self._symbols[steps:], self._legal[steps:], self._outer[steps:]
        return piece

    def _append(self, walk: Walk) -> None:
        outer = np.zeros(len(walk.symbols), dtype=bool)
        outer[-3] = True
        self._symbols = np.concatenate([self._symbols, walk.symbols])
        self._legal = np.concatenate([self._legal, walk.legal, _BEGIN])
        self._outer = np.concatenate([self._outer, outer])


@dataclass(frozen=True)
class Piece:
    """Steps of a stream: symbols, those that follow, those that may follow, and where the outer symbol returns."""

    symbols: np.ndarray
    following: np.ndarray
    legal: np.ndarray
    outer: np.ndarray


_BEGIN = np.array([[symbol == "B" for symbol in SYMBOLS]])
