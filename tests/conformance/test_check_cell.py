"""check_cell: sound cells pass on both paths, planted faults are found, and errors say what is broken."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from catalogue import ALL
from from_file import module_of
from tidegate.cells import get
from tidegate.cells.transforms import (
    clip_gradients,
    clip_values,
    couple,
    hard,
    layer_norm_gates,
    peepholes,
    projection,
    recurrent_dropout,
    residual,
    weight_drop,
    zoneout,
)
from tidegate.conformance import CHECKS, check_cell
from tidegate.equations import Cell, cell, linear, stop, tanh, weight
from tidegate.errors import ArgumentError, ConformanceError, TidegateError
from tidegate.nn.weights import CellWeightSource
from tidegate.reference.unroll import ReferenceUnroll, UnrollArguments
from tidegate.runtime import support
from tidegate.runtime.kernel_inputs import KernelInputs
from tidegate.runtime.unroll import Unroll

LSTM, GRU, ELMAN = get("lstm"), get("gru"), get("elman")
TRANSFORMED: dict[str, Cell] = {
    f"{name} of {made.name}": change(made)
    for made in (LSTM, GRU, ELMAN)
    for name, change in {
        "zoneout": lambda c: zoneout(c, 0.2),
        "recurrent dropout": lambda c: recurrent_dropout(c, 0.3),
        "weight drop": lambda c: weight_drop(c, 0.3),
        "normalised gates": layer_norm_gates,
        "residual": residual,
        "hard": hard,
        "clipped values": lambda c: clip_values(c, 0.6),
        "clipped gradients": lambda c: clip_gradients(c, 0.1),
    }.items()
}
TRANSFORMED |= {"peepholes": peepholes(LSTM), "coupled": couple(LSTM), "projection": projection(LSTM)}
TRANSFORMED["all together"] = zoneout(peepholes(layer_norm_gates(weight_drop(LSTM, 0.2))), 0.1)
TRANSFORMED |= module_of("docs/generate.py").transformed()
EVERY = {**ALL, **TRANSFORMED}
TELLING = (
    "shipped lstm",
    "shipped gru",
    "hard antisymmetric",
    "shipped lstm_projection",
    "zoneout of lstm",
    "all together",
)
ALONE = [name for name in CHECKS if name != "processes"]
paths = pytest.mark.parametrize("path", [pytest.param("kernels", marks=pytest.mark.kernels), "reference"])


def on(path: str) -> Any:
    return support.disabled() if path == "reference" else nullcontext()


@pytest.mark.parametrize("name", TELLING)
@paths
def test_sound_cells_keep_every_promise(name: str, path: str) -> None:
    with on(path):
        assert list(check_cell(EVERY[name], only=ALONE)) == ALONE


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@paths
def test_every_cell_and_transform(name: str, path: str) -> None:
    with on(path):
        check_cell(EVERY[name], only=ALONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_cell_in_two_processes(name: str) -> None:
    check_cell(EVERY[name], only=["processes"])


PLAIN_SCRIPT = """
from tidegate import cell
from tidegate.conformance import check_cell
from tidegate.equations import linear, tanh

@cell(states="h", source="a test")
def mine(x, h):
    return tanh(linear("n", x, h))

print(check_cell(mine, only=["processes"]))
"""


@pytest.mark.parametrize("how", ["script", pytest.param("-c", marks=pytest.mark.slow)])
def test_two_processes_from_a_main_module_that_must_not_run_twice(how: str, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(PLAIN_SCRIPT)
    command = [sys.executable, *(["-c", PLAIN_SCRIPT] if how == "-c" else [str(script)])]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "('processes',)\n", "")


@pytest.mark.slow
def test_two_processes_with_weights_that_get_no_gradient() -> None:
    @cell(states="h", source="a test")
    def still(x, h):
        return tanh(linear("n", x, h)) + stop(weight("w", init=0.1))

    assert check_cell(still, only=["processes"]) == ("processes",)


def test_a_process_that_fails_is_reported(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (interpreter := tmp_path / "python").write_text("#!/bin/sh\necho several lines; echo no memory; exit 7\n")
    interpreter.chmod(0o700)
    patch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(ConformanceError) as caught:
        check_cell(LSTM, only=["processes"])
    assert re.fullmatch(r"processes: process [01] ended with exit code 7: no memory", caught.value.broken[0])


# planted faults


def swapped_gates(patch: pytest.MonkeyPatch) -> None:
    """The input gate reads the forget gate's weights, and the other way round."""
    fixed, loop = KernelInputs.fixed, ReferenceUnroll.__call__

    def turned(weights: Any) -> dict[str, Tensor]:
        other = {"i": "f", "f": "i"}
        return {n: weights[other.get(n[0], n[0]) + n[1:]] for n in weights}

    patch.setattr(KernelInputs, "fixed", lambda self, weights: fixed(self, turned(weights)))
    patch.setattr(
        ReferenceUnroll, "__call__", lambda self, given: loop(self, replace(given, weights=turned(given.weights)))
    )


