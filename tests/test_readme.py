"""The README cannot lie: its code runs, its commands exist, its links lead somewhere."""

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tidegate.cli import application

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted({ROOT / "README.md", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")})


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    return [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "readme.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    names = runpy.run_path("readme.py")
    assert r"\sigma" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["mgu"]
    assert names["y"].shape == (20, 4, 16)
    assert names["same"].cell.to_json() == names["layer"].cell.to_json()


def test_its_make_commands_are_targets() -> None:
    wanted = [words for words in commands() if words[0] == "make"]
    assert wanted
    for words in wanted:
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)


def test_its_options_exist() -> None:
    wanted = [words for words in commands() if words[0] == "tidegate"]
    assert wanted
    for words in wanted:
        verb = words[1:3] if words[1] == "fit" else words[1:2]
        assert verb in (["fit", "forecast"], ["learn"])
        shown = CliRunner().invoke(application(), [*verb, "--help"], terminal_width=200).output
        assert {w for w in words if w.startswith("--")} <= set(re.findall(r"--[a-z-]+", shown))


@pytest.mark.parametrize("name", ["demo", "test"])
def test_ci_finds_its_commands(name: str) -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = re.search(r"^readme\(\) \{.*?^\}", script, re.DOTALL | re.MULTILINE)
    assert function
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{function.group()}\nreadme {name}; readme absent"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.stdout == f"make {name}\n"
    assert (run.returncode, run.stderr) == (1, "README.md has no block marked <!-- ci: absent -->\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_that_are_quoted_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`tidegate ([a-z]+)", text)) <= {c.name for c in application().registered_commands} | {"fit"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which does not exist"
