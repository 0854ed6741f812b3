"""docs/layers.md: its examples run, one after another."""

import re
from pathlib import Path
from typing import Any

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "layers.md"


@pytest.mark.kernels
def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, scope = GUIDE.read_text("utf-8"), dict[str, Any]()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block.group(1), str(GUIDE), "exec"), scope)  # noqa: S102 - our own page
    assert len(blocks) >= 10
    assert scope["again"].cell.to_json() == scope["layer"].cell.to_json()
