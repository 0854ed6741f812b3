"""`tidegate explain`: the plan of a cell, LLVM IR, assembly, and what is said where there are none."""

import json
import re
import sys

import pytest
import typer
from typer.testing import CliRunner

from tidegate import cli
from tidegate.cells import CELLS
from tidegate.cli import explain
from tidegate.errors import ArgumentError, NativeError
from tidegate.native import _llvm, cpu
from tidegate.native.compile.plan import make_plan
from tidegate.native.target import TARGETS

FIRST_LINES = {"plan": "plan of elman", "ir": '; ModuleID = "elman"', "asm": "\t.file\t"}
HERE = " or ".join(name for name, target in TARGETS.items() if not target.missing(_llvm.host_features()))


def invoke(*arguments: str) -> str:
    app = typer.Typer()
    explain.register(app)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def on(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := TARGETS[target].missing(_llvm.host_features()):
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    monkeypatch.setenv(cpu.CHOICE, target)


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
    monkeypatch.setenv(cpu.CHOICE, "neon")
    assert invoke("elman").startswith("plan of elman\n")
    with pytest.raises(NativeError, match=f"^TIDEGATE_TARGET must be {HERE} on this machine, got 'neon'.$"):
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
        (["lstm", "--json"], "tidegate: --json prints the costs of a rule: give one, as in --rule rtrl.\n"),
        (
            ["lstm", "--rule", "rflo"],
            "tidegate: RFLO does not support 'lstm': it is for one state that leaks at a fixed rate, h' = (1 - a) h + "
            "a f(W h + V x); use EProp() or SnAp().\n",
        ),
        (["gru", "--asm"], f"tidegate: TIDEGATE_TARGET must be {HERE} on this machine, got 'sse'.\n"),
    ],
)
def test_errors_are_told_in_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(cpu.CHOICE, "sse")
    assert told(arguments, monkeypatch) == 2
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    "arguments", [[], ["gru", "--dtype", "half"], ["gru", "--c"], ["gru", "--rule", "rtrl", "--batch", "0"]]
)
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
        "--ir LLVM IR.",
        "--asm Assembly for this machine.",
        "The type of numbers. [default: float32]",
        "What a gradient rule, as rtrl or snap:1, keeps and computes; nothing is run.",
    ):
        assert part in text


RTRL_OF_LSTM = """\
lstm, float32: 8 inputs, 32 units, 1 layer, 1 row, 100 steps

l0.i, l0.f, l0.g, l0.o:
    a matrix of 64 x 5248; everything; 1.34 MB

                                        rtrl          bptt
kept                                 1.34 MB       76.8 kB
at most while steps are taken         5.1 MB       76.8 kB
operations a step                 43.7 Mflop    39.1 kflop
calls of torch, a step alone              84             -
"""
SNAP_OF_LAYERS = """\
gru, float64: 4 inputs, 6 units, 2 layers, 3 rows, 20 steps

l0.z, l0.n:
    a matrix of 12 x 66 for each; 58% of it, the rest stays 0; 38 kB
l1.z, l1.n:
    traces, 1 x 6 x 13 for each; each weight in its own unit; 3.74 kB
l0.r:
    a matrix of 12 x 66; everything; 19 kB
l1.r:
    a matrix of 6 x 78; everything; 11.2 kB

                                      snap:1          bptt
kept                                 72.3 kB         23 kB
at most while steps are taken         428 kB         23 kB
operations a step                  231 kflop    13.2 kflop
calls of torch, a step alone             260             -
"""
SMALL = "--layers 2 --batch 3 --steps 20 --hidden-size 6 --input-size 4 --dtype float64"


def test_the_cost_of_a_rule() -> None:
    assert invoke("lstm", "--rule", "RTRL") == RTRL_OF_LSTM
    assert invoke("gru", "--rule", "snap:1", *SMALL.split()) == SNAP_OF_LAYERS


def test_a_rule_beside_the_plan() -> None:
    assert invoke("lstm", "--rule", "rtrl", "--plan") == invoke("lstm") + RTRL_OF_LSTM


def test_many_weights_are_counted() -> None:
    first = invoke("lstm_layer_norm", "--rule", "uoro").splitlines()[2]
    assert first == "l0.f_x.x, l0.i_x.x, l0.o_x.x, l0.g_x.x, l0.f_h.h, l0.i_h.h, l0.o_h.h, 23 more:"


def test_the_cost_of_a_rule_as_json() -> None:
    found = json.loads(invoke("lstm", "--rule", "uoro", "--json", "--hidden-size", "4"))
    assert [f["rule"] for f in found] == ["uoro", "bptt"]
    (tracker,) = found[0]["trackers"]
    assert tracker["weights"] == ["l0.i", "l0.f", "l0.g", "l0.o"]
    assert tracker["numbers"] == 8 + 16 * (8 + 4 + 1)
    assert found[0]["kept"] == found[0]["size"] * (tracker["numbers"] + 8)


@pytest.mark.parametrize("name", CELLS)
def test_every_shipped_cell_has_a_cost(name: str) -> None:
    text = invoke(name, "--rule", "snap:1", "--hidden-size", "4")
    assert text.startswith(f"{name}, float32: ")
    assert re.search(r"^kept +\S+ [kM]?B", text, re.MULTILINE)
