"""The guides are true: their code runs and prints what they show, their commands, options and links exist.

A page's Python blocks run in order in one namespace. A `text` block right after one shows its output, with `...` for
what differs from run to run. A block below the comment `<!-- not run: REASON -->` is left out.
"""

import ast
import contextlib
import doctest
import inspect
import io
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import tidegate as tg
from tidegate import equations
from tidegate.cells import transforms
from tidegate.cli import application
from tidegate.conformance import check_cell

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
GUIDES = [README, CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md"))]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")})
NEED_KERNELS = {"layers.md", "kernels.md"}
NAMESPACES = {CONTRIBUTING: {**vars(equations), **vars(transforms)}}  # of the files that its blocks are written into
CHEAP = {"cells", "check-data", "explain", "doctor"}  # verbs that are run as they stand
OTHER_PROGRAMS = {"pip", "tail"}
HOMES = (equations, transforms, tg.init, tg.gradients, tg)
PUBLIC = {name: getattr(home, name) for home in HOMES for name in getattr(home, "__all__", vars(home))}

BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the comment above it, its line in the file, and the output shown below it."""

    language: str
    text: str
    mark: str
    line: int
    output: str | None

    @property
    def runs(self) -> bool:
        return not self.mark.startswith("not run: ")


def blocks(page: Path, language: str) -> list[Block]:
    return [block for block in _blocks(page.read_text("utf-8")) if block.language == language]


def _blocks(text: str) -> Iterator[Block]:
    found = list(BLOCK.finditer(text))
    for block, below in zip_longest(found, found[1:]):
        shown = below and below["language"] == "text" and not text[block.end() : below.start()].strip()
        output = below["text"] if below and shown else None
        code = textwrap.dedent(block["text"])
        yield Block(block["language"], code, block["mark"] or "", text[: block.start("text")].count("\n"), output)


def run(page: Path) -> dict[str, Any]:
    """The names that a page's blocks define; each block is compiled at its own line, where legends are looked up."""
    scope = dict(NAMESPACES.get(page, {}))
    for block in blocks(page, "python"):
        if not block.runs:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * block.line + block.text, str(page), "exec"), scope)  # noqa: S102 - our own page
        if block.output is not None:
            shown, found = block.output.rstrip(), printed.getvalue().rstrip()
            same = doctest.OutputChecker().check_output(shown, found, doctest.ELLIPSIS)
            assert same, f"{page.name}:{block.line} shows {shown!r} and prints {found!r}"
    return scope


def commands(page: Path) -> list[list[str]]:
    """Every program called in the page's shell blocks, as words."""
    found = []
    for block in blocks(page, "sh"):
        for line in block.text.replace("\\\n", " ").splitlines() if block.runs else ():
            words = shlex.split(line, comments=True)
            found += [list(part) for pipe, part in groupby(words, lambda word: word == "|") if not pipe]
    return found


def mentioned(page: Path) -> list[list[str]]:
    """Commands of `tidegate` and make that the page names within its text."""
    prose = BLOCK.sub("", page.read_text("utf-8"))
    return [span.split() for span in re.findall(r"`((?:tidegate|make) [^`]+)`", prose)]


@cache
def command_line() -> Any:
    return get_command(application())


def verb_of(words: list[str]) -> tuple[Any, list[str]]:
    """The verb of a command line of tidegate, and the words after it."""
    verb, rest = command_line(), words[1:]
    while hasattr(verb, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in verb.commands, f"tidegate has no verb {rest[0]!r}"
        verb, rest = verb.commands[rest[0]], rest[1:]
    return verb, rest


def is_target(words: list[str]) -> bool:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    wanted = [word for word in words[1:] if re.fullmatch("[a-z-]+", word)]
    return bool(wanted) and set(wanted) <= set(targets)


def calls(text: str) -> Iterator[str]:
    """What is wrong with the calls of public functions and classes in a page's code, run or not, and in its prose."""
    fenced = [block.text for block in _blocks(text) if block.language == "python"]
    nodes = []
    for code in [*fenced, *re.findall(r"`([^`\n]+\([^`\n]*\))`", BLOCK.sub("", text))]:
        with contextlib.suppress(SyntaxError):
            nodes += ast.walk(ast.parse(code))
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) not in own and (fault := _fault(node)):
            yield f"{ast.unparse(node)}: {fault}"


def _fault(call: ast.Call) -> str | None:
    """Why the arguments do not fit the signature of what is called; None where they do or it is no public name."""
    called = PUBLIC.get(ast.unparse(call.func).removeprefix("tg."))
    by_name = {word.arg: None for word in call.keywords}
    if called is None or None in by_name or any(isinstance(a, ast.Starred) for a in call.args):
        return None
    try:
        inspect.signature(called).bind(*call.args, **by_name)
    except TypeError as error:
        return str(error)
    return None


def marked(page: Path) -> Any:
    name = page.relative_to(ROOT).as_posix()
    return pytest.param(page, id=name, marks=pytest.mark.kernels if page.name in NEED_KERNELS else ())


