"""docs/initialisation.md: its drawings and tables match the measured figures."""

from pathlib import Path
from typing import Any

import pytest
import torch

from from_file import module_of

FOLDER = Path(__file__).parents[1] / "docs" / "initialisation"
PAGE = FOLDER.with_suffix(".md")


MADE: Any = module_of("docs/initialisation/generate.py")


def test_drawings_and_tables_are_those_of_the_figures() -> None:
    again = "run python docs/initialisation/generate.py and commit what it writes"
    for path, text in MADE.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: {again}"
    assert {p.name for p in FOLDER.iterdir() if p.is_file()} == {
        "generate.py",
        *(f"{name}.{kind}" for name in MADE.DRAWINGS for kind in ("svg", "json")),
    }


def test_the_figures_were_measured_as_the_page_says() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    adding, memory = MADE._read("adding"), MADE._read("memory")
    assert (adding["how"], memory["how"]) == (MADE.ADDING, MADE.MEMORY)
    assert list(adding["curves"]) == list(MADE.LOOKS)
    for said in ("LSTMs of 64 units", "Adam at 0.002", "batches of 20", "5000 updates", "mean of 50 updates"):
        assert said in text
    for runs in adding["curves"].values():
        assert [len(run) for run in runs] == [5000 // 50] * 3


def test_examples_of_the_adding_problem() -> None:
    x, wanted = MADE.examples(21, 400, torch.Generator().manual_seed(1))
    marked = x[..., 1] == 1.0
    assert (marked[:10].sum(0) == 1).all()
    assert (marked[10:].sum(0) == 1).all()
    assert set(marked.nonzero()[:, 0].tolist()) == set(range(21))
    numbers = x[..., 0].T[marked.T].reshape(400, 2)
    assert torch.allclose(numbers.sum(1), wanted)
    assert ((x[..., 0] >= 0.0) & (x[..., 0] < 1.0)).all()
    assert (wanted - 1.0).square().mean().item() == pytest.approx(MADE.BASELINE, rel=0.15)


def test_tables() -> None:
    how = {"updates": 40, "each": 5, "seeds": [1, 2, 3]}
    one, two, three = [0.2, 0.1, 0.009, 0.1] * 2, [0.2] * 8, [*[0.3] * 7, 0.002]
    assert MADE.adding_table({"how": how, "curves": {"some start": [one, two, three]}}) == [
        ["start", "after 10 updates", "after 20 updates", "after 40 updates", "below 0.01 after"],
        ["some start", "0.2", "0.2", "0.1", "15, 40, never (1 of 3 seeds)"],
    ]
    sizes, derivatives = [[1.0, 5.0, 10.0], [3.0, 3.0, 30.0], [2.0, 4.0, 20.0]], [[1.0, 0.5, 0.25]] * 3
    found = {"steps": [10, 20, 40], "size": {"some cell": sizes}, "derivative": {"some cell": derivatives}}
    assert MADE.memory_table(found) == [
        ["cell", *(f"{what} at {step}" for what in ("size of c", "derivative") for step in (10, 20, 40))],
        ["some cell", "2", "4", "20", "1", "0.5", "0.25"],
    ]


@pytest.mark.slow
def test_what_was_measured_can_be_measured_again() -> None:
    how = {**MADE.ADDING, "steps": 12, "hidden_size": 16, "updates": 400, "each": 50, "seeds": [1]}
    found = MADE.measure_adding(how)
    assert found["curves"] == MADE.measure_adding(how)["curves"]
    for (losses,) in found["curves"].values():
        assert len(losses) == 8
        assert losses[-1] < losses[0]
    assert MADE.draw_adding(found).startswith("<svg")
    how = {**MADE.MEMORY, "steps": 1000, "points": 13, "seeds": [1]}
    found = MADE.measure_memory(how)
    kept = MADE._read("memory")
    for name, (sizes,) in found["size"].items():
        assert sizes == pytest.approx(kept["size"][name][0][:13], rel=0.1)
    assert MADE.draw_memory(found).startswith("<svg")
