"""The schedule against a search of all schedules, and what is stored against what may be."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ArgumentError
from tidegate.gradients import BPTT, rule_from_text
from tidegate.gradients.checkpoint import CheckpointLayout, Move, laid_out, schedule


@cache
def fewest_runs(blocks: int, states: int) -> int:
    """By trying every place for the first state to be stored, or none."""
    if blocks < 2 or not states:
        return blocks * (blocks + 1) // 2
    parts = ((k, blocks - k) for k in range(1, blocks))
    return min(k + fewest_runs(rest, states - 1) + fewest_runs(k, states) for k, rest in parts)


def runs(moves: list[Move]) -> int:
    return sum(move.end - move.begin + move.turn for move in moves)


@pytest.mark.parametrize("states", range(1, 9))
def test_a_schedule_has_the_fewest_runs(states: int) -> None:
    for blocks in range(40):
        assert runs(list(schedule(blocks, states))) == fewest_runs(blocks, states)


@given(st.integers(1, 300), st.integers(1, 60))
def test_a_schedule_can_be_done_with_its_states(blocks: int, states: int) -> None:
    stored, left = {0}, blocks
    for move in schedule(blocks, states):
        assert move.begin in stored
        if move.turn:
            left -= 1
            assert move.end == left
            stored.discard(left)
        else:
            stored.add(move.end)
            assert len(stored - {0}) <= states
    assert left == 0


def test_enough_states_run_each_block_twice_but_the_last() -> None:
    assert list(schedule(3, 2)) == [
        Move(0, 1, False),
        Move(1, 2, False),
        Move(2, 2, True),
        Move(1, 1, True),
        Move(0, 0, True),
    ]


def test_two_thousand_blocks_on_few_states() -> None:
    assert runs(list(schedule(2000, 10))) / 2000 < 6


# memory


@given(st.integers(1, 50), st.integers(1, 100), st.integers(1, 1000), st.integers(1, 100))
def test_a_budget_is_kept(blocks: int, state: int, block: int, budget: int) -> None:
    if budget << 10 < block + state:
        return
    found = laid_out(f"{budget}KiB", blocks, state, block)
    assert found.blocks + found.last == blocks + 1
    assert found.states * state + found.last * block <= budget << 10


def test_what_is_left_of_a_budget_keeps_activations() -> None:
    assert laid_out("1KiB", 10, 32, 128) == CheckpointLayout(
        4, 7, 3
    )  # 3 * 32 + 7 * 128 bytes of 1024, and 8 blocks are 1088
    assert laid_out("2KiB", 10, 32, 128) == CheckpointLayout(1, 10, 0)
    assert laid_out("1KiB", 100, 32, 128) == CheckpointLayout(100, 1, 28)


def test_a_number_of_states_is_taken_as_it_is() -> None:
    assert laid_out(50, 32, 0, 0) == CheckpointLayout(32, 1, 50)


def test_a_budget_that_cannot_be_met() -> None:
    with pytest.raises(ArgumentError) as caught:
        laid_out("1KiB", 2, 100, 1000)
    assert str(caught.value) == (
        "checkpoint='1KiB' is 1024 bytes, but this net needs at least 1100: the activations of a block of steps take "
        "1000 and a state 100. Give that much, or use a smaller batch."
    )


# text


@pytest.mark.parametrize(
    ("given", "text"), [(50, "bptt:50"), ("64MiB", "bptt:64MiB"), (" 3 kib", "bptt:3KiB"), ("002GIB", "bptt:2GiB")]
)
def test_text_both_ways(given: int | str, text: str) -> None:
    rule = BPTT(checkpoint=given)
    assert str(rule) == text
    assert rule_from_text(text) == rule_from_text(text.lower()) == rule


@pytest.mark.parametrize("given", [0, -3, True, 2.5, "64", "64MB", "MiB", "0KiB", "1.5MiB", "-1MiB"])
def test_no_checkpoint(given: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        BPTT(checkpoint=given)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"checkpoint must be a number of states to store or a memory budget, got {given!r}: pass a positive integer "
        "such as 50, or text with one of the units KiB, MiB, GiB, such as '64MiB'."
    )
