"""The guide to kernels is true: its code and its commands run, its variables and figures are those of the sources."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tidegate.cli import application
from tidegate.native import cpu
from tidegate.native.run import cache
from tidegate.runtime import support

GUIDE = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text(encoding="utf-8")


@pytest.mark.kernels
def test_its_code_runs() -> None:
    support.warn_once.cache_clear()
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 1
    for block in blocks:
        exec(block, {})  # noqa: S102


@pytest.mark.parametrize("line", re.findall(r"^tidegate ([^#\n]+)", GUIDE, re.MULTILINE))
def test_its_commands_run(line: str) -> None:
    assert CliRunner().invoke(application(), line.split(), catch_exceptions=False).exit_code == 0


def test_its_variables() -> None:
    found = re.findall(r"^\| `(TIDEGATE_\w+)=", GUIDE, re.MULTILINE)
    assert found == [support.VARIABLE, cpu.CHOICE, cache.VARIABLE]


def test_its_figures() -> None:
    assert f"Above {cache.MAX_FILES} files or {cache.MAX_BYTES >> 20} MiB" in " ".join(GUIDE.split())
