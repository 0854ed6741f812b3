"""docs/online.md: its drawing matches the measured figures."""

from pathlib import Path
from typing import Any

from from_file import module_of

PAGE = Path(__file__).parents[2] / "docs" / "online.md"
MADE: Any = module_of("docs/online/generate.py")


def test_the_drawing_is_that_of_the_figures() -> None:
    again = "run python docs/online/generate.py and commit what it writes"
    assert (PAGE.parent / "online" / "drift.svg").read_text(encoding="utf-8") == MADE.paint(MADE.read()), again


def test_what_the_page_says_of_them_is_so() -> None:
    found, how = MADE.read(), MADE.HOW
    assert found["how"] == how
    assert found["alarms"] == [how["drift"] + 122]
    border = how["drift"] // how["each"]
    assert max(found["learner"][border + 1 :]) < 1.5 < 5 < min(found["stopped"][border + 1 :])


def test_the_measure_is_that_of_the_page_in_small() -> None:
    found = MADE.measure({**MADE.HOW, "steps": 40, "drift": 30, "each": 10})
    assert found["learner"][:3] == found["stopped"][:3]
    assert found["learner"][3] != found["stopped"][3]
