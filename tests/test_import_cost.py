"""What an import brings along. Times are not measured here: which modules come is what decides them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tidegate

HEAVY = {"torch", "numpy", "llvmlite", "safetensors", "matplotlib", "polars", "narwhals", "pydantic", "typer", "rich"}
APP = HEAVY - {"torch", "numpy", "llvmlite", "safetensors"} | {"latex2mathml"}
INIT = Path(tidegate.__file__)


def brought(statement: str, *, without: set[str] = frozenset()) -> set[str]:
    """The top-level packages that a statement loads in a new process where `without` cannot be imported."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(without)!r})); before = set(sys.modules)\n{statement}\n"
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before}, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stderr.splitlines()[-1].split())


def test_importing_tidegate_brings_nothing_but_the_standard_library() -> None:
    found = brought("import tidegate") - {"tidegate"}
    assert found <= sys.stdlib_module_names
    assert len(found) < 25, f"each module costs time, and these are many: {sorted(found)}"


def test_help_brings_neither_torch_nor_llvmlite() -> None:
    found = brought(
        "import tidegate.cli; sys.argv = ['tidegate', '--help']\ntry: tidegate.cli.main()\nexcept SystemExit: pass"
    )
    assert "typer" in found
    assert not found & {"torch", "llvmlite", "numpy", "polars", "matplotlib"}


@pytest.mark.parametrize("package", ["errors", "equations", "cells", "calculus", "files", "config", "report"])
def test_packages_without_torch(package: str) -> None:
    assert not brought(f"import tidegate.{package}") & {"torch", "llvmlite"}


def test_layers_work_without_the_extra() -> None:
    program = (
        "import tidegate, torch\nassert tidegate.LSTM(3, 5)(torch.zeros(2, 1, 3))[0].shape == (2, 1, 5)\ntidegate.save"
    )
    assert "torch" in brought(program, without=APP)


@pytest.mark.parametrize("name", tidegate.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(tidegate, name) is getattr(tidegate, name)
    assert name in dir(tidegate)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(INIT.read_text(encoding="utf-8"))
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    seen = {(n.module, a.name) for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    lazy = {(home, name) for name, home in tidegate._HOMES.items()} | {("tidegate", r) for r in tidegate._PACKAGES}
    assert seen == lazy
    assert {name for _, name in seen} | {"__version__"} == set(tidegate.__all__)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError) as caught:
        _ = tidegate.Recurent
    assert str(caught.value) == "module 'tidegate' has no attribute 'Recurent'"
    assert (caught.value.name, caught.value.obj) == ("Recurent", tidegate)  # Python adds: Did you mean: 'Recurrent'?
