"""Rules as plain values: their segments and their text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ArgumentError
from tidegate.gradients import BPTT, KFRTRL, RFLO, RTRL, UORO, EProp, Segment, SnAp, TruncatedBPTT, rule_from_text


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


EVERY_KIND = [
    BPTT(),
    BPTT(50),
    BPTT("64MiB"),
    TruncatedBPTT(3, 17),
    RTRL(),
    RTRL(every=8),
    SnAp(),
    SnAp(2, every=4),
    UORO(every=3),
    KFRTRL(),
    RFLO(every=1),
    EProp(every=5),
]


@pytest.mark.parametrize("rule", EVERY_KIND, ids=str)
def test_text_both_ways(rule: object) -> None:
    assert rule_from_text(str(rule)) == rule


@pytest.mark.parametrize(
    "text", ["", "BPTT", "truncated", "truncated:1", "truncated:a,b", "truncated:1,2,3", "snap", "rtrl:1,2"]
)
def test_unknown_text(text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        rule_from_text(text)
    assert str(caught.value) == (
        f"There is no gradient rule {text!r}. Expected 'bptt', 'bptt:STATES', 'bptt:MEMORY' as in 'bptt:64MiB', "
        "'truncated:K1,K2' with whole numbers K1 <= K2, 'rtrl', "
        "'snap:N', 'uoro', 'kfrtrl', 'rflo' or 'eprop'; the last six take the steps from update to update as one "
        "number more, as in 'rtrl:8' or 'snap:1,8'."
    )


def test_a_forward_rule_updates_every_so_many_steps() -> None:
    assert RTRL().segments(7) == (Segment(0, 0, 7),)
    assert SnAp(every=3).segments(7) == (Segment(0, 0, 3), Segment(3, 3, 6), Segment(6, 6, 7))
    assert UORO().segments(0) == ()


@pytest.mark.parametrize("every", [0, -1, True])
def test_impossible_updates(every: int) -> None:
    with pytest.raises(ArgumentError) as caught:
        RTRL(every=every)
    assert str(caught.value) == (
        f"RTRL was given every={every!r}, the steps from update to update: give a whole number of 1 or more, or None "
        "for one update at the end of a sequence."
    )


@pytest.mark.parametrize("n", [0, 1.5, True])
def test_impossible_influence(n: int) -> None:
    with pytest.raises(ArgumentError) as caught:
        SnAp(n=n)
    assert str(caught.value) == (f"SnAp takes n, the steps of influence that are kept, 1 or more, and {n!r} came.")
