"""docs/diagnose.md: its drawings and table match the measured figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from from_file import module_of

FOLDER = Path(__file__).parents[1] / "docs" / "diagnose"
PAGE = FOLDER.with_suffix(".md")
MADE: Any = module_of("docs/diagnose/generate.py")
KEPT: dict[str, Any] = json.loads((FOLDER / "nets.json").read_text(encoding="utf-8"))


def test_drawings_and_table_are_those_of_the_figures() -> None:
    for path, text in MADE.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run make diagnose and commit it"
    written = {p.name for p in FOLDER.iterdir() if p.is_file()}
    assert written == {"generate.py", "nets.json", "report.png", *(f"{name}.svg" for name in MADE.DRAWINGS)}


def test_the_figures_were_measured_as_the_page_says() -> None:
    assert KEPT["how"] == MADE.HOW
    assert list(KEPT["nets"]) == list(MADE.NETS)
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert "Four networks of 48 units at initialisation, on 100 steps of noise" in text
    assert [net["lags"]["flow"] for net in KEPT["nets"].values()] == ["vanishing", "exploding", "vanishing", "steady"]


def test_what_was_measured_can_be_measured_again() -> None:
    """In a net that shrinks differences, rounding dies out and figures are those of every processor. One that lets them
    grow soon goes a way of its own on each: there the gradient grows a hundredfold, by whatever path."""
    found = MADE.measure()["nets"]
    for name, net in KEPT["nets"].items():
        lags, kept = found[name]["lags"], net["lags"]
        assert lags["flow"] == kept["flow"]
        if net["growth"] < 0:
            assert lags["median"][:20] == pytest.approx(kept["median"][:20], rel=0.01)
            assert found[name]["radius"] == pytest.approx(net["radius"], rel=0.01)
            assert found[name]["growth"] == pytest.approx(net["growth"], rel=0.01)
        else:
            assert lags["median"][60] > 100 * lags["median"][0] > 0
            assert found[name]["radius"] > 1.05
            assert found[name]["growth"] > 0.05
    assert [name for name, net in found.items() if net["growth"] > 0] == ["Elman, gain 2.5"]
