"""Reber strings against another description of the language: its regular expression, written out by hand."""

from functools import cache

import numpy as np
import pytest

from reproductions.reber import SYMBOLS, Stream, embedded, inner, right, strings

LONGEST = 16


@cache
def from_x_or_s(letters: int) -> frozenset[str]:
    """What follows the X or S loop of the upper path: S, or X T* V (P and the same again, or V)."""
    if letters < 1:
        return frozenset()
    return frozenset({"S"} | {"X" + rest for rest in from_t(letters - 1)})


@cache
def from_t(letters: int) -> frozenset[str]:
    """T* V, then P and the upper path's end, or V."""
    if letters < 2:
        return frozenset()
    ends = {"VV"} | {"VP" + rest for rest in from_x_or_s(letters - 2)}
    return frozenset(ends | {"T" + rest for rest in from_t(letters - 1)})


@cache
def language() -> frozenset[str]:
    """Reber's strings of up to LONGEST symbols, about."""
    upper = {"T" + "S" * k + "X" + rest for k in range(LONGEST) for rest in from_x_or_s(LONGEST - k)}
    lower = {"P" + rest for rest in from_t(LONGEST)}
    return frozenset(f"B{middle}E" for middle in upper | lower)


def successors(prefix: str) -> set[str]:
    return {s[len(prefix)] for s in language() if s.startswith(prefix) and len(s) > len(prefix)}


def test_strings_are_of_the_language_and_all_short_ones_come() -> None:
    random = np.random.default_rng(3)
    drawn = {inner(random)[0] for _ in range(3000)}
    assert {s for s in drawn if len(s) <= 12} <= language()
    assert {s for s in language() if len(s) <= 7} <= drawn


def test_legal_symbols_are_those_that_some_string_goes_on_with() -> None:
    random = np.random.default_rng(4)
    checked = 0
    for _ in range(300):
        text, legal = inner(random)
        for k in range(1, min(len(text), 9)):
            assert set(legal[k]) == successors(text[:k]), text[:k]
            checked += 1
    assert checked > 1000


def test_an_embedded_string() -> None:
    random = np.random.default_rng(5)
    seen = set()
    for _ in range(200):
        walk = embedded(random)
        text = walk.text
        assert text[0] == "B"
        assert text[-1] == "E"
        assert text[1] == text[-2]
        assert len(text) >= 9
        legal = ["".join(s for s, yes in zip(SYMBOLS, row, strict=True) if yes) for row in walk.legal]
        assert legal[0] == "TP"
        assert legal[1] == "B"
        assert legal[-2:] == [text[1], "E"]
        assert all(s in row for s, row in zip(text[1:], legal, strict=True))
        assert set(legal[2]) == {"T", "P"}
        seen.add(text[1])
    assert seen == {"T", "P"}


def test_edges_are_taken_with_equal_chance() -> None:
    random = np.random.default_rng(6)
    upper = np.mean([inner(random)[0][1] == "T" for _ in range(4000)])
    assert upper == pytest.approx(0.5, abs=0.03)


def test_strings_without_others() -> None:
    random = np.random.default_rng(7)
    first = {walk.text for walk in strings(random, 50)}
    assert not first & {walk.text for walk in strings(random, 50, first)}


def test_a_net_is_right_where_every_legal_symbol_is_above_all_others() -> None:
    legal = np.array([[True, True, False], [True, False, False], [False, True, True]])
    outputs = np.array([[0.3, 0.2, 0.1], [0.1, 0.2, 0.0], [0.2, 0.2, 0.3]])
    assert right(outputs, legal).tolist() == [True, False, False]


def test_a_stream_goes_on_over_pieces() -> None:
    whole = Stream(np.random.default_rng(8)).take(200)
    stream = Stream(np.random.default_rng(8))
    pieces = [stream.take(n) for n in (1, 70, 129)]
    for name in ("symbols", "following", "legal", "outer"):
        assert (np.concatenate([getattr(p, name) for p in pieces]) == getattr(whole, name)).all()
    assert (whole.following[:-1] == whole.symbols[1:]).all()
    assert whole.legal[np.arange(200), whole.following].all()
    begins = np.flatnonzero((whole.legal.sum(1) == 1) & whole.legal[:, SYMBOLS.index("B")])
    assert len(begins) > 20


def test_outer_symbols_of_a_stream_are_those_of_its_strings() -> None:
    random, piece = np.random.default_rng(9), Stream(np.random.default_rng(9)).take(300)
    steps, start = [], 0
    while start < 300:
        walk = embedded(random)
        steps.append((start + len(walk.symbols) - 3, walk.symbols[1]))
        start += len(walk.symbols)
    within = [(k, symbol) for k, symbol in steps if k < 300]
    assert np.flatnonzero(piece.outer).tolist() == [k for k, _ in within]
    assert [piece.following[k] for k, _ in within] == [symbol for _, symbol in within]
