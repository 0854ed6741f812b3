"""The generated pages are those that the present equations give."""

import importlib.util
import re
import runpy
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES: dict[Path, str] = generator().pages()


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
