"""The generated pages are those that the present equations give."""

import re
import runpy
import textwrap
from pathlib import Path

import pytest

from from_file import module_of
from tidegate import equations
from tidegate.cells import transforms
from tidegate.conformance import check_cell

ROOT = Path(__file__).parents[1]


PAGES: dict[Path, str] = module_of("docs/generate.py").pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_is_up_to_date(path: Path) -> None:
    assert path.exists(), f"{path.name} is missing: run make docs and commit what it writes"
    assert path.read_text(encoding="utf-8") == PAGES[path], f"{path.name} is out of date: run make docs and commit it"


def _written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_the_guide_to_forecasting_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "forecasting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        runpy.run_path(_written(tmp_path / "block.py", block))
    assert (tmp_path / "runs" / "co2-model" / "model.json").is_file()


def test_no_page_is_left_over() -> None:
    assert set((ROOT / "docs" / "cells").iterdir()) == {p for p in PAGES if p.parent.name == "cells"}


def test_every_page_shows_formulas_and_diagram() -> None:
    text = PAGES[ROOT / "docs" / "cells.md"]
    cells = [p.stem for p in PAGES if p.parent.name == "cells" and p.stem != "net"]
    assert len(cells) >= 27
    for name in cells:
        part = text.split(f"### {name}\n")[1].split("### ")[0]
        assert "\\begin{aligned}" in part
        assert f"cells/{name}.svg" in part


def test_the_page_on_transforms_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "transforms.md").read_text("utf-8"), re.DOTALL)
    scope: dict[str, object] = {}
    exec(block, scope)  # noqa: S102 - our own page
    assert scope["milder"].options["zoneout_c"] == 0.2  # type: ignore[attr-defined]


def test_what_the_guide_to_contributing_adds_works() -> None:
    """Its cell and its transform, as they stand there."""
    cell, transform = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)
    scope = {**vars(equations), **vars(transforms)}
    exec(textwrap.dedent(cell), scope)  # noqa: S102 - our own page
    exec(transform, scope)  # noqa: S102 - our own page
    made = scope["scaled"](scope["leaky"], 0.5)
    assert made.options == {"leak": 0.2, "gain": 0.9, "factor": 0.5}
    assert check_cell(made, only=["sequence", "kernels", "texts"])
