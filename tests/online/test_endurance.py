"""Memory that stays where it is, over many steps."""

import sys
from typing import Any

import pytest

from from_file import module_of

ENDURANCE: Any = module_of("tests/online/endurance.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_memory_is_flat_over_two_hundred_thousand_steps() -> None:
    memory = [resident for _, resident, _ in ENDURANCE.lines(200_000, 20_000)]
    assert max(memory[2:]) - memory[1] < 3.0, memory  # MB; a float kept from each step would be 4
    assert len(memory) == 10


def test_the_count_of_steps_is_told() -> None:
    ((n, memory, learner),) = ENDURANCE.lines(60, 60)
    assert (n, learner.steps, len(learner.keys)) == (60, 60, 16)
    assert memory > 10
