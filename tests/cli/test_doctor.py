"""`tidegate doctor`: each finding, and what it advises where something is wrong."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from tidegate.cli import doctor, speed
from tidegate.cli.doctor import Finding
from tidegate.errors import NativeError
from tidegate.native import cpu
from tidegate.native._llvm import host_features
from tidegate.native.run import cache
from tidegate.native.target import TARGETS


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
        "system", "cpu", "threads", "torch", "numpy", "safetensors", "native", "openmp", "cache", "extra app",
    ]  # fmt: skip
    assert findings["numpy"]["value"] == version("numpy")
    assert findings["native"] == {
        "name": "native",
        "value": f"llvmlite {version('llvmlite')}: {doctor.tried()}",
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


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ours takes 2 ms and torch's 5 wherever both are timed; the modules that were called, in turn."""
    called: list[str] = []

    def alternate(calls: list[Any]) -> list[float]:
        for call in calls:
            call()
            called.append(type(call.args[0]).__module__.partition(".")[0])
        return [0.002, 0.005]

    monkeypatch.setattr(speed, "SHAPES", (speed.Shape(3, 2, 4, 5), speed.Shape(2, 1, 3, 4)))
    monkeypatch.setattr(speed, "alternate", alternate)
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (1.234, 0.5, 0.25))
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("numpy", "2.0", needed=True)])
    return called


def test_speed_beside_torch(app: typer.Typer, timed: list[str]) -> None:
    result = CliRunner().invoke(app, ["--speed"])
    assert result.exit_code == 0
    assert timed == ["tidegate", "torch"] * 4
    assert result.output.splitlines()[2:] == [
        "Tidegate can be used here.",
        "",
        f"LSTM, median times in ms, ratio = torch / tidegate; threads: {torch.get_num_threads()}, "
        "load average: 1.23, 0.50, 0.25",
        "steps  batch  inputs  units  what      tidegate     torch  ratio",
        "    3      2       4      5  forward       2.00      5.00   2.50",
        "    3      2       4      5  training      2.00      5.00   2.50",
        "    2      1       3      4  forward       2.00      5.00   2.50",
        "    2      1       3      4  training      2.00      5.00   2.50",
    ]


def test_speed_as_json(app: typer.Typer, timed: list[str]) -> None:
    told = json.loads(CliRunner().invoke(app, ["--speed", "--json"]).output)
    assert (told["usable"], told["speed"]["threads"]) == (True, torch.get_num_threads())
    assert told["speed"]["load_average"] == [1.23, 0.5, 0.25]
    assert told["speed"]["comparisons"][1] == {
        "steps": 3, "batch": 2, "inputs": 4, "units": 5, "what": "training",
        "tidegate": 0.002, "torch": 0.005, "ratio": 2.5,
    }  # fmt: skip


def test_speed_is_not_measured_where_tidegate_cannot_be_used(
    app: typer.Typer, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("torch", "broken", "repair it", needed=True)])
    assert json.loads(CliRunner().invoke(app, ["--speed", "--json"]).output)["speed"] is None
    assert CliRunner().invoke(app, ["--speed"]).output.endswith("Tidegate cannot be used here yet.\n")
    assert not timed


def test_calls_take_turns_and_their_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []

    def call(name: str, seconds: float) -> None:
        clock[0] += seconds if len(order) >= 2 * speed.WARM_UP else 100.0
        order.append(name)

    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    found = speed.alternate([lambda: call("a", 1.0), lambda: call("b", 3.0)])
    assert "".join(order) == "ab" * (speed.WARM_UP + speed.ROUNDS)
    assert found == [1.0, 3.0]


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


def test_the_threads_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert doctor.threads() == Finding("threads", "2 processors")


def test_the_processor_has_the_features_of_its_target() -> None:
    found = doctor.cpu()
    assert found.ok
    assert set(cpu.host().needs) <= set(found.value.split())


def test_the_processor_without_llvm(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise NativeError("no LLVM")

    monkeypatch.setattr(cpu, "host_name", absent)
    monkeypatch.setattr("platform.processor", lambda: "x")
    assert doctor.cpu() == Finding("cpu", "x")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("avx512", "avx512, 16 float32 or 8 float64 in a vector; a kernel compiled and ran on "),
        ("avx2", "avx2, 8 float32 or 4 float64 in a vector; a kernel compiled and ran on "),
    ],
)
@pytest.mark.parametrize(("count", "on"), [(1, "1 thread"), (2, "2 threads")])
def test_a_kernel_is_tried(target: str, said: str, count: int, on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = TARGETS[target].missing(host_features())
    if absent:
        pytest.skip(f"this machine lacks {', '.join(absent)}")
    monkeypatch.setenv("TIDEGATE_TARGET", target)
    monkeypatch.setattr("torch.get_num_threads", lambda: count)
    assert doctor.tried() == said + on


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise OSError('no executable memory')", "OSError: no executable memory"),
        ("import os; os._exit(9)", "the trial ended with 9"),
        ("import os; os.abort()", "the trial ended with -6"),
    ],
)
def test_a_kernel_that_cannot_be_tried(program: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TRY", program)
    assert doctor.native() == Finding(
        "native",
        f"a small kernel cannot be tried: {reason}",
        "layers work without it; to repair it: pip install --force-reinstall --no-deps llvmlite",
    )


def test_a_machine_that_gets_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TARGET", "sse")
    has = [name for name, target in TARGETS.items() if not target.missing(host_features())]
    assert doctor.native() == Finding(
        "native", "no kernels", f"TIDEGATE_TARGET must be {' or '.join(has)} on this machine, got 'sse'."
    )


def test_the_openmp_library_is_torchs() -> None:
    found = doctor.openmp()
    assert found.ok
    assert Path(found.value).is_relative_to(Path(torch.__file__).parent / "lib")


def test_no_openmp_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.runtime.library", lambda: None)
    advice = "torch has no OpenMP library, so kernels run on one thread"
    assert doctor.openmp() == Finding("openmp", "none", advice)


def test_openmp_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert doctor.openmp() == Finding("openmp", "not looked for: import of torch halted; None in sys.modules")


def test_the_cache_folder_is_looked_at_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "deep" / "kernels"))
    assert doctor.cache() == Finding("cache", f"{tmp_path / 'deep' / 'kernels'}, 0 compiled modules, 0.0 MiB")
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "kernels"))
    for text in ("one", "two"):
        cache.cached(text, lambda: bytes(1 << 20))
    assert doctor.cache() == Finding("cache", f"{tmp_path / 'kernels'}, 2 compiled modules, 2.0 MiB")


def test_a_cache_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernels").write_text("a file where the folder should be")
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "kernels"))
    assert doctor.cache() == Finding(
        "cache",
        f"compiled kernels are not kept: {tmp_path / 'kernels'} is a file or a link, not a folder",
        "each process compiles them anew: set TIDEGATE_CACHE to a folder of your own",
    )


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> str:
        if name in ("rich", "polars"):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", without)
    assert doctor.extra("app") == Finding("extra app", "without polars, rich", "pip install 'tidegate[app]'")