def lost_reset(patch: pytest.MonkeyPatch) -> None:
    """Resets are forgotten."""
    run = Unroll.__call__

    patch.setattr(Unroll, "__call__", lambda self, given: run(self, replace(given, reset=None)))


def mask_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """Rows end a step early."""
    run = Unroll.__call__

    def early(self: Unroll, given: UnrollArguments) -> Any:
        lengths = None if given.lengths is None else (given.lengths - 1).clamp(min=0)
        return run(self, replace(given, lengths=lengths))

    patch.setattr(Unroll, "__call__", early)


def stale_weight(patch: pytest.MonkeyPatch) -> None:
    """The first weights that are read are kept."""
    tensors, run = CellWeightSource.tensors, Unroll.__call__
    kept: dict[int, Any] = {}

    def old(self: CellWeightSource) -> Any:
        return kept.setdefault(id(self), [t.detach().clone() for t in tensors(self) or []])

    def of_old(self: Unroll, given: UnrollArguments) -> Any:
        first = kept.setdefault(id(self), {n: t.detach().clone() for n, t in given.weights.items()})
        return run(self, given if torch.is_grad_enabled() else replace(given, weights=first))

    patch.setattr(CellWeightSource, "tensors", old)
    patch.setattr(Unroll, "__call__", of_old)


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "swapped gates": (swapped_gates, "sequence"),
    "a lost reset": (lost_reset, "resets"),
    "a mask off by one": (mask_off_by_one, "lengths"),
    "a stale weight": (stale_weight, "fresh weights"),
}


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as found:
        yield found


@pytest.mark.parametrize("fault", FAULTS)
@paths
def test_planted_faults_are_found(fault: str, path: str, patch: pytest.MonkeyPatch) -> None:
    plant, where = FAULTS[fault]
    plant(patch)
    over_time = ["sequence", "steps and chunks", "lengths", "resets", "order of rows", "fresh weights"]
    with on(path), pytest.raises(ConformanceError) as caught:
        check_cell(LSTM, only=over_time)
    assert any(line.startswith(f"{where}: ") for line in caught.value.broken), caught.value


@pytest.mark.kernels
def test_a_kernel_that_differs_is_found(patch: pytest.MonkeyPatch) -> None:
    fixed = KernelInputs.fixed
    patch.setattr(KernelInputs, "fixed", lambda self, weights: [1.001 * t for t in fixed(self, weights)])
    with pytest.raises(ConformanceError) as caught:
        check_cell(LSTM, only=["kernels"])
    assert re.fullmatch(
        r"cell 'lstm' does not keep 1 of its promises:\nkernels: output: off by \d\.\de-0\d, allowed 1e-10",
        str(caught.value),
    )


# errors


def test_an_error_within_a_check_is_part_of_the_verdict(patch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a plain mistake\nin two lines")

    patch.setattr(Unroll, "__call__", broken)
    with pytest.raises(ConformanceError) as caught:
        check_cell(LSTM, only=["shapes", "texts", "lengths"])
    assert caught.value.cell == "lstm"
    assert caught.value.broken == (
        "shapes: ZeroDivisionError: a plain mistake",
        "lengths: ZeroDivisionError: a plain mistake",
    )
    assert str(caught.value) == (
        "cell 'lstm' does not keep 2 of its promises:\n"
        "shapes: ZeroDivisionError: a plain mistake\nlengths: ZeroDivisionError: a plain mistake"
    )
    assert isinstance(caught.value, TidegateError)


def test_what_is_no_cell_and_no_check() -> None:
    with pytest.raises(ArgumentError) as caught:
        check_cell("lstm")  # type: ignore[arg-type]
    assert str(caught.value) == "check_cell takes a Cell, got str: decorate its function with @cell"
    with pytest.raises(ArgumentError) as caught:
        check_cell(LSTM, only=["speed"])
    assert str(caught.value) == f"there is no check 'speed': the checks are {', '.join(CHECKS)}"


def test_inputs_and_sizes_are_ones_own() -> None:
    seen: list[tuple[int, int]] = []

    def inputs(T: int, B: int) -> dict[str, Tensor]:
        seen.append((T, B))
        return {"x": torch.rand(T, B, 3)}

    check_cell(get("lstm_projection"), only=["sequence", "lengths"], inputs=inputs, P=2)
    assert seen
    with pytest.raises(ConformanceError, match="has no size 'Q'"):
        check_cell(LSTM, only=["shapes"], Q=3)
