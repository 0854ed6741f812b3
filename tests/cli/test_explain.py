"""`tidegate explain`: the plan of a cell, LLVM's language, the machine's, and what is said where there are none."""

import re
import sys

import pytest
import typer
from typer.testing import CliRunner

from tidegate import cli
from tidegate.cells import CELLS
from tidegate.cli import explain
from tidegate.errors import ArgumentError, NativeError
from tidegate.native import _llvm, machine
from tidegate.native.plan import make_plan
from tidegate.native.target import TARGETS

FIRST_LINES = {"plan": "plan of elman", "ir": '; ModuleID = "elman"', "asm": "\t.file\t"}
HERE = " and ".join(name for name, target in TARGETS.items() if not target.missing(_llvm.host_features()))


def invoke(*arguments: str) -> str:
    app = typer.Typer()
    explain.register(app)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def on(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := TARGETS[target].missing(_llvm.host_features()):
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    monkeypatch.setenv(machine.CHOICE, target)


@pytest.mark.parametrize("flags", [(), ("--plan",)])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_plan(name: str, flags: tuple[str, ...]) -> None:
    assert invoke(name, *flags) == str(make_plan(CELLS[name].graph))


def test_every_shipped_cell_has_a_plan() -> None:
    for name in CELLS:
        assert invoke(name).startswith(f"plan of {name}\n")


@pytest.mark.parametrize(
    ("target", "dtype", "numbers", "vector"),
    [
        ("avx512", "float32", "<16 x float>", "zmm"),
        ("avx512", "float64", "<8 x double>", "zmm"),
        ("avx2", "float32", "<8 x float>", "ymm"),
        ("avx2", "float64", "<4 x double>", "ymm"),
    ],
)
def test_kernels_of_each_target(
    target: str, dtype: str, numbers: str, vector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(target, monkeypatch)
    text, machine_text = (invoke("elman", flag, "--dtype", dtype) for flag in ("--ir", "--asm"))
    assert set(re.findall(r"<\d+ x (?:float|double)>", text)) == {numbers}
    assert set(re.findall(r"[yz]mm(?=\d)", machine_text)) & {"zmm", vector} == {vector}
    for direction in ("forward", "backward"):
        assert re.search(rf'^define void @"?{direction}"?\(', text, re.MULTILINE)
        assert f"\n{direction}:\n" in machine_text


def test_float32_unless_asked_otherwise() -> None:
    assert invoke("elman", "--ir") == invoke("elman", "--ir", "--dtype", "float32")


@pytest.mark.parametrize("levels", [("plan", "ir"), ("ir", "asm"), ("plan", "asm"), ("plan", "ir", "asm")])
def test_several_levels_stand_in_their_order(levels: tuple[str, ...]) -> None:
    text = invoke("elman", *(f"--{level}" for level in reversed(levels)))
    assert text == "".join(invoke("elman", f"--{level}") for level in levels)
    assert all(f"\n{text}".count(f"\n{line}") == (level in levels) for level, line in FIRST_LINES.items())


def test_the_plan_needs_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(machine.CHOICE, "neon")
    assert invoke("elman").startswith("plan of elman\n")
    with pytest.raises(NativeError, match=f"^TIDEGATE_TARGET='neon' is no target: this machine has {HERE}.$"):
        invoke("elman", "--ir")


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(
        ArgumentError,
        match=r"^there is no cell 'lstn': did you mean lstm or slstm or min_lstm\? `tidegate cells` lists them all$",
    ):
        invoke("lstn")


def told(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["tidegate", "explain", *arguments])
    try:
        return cli.main()
    except SystemExit as end:  # what typer says itself
        return int(str(end.code))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "tidegate: there is no cell 'nonsense': `tidegate cells` lists them all\n"),
        (["gru", "--asm"], f"tidegate: TIDEGATE_TARGET='sse' is no target: this machine has {HERE}.\n"),
    ],
)
def test_errors_are_told_in_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(machine.CHOICE, "sse")
    assert told(arguments, monkeypatch) == 2
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("arguments", [[], ["gru", "--dtype", "half"], ["gru", "--c"]])
def test_wrong_use(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(arguments, monkeypatch) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "tidegate explain --help" in err


def test_the_help_says_what_each_flag_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(["--help"], monkeypatch) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "Show a cell's native kernels at one level, or at several one below the other.",
        "A cell of `tidegate cells`.",
        "--plan The stages of both steps (the default).",
        "--ir LLVM's language.",
        "--asm The machine's language, for this machine.",
        "The type of numbers. [default: float32]",
    ):
        assert part in text
