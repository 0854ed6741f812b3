"""The packages of docs/layout.md, enforced: what may be imported where, and who may write to a terminal."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from from_file import module_of

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tidegate"

LINES = """
errors
config
equations
cells | calculus
reference
native
files
runtime
nn
gradients | data | metrics
report
training
tasks | online
models
conformance
cli
"""
RANK = {package: rank for rank, line in enumerate(LINES.strip().splitlines()) for package in line.split(" | ")}

TORCH_FREE = {"errors", "config", "equations", "cells", "calculus", "reference", "native", "files", "report"}
OWNERS = {  # who may import a library: packages, or paths below src/tidegate
    "torch": (set(RANK) - TORCH_FREE) | {"reference/torch_ops.py", "reference/unroll.py", "reference/step_program.py"},
    "llvmlite": {"native"},
    "typer": {"cli"},
    "rich": {"cli", "training/progress.py"},
}
BESIDE = {"benchmarks", "reproductions", "tests"}
MOST_MODULES = 15  # of a package, before it gets sub-packages
LATE = {"__init__.py", "cli", "models.py"}  # docs/decisions/0006-models-import-late.md
TERMINAL = {"cli", "training/progress.py"}
CLI_AT_ONCE = {"errors", "config", "equations", "cells", "calculus", "files", "report", "cli"}


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    late: bool
    for_types: bool


def violations(path: str, source: str) -> list[str]:
    """What is wrong with the file at `path` (relative to src/tidegate), each with its line."""
    tree = ast.parse(source)
    found = [(i.line, fault) for i in imports(tree, path) for fault in faults(path, i)]
    if not owned(path, TERMINAL):
        found += [(line, "only cli and training/progress.py write to a terminal") for line in writes(tree)]
    return [f"{path}:{line}: {fault}" for line, fault in sorted(found)]


def faults(path: str, found: Import) -> Iterator[str]:
    top, _, rest = found.module.partition(".")
    if found.late and not owned(path, LATE):
        yield f"imports {found.module} late: only tidegate/__init__.py, cli and models.py do"
    if top == "tidegate":
        yield from package_faults(path, found, rest.partition(".")[0])
    elif top in BESIDE:
        yield f"imports {top}, which is no part of the package"
    elif top in OWNERS and not owned(path, OWNERS[top]):
        yield f"imports {top}, which belongs to {', '.join(sorted(OWNERS[top]))}"
    elif top in ("torch", "llvmlite") and package_of(path) == "cli" and not found.late:
        yield f"imports {top} at once: cli imports it inside a verb"


def package_faults(path: str, found: Import, target: str) -> Iterator[str]:
    package = package_of(path)
    if package in ("__init__", "__main__"):
        return
    if package not in RANK:
        yield f"{package} is not a package of docs/layout.md"
    elif target not in RANK:
        yield f"imports {found.module}: name the package that defines it"
    elif target == "native" and package not in ("native", "runtime"):
        yield f"imports {found.module}: only runtime imports native"
    elif target != package and RANK[target] >= RANK[package]:
        yield f"{package} imports {target}, which is not above it"
    elif package == "cli" and not (found.late or found.for_types or target in CLI_AT_ONCE):
        yield f"cli imports {target} at once: that may bring torch, so import it inside the verb"


def imports(tree: ast.AST, path: str) -> Iterator[Import]:
    in_functions = below(tree, lambda n: isinstance(n, ast.FunctionDef | ast.Lambda))
    for_types = below(tree, lambda n: isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    for node in ast.walk(tree):
        for module in modules(node, path):
            yield Import(module, node.lineno, node in in_functions or isinstance(node, ast.Call), node in for_types)


def below(tree: ast.AST, wanted: Callable[[ast.AST], bool]) -> set[ast.AST]:
    return {inner for node in ast.walk(tree) if wanted(node) for inner in ast.walk(node)}


def modules(node: ast.AST, path: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = absolute(node, path)
        yield from (f"tidegate.{alias.name}" for alias in node.names) if base == "tidegate" else (base,)
    elif isinstance(node, ast.Call) and re.search(r"(\b|_)(import_module|__import__)$", ast.unparse(node.func)):
        yield str(node.args[0].value) if isinstance(node.args[0], ast.Constant) else ast.unparse(node.args[0])


def absolute(node: ast.ImportFrom, path: str) -> str:
    package = ["tidegate", *Path(path).parent.parts]
    base = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def writes(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input"):
            yield node.lineno
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr", "sys.stdin"):
            yield node.lineno


def package_of(path: str) -> str:
    return Path(path).parts[0].removesuffix(".py")


def owned(path: str, owners: set[str]) -> bool:
    return path in owners or package_of(path) in owners


def test_every_file_keeps_to_the_layout() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert files
    found = [v for f in files for v in violations(f.relative_to(SOURCE).as_posix(), f.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def parsed() -> dict[str, ast.Module]:
    """Each file of the package, by its path below src/tidegate."""
    found = {f.relative_to(SOURCE).as_posix(): f.read_text(encoding="utf-8") for f in sorted(SOURCE.rglob("*.py"))}
    return {path: ast.parse(text) for path, text in found.items()}


def test_no_two_classes_have_one_name() -> None:
    assert repeated_classes(parsed()) == []


def repeated_classes(trees: Mapping[str, ast.AST]) -> list[str]:
    places: dict[str, list[str]] = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path}:{node.lineno}")
    return [f"{name}: {', '.join(each)}" for name, each in sorted(places.items()) if len(each) > 1]


def test_no_package_uses_another_ones_private_attributes() -> None:
    assert foreign_privates(parsed()) == []


def foreign_privates(trees: Mapping[str, ast.AST]) -> list[str]:
    """Uses of a private name that only other packages define."""
    owners: dict[str, set[str]] = {}
    for path, tree in trees.items():
        for name in defined_privates(tree):
            owners.setdefault(name, set()).add(package_of(path))
    return [
        f"{path}:{line}: {name} belongs to {', '.join(sorted(owners[name]))}"
        for path, tree in trees.items()
        for line, name in used_privates(tree)
        if name in owners and package_of(path) not in owners[name]
    ]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined_privates(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and is_private(node.name):
            yield node.name
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if is_private(name):
                yield name


def used_privates(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if ast.unparse(node.value) not in ("self", "cls", "super()"):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tidegate"):
            yield from ((node.lineno, alias.name) for alias in node.names if is_private(alias.name))


def test_no_package_has_too_many_modules() -> None:
    folders = [f for f in (SOURCE, *SOURCE.rglob("*")) if f.is_dir() and f.name != "__pycache__"]
    counts = {f.relative_to(SOURCE).as_posix(): sum(p.name != "__init__.py" for p in f.glob("*.py")) for f in folders}
    assert {name: n for name, n in counts.items() if n > MOST_MODULES} == {}


def test_planted_faults_of_the_whole_are_found() -> None:
    trees = {
        "nn/state.py": ast.parse("class State:\n    def _flat(self):\n        self._rows = 1"),
        "equations/graph.py": ast.parse("class State:\n    pass"),
        "nn/layer.py": ast.parse("x = state._flat()"),
        "tasks/net.py": ast.parse("x = 1\ny = state._rows\nz = module._parameters"),
        "cli/show.py": ast.parse("from tidegate.nn.state import State, _flat"),
    }
    assert repeated_classes(trees) == ["State: nn/state.py:1, equations/graph.py:1"]
    assert foreign_privates(trees) == [
        "tasks/net.py:2: _rows belongs to nn",
        "cli/show.py:1: _flat belongs to nn",
    ]


def test_oracles_are_independent_of_the_cells() -> None:
    files = sorted((ROOT / "tests" / "oracles").rglob("*.py"))
    assert files
    for file in files:
        found = {i.module for i in imports(ast.parse(file.read_text(encoding="utf-8")), "tests")}
        assert not [m for m in found if m.startswith(("tidegate.cells", "tests.cells"))], f"{file} imports a cell"


def test_the_order_is_that_of_the_page() -> None:
    page = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    drawn = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert drawn
    assert drawn.group(1).strip() == LINES.strip()


def test_the_drawing_has_the_packages_in_this_order() -> None:
    drawn = [" | ".join(name for name, *_ in packages) for _, _, packages in module_of("docs/generate.py").LAYOUT]
    assert drawn == LINES.strip().splitlines()


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("equations/ops.py", "import torch.nn", "imports torch, which belongs to"),
        ("reference/numpy_ops.py", "from torch import nn", "imports torch, which belongs to"),
        ("nn/layer.py", "import llvmlite", "imports llvmlite, which belongs to native"),
        ("nn/layer.py", "from tidegate.native import cpu", "imports tidegate.native: only runtime imports native"),
        ("cli/fit.py", "def f():\n    import tidegate.native.cpu", "only runtime imports native"),
        ("data/frames.py", "from rich import table", "imports rich, which belongs to cli, training/progress.py"),
        ("cells/lstm.py", "from tidegate.calculus import reverse", "cells imports calculus, which is not above it"),
        ("nn/layer.py", "from tidegate import training", "nn imports training, which is not above it"),
        ("nn/layer.py", "from ..training import loop", "nn imports training, which is not above it"),
        ("nn/layer.py", "if TYPE_CHECKING:\n    import tidegate.tasks", "nn imports tasks, which is not above it"),
        ("training/loop.py", "from tidegate import Recurrent", "imports tidegate.Recurrent: name the package"),
        ("training/loop.py", "import tidegate", "imports tidegate: name the package"),
        ("nn/layer.py", "from benchmarks import rows", "imports benchmarks, which is no part of the package"),
        ("nn/layer.py", "import reproductions.run", "imports reproductions, which is no part of the package"),
        ("odd/new.py", "from tidegate import errors", "odd is not a package of docs/layout.md"),
        (
            "nn/layer.py",
            "def f():\n    import numpy",
            "imports numpy late: only tidegate/__init__.py, cli and models.py do",
        ),
        ("nn/layer.py", "importlib.import_module('numpy')", "imports numpy late"),
        ("nn/layer.py", "g = lambda n: __import__(n)", "imports n late"),
        ("cli/fit.py", "import torch", "imports torch at once: cli imports it inside a verb"),
        ("cli/fit.py", "from tidegate.tasks.forecast import Forecaster", "cli imports tasks at once"),
        ("training/loop.py", "print('epoch 1')", "only cli and training/progress.py write to a terminal"),
        ("training/loop.py", "sys.stderr.write('epoch 1')", "only cli and training/progress.py write to a terminal"),
    ],
)
def test_a_planted_fault_is_found(path: str, source: str, expected: str) -> None:
    (found,) = violations(path, source)
    line = source.count("\n") + 1
    assert found.startswith(f"{path}:{line}: ")
    assert expected in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("reference/torch_ops.py", "import torch"),
        ("nn/layer.py", "import torch\nfrom tidegate.cells import CELLS\nfrom tidegate.nn.state import State"),
        ("nn/layer.py", "from .state import State\nfrom . import clip"),
        (
            "cli/fit.py",
            "import typer\nfrom tidegate.cli import packages\ndef fit():\n    import torch\n    print(torch)",
        ),
        ("training/progress.py", "import sys\nfrom rich.progress import Progress\nsys.stderr.write('')"),
        ("__init__.py", "def __getattr__(name):\n    return import_module(name)"),
    ],
)
def test_what_is_allowed_is_not_found(path: str, source: str) -> None:
    assert violations(path, source) == []
