"""docs/gradients.md: its drawings and tables match the figures, and its table of rules is true."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from from_file import module_of
from gradients.forward_cases import difference, found, layer_of, problem
from layer_cases import CASES
from tidegate.cells import CELLS
from tidegate.errors import ArgumentError
from tidegate.runtime import support

FOLDER = Path(__file__).parents[1] / "docs" / "gradients"
PAGE = FOLDER.with_suffix(".md")
MADE: Any = module_of("docs/gradients/generate.py")
TABLES: Any = module_of("docs/generate.py")
KEPT: dict[str, Any] = json.loads((FOLDER / "rules.json").read_text(encoding="utf-8"))
QUICK = ("elman", "slstm", "min_gru", "lru")


def test_drawings_and_table_are_those_of_the_figures() -> None:
    for path, text in MADE.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run make gradients and commit it"
    written = {p.name for p in FOLDER.iterdir() if p.is_file()}
    assert written == {"generate.py", "rules.json", *(f"{name}.svg" for name in MADE.DRAWINGS)}


def test_the_figures_were_measured_as_the_page_says() -> None:
    how = KEPT["how"]
    assert how == MADE.HOW
    assert set(KEPT["nets"]) == set(MADE.NETS)
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"of {how['hidden_size']} units have been trained for {how['updates']} updates" in text
    assert f"of {how['lags'][0]} and of {how['lags'][1]} steps before" in text
    assert f"{how['steps']} steps of {how['rows']} rows" in text
    assert f"Median, minimum and maximum of {how['batches']} batches" in text
    assert f"on {MADE.UNITS} units after {MADE.TAKEN} steps" in text


def test_what_the_page_says_of_the_figures_holds() -> None:
    elman, lstm = ({rule: median(v) for rule, v in KEPT["nets"][name]["cosines"].items()} for name in MADE.NETS)
    for net in (elman, lstm):
        assert net["rtrl"] == 1.0
        assert net["truncated:1,20"] > 0.99 > 0.7 > net["truncated:1,5"]
        assert net["kfrtrl"] > 2 * net["uoro"]
        assert net["snap:1"] >= net["eprop"]
    assert lstm["snap:1"] > 2 * elman["snap:1"]
    assert all(net["error"] < 0.2 for net in KEPT["nets"].values())


def test_what_was_drawn_can_be_measured_again() -> None:
    for title, (of, rule) in MADE.PANELS.items():
        torch.testing.assert_close(
            MADE.influence(of, rule), torch.tensor(KEPT["influence"][title]), rtol=1e-2, atol=1e-3
        )


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if str(c) in QUICK else pytest.mark.slow) for c in CASES if c.cell.name in CELLS],
    ids=str,
)
def test_the_table_of_rules_tells_the_truth(case: Any) -> None:
    layer = layer_of(case)
    x, target = problem(case, layer)
    with support.disabled():
        exact = found(layer, x, target)
        for rule in TABLES.RULES:
            promise = TABLES.promise(rule, case.cell, {})
            if promise.startswith("no"):
                with pytest.raises(ArgumentError, match=f"^{type(rule).__name__} does not support '"):
                    found(layer, x, target, rule)
            else:
                far = difference(found(layer, x, target, rule), exact)
                assert (far < 1e-10) == (promise == "exact"), (rule, far)
