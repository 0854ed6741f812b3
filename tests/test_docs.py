"""The generated pages and drawings are up to date."""

from pathlib import Path

import pytest

from from_file import module_of

ROOT = Path(__file__).parents[1]


PAGES: dict[Path, str] = module_of("docs/generate.py").pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_is_up_to_date(path: Path) -> None:
    assert path.exists(), f"{path.name} is missing: run make docs and commit what it writes"
    assert path.read_text(encoding="utf-8") == PAGES[path], f"{path.name} is out of date: run make docs and commit it"


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
