"""Verdicts: the mean over shapes, the rule for each shape, and what a line is decided by."""

from dataclasses import replace

import pytest

from benchmark_rows import MEDIUM, SMALL, row, times
from benchmarks.cases import CASES
from benchmarks.lines import LINES, Line, judge, judged
from benchmarks.peers import PEERS
from benchmarks.shapes import GROUPS, Shape
from benchmarks.tables import verdict

LINE = Line("ours against theirs", "lstm", "forward", ("torch",), 1.4)
OTHER = GROUPS["medium"][1]


@pytest.mark.parametrize(
    ("ratios", "met", "figure"),
    [((1.4,), True, 1.4), ((1.2, 1.8), True, 1.4697), ((1.2, 1.5), False, 1.3416), ((1.0, 2.5), False, 1.5811)],
)
def test_the_geometric_mean_and_each_shape_decide(ratios: tuple[float, ...], met: bool, figure: float) -> None:
    found = judge(LINE, [row(r, shape=s) for r, s in zip(ratios, (MEDIUM, SMALL), strict=False)])
    assert (found.met, found.shapes, found.cells) == (met, len(ratios), 1)
    assert found.figure == pytest.approx(figure, abs=1e-4)


@pytest.mark.parametrize(
    ("ratio", "share", "least", "needed"),
    [
        (1.0, None, 0.0, 1.12),  # 0.8 of the line
        (1.0, 0.5, 0.0, 1.12),  # 80 % of the limit would be 1.6
        (1.0, 0.8, 0.0, 1.0),  # 80 % of the limit is less than 0.8 of the line
        (1.05, 0.84, 0.0, 1.0),
        (1.0, 0.76, 0.0, 0.8 / 0.76),
        (1.0, 1.3, 0.0, 1.12),  # a limit that was passed is none
        (1.05, 0.9, 1.1, 1.1),  # what no shape may fall below holds at the limit too
        (1.11, 0.1, 1.1, 1.12),
    ],
)
def test_a_shape_needs_the_lower_of_line_and_limit(ratio: float, share: float, least: float, needed: float) -> None:
    line = replace(LINE, least=least)
    assert line.needed(row(ratio, share)) == pytest.approx(needed)
    found = judge(line, [row(ratio, share), row(3.0, shape=SMALL)])
    assert found.met == (ratio >= needed)
    assert found.below == (() if found.met else (f"lstm 100 32 128 256: {ratio:.2f}, needs {needed:.2f}",))


def test_without_easing_only_the_least_counts() -> None:
    line = replace(LINE, wanted=1.2, least=1.0, eased=False)
    assert line.needed(row(1.0, 0.1)) == 1.0
    assert judge(line, [row(1.0), row(1.5, shape=SMALL)]).met
    assert not judge(line, [row(0.99), row(1.9, shape=SMALL)]).met


def test_the_nearest_peer_counts_and_the_slowest_cell() -> None:
    line = replace(LINE, peers=("eager", "torchrecurrent"), wanted=2.0)
    rows = [
        row(9.0, subject="a", peer="eager"),
        row(2.5, subject="a", peer="torchrecurrent"),
        row(3.0, subject="b", peer="eager"),
        row(1.7, subject="b", peer="eager", shape=OTHER),
    ]
    found = judge(line, rows)
    assert (found.cell, found.cells, found.shapes, found.met) == ("b", 2, 2, True)
    assert found.figure == pytest.approx((3.0 * 1.7) ** 0.5)
    assert judge(line, rows[:2]).figure == 2.5


def test_a_line_looks_at_its_own_rows_only() -> None:
    line = replace(LINE, groups=("small",), steps=500, rows=1)
    long = Shape(1000, 1, 32, 64)
    assert not replace(line, rows=2).concerns(row(shape=long))
    assert line.concerns(row(shape=long))
    other = {"shape": SMALL}, {"shape": long, "peer": "eager"}, {"shape": long, "what": "training"}
    for more in (*other, {"shape": long, "malloc": "kept"}, {"shape": long, "case": "gru"}, {"shape": MEDIUM}):
        assert not line.concerns(row(**more))


def test_lines_in_seconds() -> None:
    line = replace(LINE, measure="seconds", wanted=0.01)
    assert judge(line, [row(None), row(None, ours=times(0.004))]).figure == 0.01
    assert judge(line, [row(None)]).met
    assert not judge(line, [row(None, ours=times(0.0101)), row(None, ours=times(0.004))]).met


def test_lines_in_seconds_beyond_another() -> None:
    line = replace(LINE, measure="beyond", wanted=15e-6)
    assert judge(line, [row(ours=times(40e-6), theirs=times(26e-6))]).met
    assert not judge(line, [row(ours=times(40e-6), theirs=times(24e-6))]).met


def test_lines_of_memory() -> None:
    line = replace(LINE, measure="memory", wanted=0.06)
    found = judge(line, [row(memory=0.041), row(memory=0.0599)])
    assert (found.figure, found.met) == (0.0599, True)
    assert verdict(found).endswith(": 6.0% at most")
    assert not judge(line, [row(memory=0.061), row(memory=0.04)]).met


@pytest.mark.parametrize("off", [{"difference": 1.0}, {"difference": float("nan")}, {"their_difference": 1.0}])
@pytest.mark.parametrize("measure", ["ratio", "seconds"])
def test_a_wrong_answer_meets_no_line(off: dict[str, float], measure: str) -> None:
    found = judge(replace(LINE, measure=measure), [row(9.0, **off)])
    assert not found.met
    assert found.below == ("lstm 100 32 128 256: WRONG",)


def test_every_line_is_about_a_case_and_its_peers() -> None:
    ourselves = {
        "-",
        "our LSTM, a flop",
        "padded",
        "T 1000, a step",
        "stepper",
        "a Function of nothing",
        "plain BPTT",
        "our forward pass",
    }
    for line in LINES:
        assert line.case in CASES, line
        assert set(line.peers) <= set(PEERS) | ourselves
    assert {line.case for line in LINES} == set(CASES) - {"hidden", "batch", "busy"}
    assert len({line.text for line in LINES}) == len(LINES)


def test_only_lines_that_rows_decide_are_judged() -> None:
    found = judged([row(2.0), row(2.0, malloc="kept")])
    assert [v.line.text for v in found] == [
        "LSTM forward against torch's, >= 1.4, no shape below 1.0",
        "LSTM forward against torch's, its memory kept, >= 1.2, no shape below 1.0",
    ]
    assert judged([]) == []
