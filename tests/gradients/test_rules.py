"""Rules as plain values: their segments and their text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ArgumentError
from tidegate.gradients import BPTT, Segment, TruncatedBPTT, rule_from_text


def test_bptt_is_one_segment() -> None:
    assert BPTT().segments(7) == (Segment(0, 0, 7),)
    assert BPTT().segments(0) == ()


def test_truncation_by_hand() -> None:
    assert TruncatedBPTT(2, 5).segments(9) == (
        Segment(0, 0, 2),
        Segment(0, 2, 4),
        Segment(1, 4, 6),
        Segment(3, 6, 8),
        Segment(4, 8, 9),
    )


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 40))
def test_every_step_is_counted_once_and_no_further_back_than_k2(k1: int, more: int, length: int) -> None:
    segments = TruncatedBPTT(k1, k1 + more).segments(length)
    counted = [step for segment in segments for step in range(segment.scored, segment.stop)]
    assert counted == list(range(length))
    assert all(0 <= s.start <= s.scored < s.stop <= s.start + k1 + more for s in segments)


@pytest.mark.parametrize(("k1", "k2"), [(0, 3), (4, 3), (-1, -1)])
def test_impossible_steps(k1: int, k2: int) -> None:
    with pytest.raises(ArgumentError) as caught:
        TruncatedBPTT(k1, k2)
    assert str(caught.value) == (
        f"TruncatedBPTT was given k1={k1} and k2={k2}, but must have 1 <= k1 <= k2: "
        "a gradient reaches back at least as far as the last update. Give for example k1=16, k2=32."
    )


@pytest.mark.parametrize("rule", [BPTT(), BPTT(50), BPTT("64MiB"), TruncatedBPTT(3, 17)])
def test_text_both_ways(rule: object) -> None:
    assert rule_from_text(str(rule)) == rule


@pytest.mark.parametrize("text", ["", "BPTT", "truncated", "truncated:1", "truncated:a,b", "truncated:1,2,3"])
def test_unknown_text(text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        rule_from_text(text)
    assert str(caught.value) == (
        f"There is no gradient rule {text!r}. Expected 'bptt', 'bptt:STATES', 'bptt:MEMORY' or 'truncated:K1,K2' with "
        "whole numbers K1 <= K2."
    )
