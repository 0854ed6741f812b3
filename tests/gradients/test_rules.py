"""Rules as plain values: their segments and their text."""

import copy
import pickle
from typing import Any

import numpy as np
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


def test_updates_further_apart_than_gradients_reach() -> None:
    with pytest.raises(ArgumentError) as caught:
        TruncatedBPTT(4, 3)
    assert str(caught.value) == (
        "TruncatedBPTT needs 1 <= k1 <= k2, got k1=4 and k2=3: gradients must reach back at least to the last "
        "update. Use for example k1=16, k2=32."
    )


EVERY_KIND = [
    BPTT(),
    BPTT(checkpoint=50),
    BPTT(checkpoint="64MiB"),
    TruncatedBPTT(3, 17),
    RTRL(),
    RTRL(every=8),
    SnAp(),
    SnAp(n=2, every=4),
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
        f"unknown gradient rule {text!r}: expected 'bptt', 'bptt:STATES', 'bptt:MEMORY' as in 'bptt:64MiB', "
        "'truncated:K1,K2' with whole numbers K1 <= K2, 'rtrl', "
        "'snap:N', 'uoro', 'kfrtrl', 'rflo' or 'eprop'; the last six take the steps from update to update as one "
        "number more, as in 'rtrl:8' or 'snap:1,8'."
    )


def test_a_forward_rule_updates_every_so_many_steps() -> None:
    assert RTRL().segments(7) == (Segment(0, 0, 7),)
    assert SnAp(every=3).segments(7) == (Segment(0, 0, 3), Segment(3, 3, 6), Segment(6, 6, 7))
    assert UORO().segments(0) == ()


UPDATES = ", the steps between updates, or None for one update at the end"


@pytest.mark.parametrize("given", [-1, True, 1.5, "8", np.float64(8.0)])
@pytest.mark.parametrize(
    ("rule", "option", "said"),
    [
        (RTRL, "every", f"every of RTRL must be a whole number of 1 or more{UPDATES}"),
        (SnAp, "n", "n of SnAp must be a whole number of 1 or more"),
        (UORO, "seed", "seed of UORO must be a whole number of 0 or more"),
        (KFRTRL, "seed", "seed of KFRTRL must be a whole number of 0 or more"),
        (lambda k1: TruncatedBPTT(k1, 9), "k1", "k1 of TruncatedBPTT must be a whole number of 1 or more"),
        (lambda k2: TruncatedBPTT(1, k2), "k2", "k2 of TruncatedBPTT must be a whole number of 1 or more"),
    ],
)
def test_options_that_are_no_whole_numbers(rule: Any, option: str, said: str, given: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        rule(**{option: given})
    assert str(caught.value) == f"{said}, got {given!r}"


def test_numpys_numbers_are_whole_numbers() -> None:
    three = np.int64(3)
    rules = [RTRL(every=three), SnAp(n=three), UORO(seed=three), BPTT(checkpoint=three), TruncatedBPTT(three, three)]
    plain = [RTRL(every=3), SnAp(n=3), UORO(seed=3), BPTT(checkpoint=3), TruncatedBPTT(3, 3)]
    assert repr(rules) == repr(plain)
    assert rules == plain


@pytest.mark.parametrize(
    ("rule", "given", "said"),
    [
        (RTRL, (8,), "RTRL takes every= by name, as in RTRL(every=8), got RTRL(8)"),
        (SnAp, (8, 2), "SnAp takes every= and n= by name, as in SnAp(n=8), got SnAp(8, 2)"),
        (UORO, (8,), "UORO takes every= and seed= by name, as in UORO(seed=8), got UORO(8)"),
        (EProp, (8,), "EProp takes every= by name, as in EProp(every=8), got EProp(8)"),
        (BPTT, ("64MiB",), "BPTT takes checkpoint= by name, as in BPTT(checkpoint='64MiB'), got BPTT('64MiB')"),
    ],
)
def test_options_are_given_by_name(rule: Any, given: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        rule(*given)
    assert str(caught.value) == said


@pytest.mark.parametrize("rule", EVERY_KIND, ids=str)
def test_rules_are_copied_and_pickled(rule: object) -> None:
    assert copy.deepcopy(rule) == pickle.loads(pickle.dumps(rule)) == rule  # noqa: S301 - our own bytes
