"""`tidegate doctor`: each finding, and what it advises where something is wrong."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from tidegate.cli import doctor
from tidegate.cli.doctor import Finding


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    doctor.register(app)
    return app


def test_this_machine_can_be_used(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--json"])
    assert result.exit_code == 0
    told = json.loads(result.output)
    findings = {f["name"]: f for f in told["findings"]}
    assert told["usable"]
    assert list(findings) == [
        "system", "cpu", "threads", "torch", "numpy", "safetensors", "llvmlite", "cache", "extra app",
    ]  # fmt: skip
    assert findings["numpy"]["value"] == version("numpy")
    assert findings["llvmlite"] == {
        "name": "llvmlite",
        "value": f"{version('llvmlite')}, compiles and runs",
        "advice": "",
        "needed": False,
        "ok": True,
    }
    assert findings["extra app"]["value"] == "complete"


def test_the_text_says_what_to_do(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("numpy", "2.0", needed=True), Finding("torch", "broken", "repair it", needed=True)]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    result = CliRunner().invoke(app)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"tidegate {version('tidegate')}",
        "ok  numpy  2.0",
        "!!  torch  broken",
        "           repair it",
        "Tidegate cannot be used here yet.",
    ]


def test_what_is_not_needed_does_not_make_it_unusable(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("extra app", "without rich", "pip install it")])
    result = CliRunner().invoke(app)
    assert result.exit_code == 0
    assert result.output.endswith("Tidegate can be used here.\n")


def test_torch_and_its_openmp() -> None:
    found = doctor.torch_build()
    assert found.ok
    assert found.value.startswith(f"{version('torch')}, ")
    assert "OpenMP" in found.value


@pytest.mark.parametrize(("look", "name"), [(doctor.torch_build, "torch"), (lambda: doctor.package("numpy"), "numpy")])
def test_a_needed_package_that_does_not_import(look, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert look() == Finding(
        name,
        f"cannot be imported: import of {name} halted; None in sys.modules",
        f"pip install --force-reinstall --no-deps {name}",
        needed=True,
    )


def test_too_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 64))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert doctor.threads() == Finding(
        "threads",
        "2 processors, torch uses 64 threads",
        "more threads than processors slow each other down: set OMP_NUM_THREADS=2",
    )


@pytest.mark.parametrize(("module", "look"), [("torch", doctor.threads), ("llvmlite.binding", doctor.cpu)])
def test_a_detail_that_cannot_be_asked_is_left_out(module: str, look, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = look()
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("platform.processor", lambda: "x")
    assert look().ok
    assert len(look().value) < len(whole.value)


def test_a_compiled_function_computes() -> None:
    assert doctor.compiled_sum(-3, 10) == 7


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise OSError('no executable memory')", "OSError: no executable memory"),
        ("import os; os._exit(9)", "ended with 9"),
    ],
)
def test_a_compiler_that_does_not_work(program: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TRY_ADD", program)
    assert doctor.compiler() == Finding(
        "llvmlite",
        f"cannot compile and run a function: {reason}",
        "layers work without it; to repair it: pip install --force-reinstall --no-deps llvmlite",
    )


def test_the_cache_folder_is_looked_at_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "deep"))
    assert doctor.cache() == Finding("cache", f"{tmp_path / 'deep' / 'tidegate'} can be written")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tidegate").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor.cache() == Finding(
        "cache",
        f"{tmp_path / 'tidegate'} cannot be written: Not a directory",
        "set XDG_CACHE_HOME to a folder that you may write",
    )


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> str:
        if name in ("rich", "polars"):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", without)
    assert doctor.extra("app") == Finding("extra app", "without polars, rich", "pip install 'tidegate[app]'")