@pytest.mark.parametrize("page", [marked(page) for page in GUIDES if blocks(page, "python")])
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope = run(page)
    if page == CONTRIBUTING:
        made = scope["scaled"](scope["leaky"], 0.5)
        assert made.options == {"leak": 0.2, "gain": 0.9, "factor": 0.5}
        assert check_cell(made, only=["sequence", "kernels", "texts"])


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in GUIDES if commands(p)])
def test_commands_exist(page: Path) -> None:
    for words in commands(page):
        if words[0] == "tidegate":
            verb, rest = verb_of(words)
            verb.make_context(words[1], list(rest))  # raises on an option that does not exist or an argument that lacks
            if words[1] in CHEAP:
                assert CliRunner().invoke(application(), words[1:]).exit_code == 0, shlex.join(words)
        elif words[0] == "make":
            assert is_target(words), shlex.join(words)
        elif words[0] == "python":
            assert words[1] == "-m" or (ROOT / words[1]).is_file(), shlex.join(words)
        else:
            assert words[0] in OTHER_PROGRAMS, shlex.join(words)


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in GUIDES if mentioned(p)])
def test_commands_within_the_text_exist(page: Path) -> None:
    for words in mentioned(page):
        if words[0] == "make":
            assert is_target(words), shlex.join(words)
        else:
            verb, rest = verb_of(words)
            known = {"--help", *(option for parameter in verb.params for option in parameter.opts)}
            assert {word for word in rest if word.startswith("--")} <= known, shlex.join(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_calls_fit_their_signatures(page: Path) -> None:
    assert not list(calls(page.read_text("utf-8")))


def test_a_call_that_does_not_fit_is_found() -> None:
    assert list(calls("as `RTRL(8)`, `RTRL(every=8)` or `mine(8)`\n\n```python no-run\nRTRL(8)\n```")) == [
        "RTRL(8): too many positional arguments"
    ]
    (found,) = calls("```python\ntg.Recurrent('lstm', sizes=3)\n```")
    assert found.startswith("tg.Recurrent('lstm', sizes=3): missing a required argument")


def files_named(page: Path) -> Iterator[str]:
    """Python files and folders that the page names in code spans, such as `nn/layer.py` or `tests/`."""
    for span in re.findall(r"`([\w/.]+(?:/|\.py))`", BLOCK.sub("", page.read_text("utf-8"))):
        if "/" in span:
            yield span


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_named_exist(page: Path) -> None:
    folders = (ROOT, ROOT / "src", ROOT / "src" / "tidegate")
    missing = {name for name in files_named(page) if not any((folder / name).exists() for folder in folders)}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_within_pages_lead_to_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            other = page.parent / target if target else page
            assert anchor in anchors(other), f"{page.relative_to(ROOT)} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["demo", "test"])
def test_ci_finds_its_commands(name: str) -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    function = re.search(r"^readme\(\) \{.*?^\}", script, re.DOTALL | re.MULTILINE)
    assert function
    found = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{function.group()}\nreadme {name}; readme absent"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == f"make {name}\n"
    assert (found.returncode, found.stderr) == (1, "README.md has no block marked <!-- ci: absent -->\n")


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 100


def test_the_speed_in_the_readme_is_that_of_the_page_of_figures() -> None:
    row = r"^\| (\w+) \| `torch.nn.\w+` \| ([\d.]+) \| ([\d.]+) \|$"
    rows = re.findall(row, README.read_text("utf-8"), re.MULTILINE)
    lines = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert [layer for layer, *_ in rows] == ["LSTM", "GRU", "RNN"]
    for layer, *shown in rows:
        for what, figure in zip(("forward", "training"), shown, strict=True):
            measured = re.search(rf"^\| {layer} {what} .*?\| ([\d.]+) over", lines, re.MULTILINE)
            assert measured
            assert figure == measured[1], f"README.md: {layer}, {what}"


PAGE = """\
# A page

```python
a = 1 + 1
print(a, "after", a)
```

```text
2 ... 2
```

Between.

<!-- not run: needs river -->
```python
a = river
```

   ```python
   b = a + 1
   ```
"""


def test_blocks_of_a_page() -> None:
    first, text, second, third = _blocks(PAGE)
    assert (first.output, first.line, text.language) == ("2 ... 2\n", 3, "text")
    assert (second.runs, third.text, third.output) == (False, "b = a + 1\n", None)


@pytest.mark.parametrize(
    ("page", "error", "said"),
    [
        (PAGE, None, ""),
        (PAGE.replace("2 ... 2", "3 ... 3"), AssertionError, "page.md:3 shows '3 ... 3.*prints '2 after 2"),
        (PAGE.replace("not run:", "run:"), NameError, "river"),
    ],
)
def test_a_false_page_is_found(page: str, error: type[Exception] | None, said: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(page, "utf-8")
    with pytest.raises(error, match=said) if error else contextlib.nullcontext():
        assert run(tmp_path / "page.md")["b"] == 3


@pytest.mark.parametrize("line", ["tidegate lern x.csv", "tidegate fit forcast x.csv", "make tests"])
def test_a_false_command_is_found(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "make":
        assert not is_target(words)
    else:
        with pytest.raises(AssertionError, match="has no verb"):
            verb_of(words)
