"""`tidegate doctor`: what this machine offers, and what to do where something is missing."""

import ctypes
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli import packages

_ADD = "define i32 @add(i32 %a, i32 %b) { %c = add i32 %a, %b\n ret i32 %c }"
_TRY_ADD = "from tidegate.cli.doctor import compiled_sum; print(compiled_sum(40, 2))"
_BROKEN = (ImportError, OSError)  # a shared library that is missing or unfit is an OSError
_VECTOR_FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "neon", "sve")


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found, whether it is well, and what to do if not."""

    name: str
    value: str
    advice: str = ""
    needed: bool = False

    @property
    def ok(self) -> bool:
        """Nothing has to be done."""
        return not self.advice


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("doctor")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this machine has and lacks.

    For whatever is not well there is a line that says what to do. Exits with 0 if Tidegate can be used.
    """
    findings = examine()
    usable = all(f.ok for f in findings if f.needed)
    if as_json:
        typer.echo(json.dumps({"usable": usable, "findings": [asdict(f) | {"ok": f.ok} for f in findings]}, indent=2))
    else:
        typer.echo(as_text(findings, usable))
    raise typer.Exit(0 if usable else 1)


def examine() -> list[Finding]:
    """Every finding, in the order in which it is shown."""
    core = [package(name) for name in packages() if name not in ("torch", "llvmlite")]
    return [system(), cpu(), threads(), torch_build(), *core, compiler(), cache(), extra("app")]


def as_text(findings: list[Finding], usable: bool) -> str:
    """The findings line by line, with what to do below each that is not well."""
    width = max(len(f.name) for f in findings)
    lines = [f"tidegate {version('tidegate')}"]
    for finding in findings:
        lines.append(f"{'ok' if finding.ok else '!!'}  {finding.name:{width}}  {finding.value}")
        if not finding.ok:
            lines.append(f"    {'':{width}}  {finding.advice}")
    return "\n".join([*lines, "Tidegate can be used here." if usable else "Tidegate cannot be used here yet."])


def system() -> Finding:
    """The operating system and Python."""
    return Finding("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")


def cpu() -> Finding:
    """The processor and its vector instructions, as LLVM sees them."""
    try:
        llvm = importlib.import_module("llvmlite.binding")
    except _BROKEN:
        return Finding("cpu", platform.processor() or platform.machine())
    features = llvm.get_host_cpu_features()
    return Finding("cpu", " ".join([llvm.get_host_cpu_name(), *(f for f in _VECTOR_FEATURES if features.get(f))]))


def threads() -> Finding:
    """How many processors this process may use, beside how many threads torch starts."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        used = importlib.import_module("torch").get_num_threads()
    except _BROKEN:
        return Finding("threads", f"{allowed} processors")
    advice = (
        f"more threads than processors slow each other down: set OMP_NUM_THREADS={allowed}" if used > allowed else ""
    )
    return Finding("threads", f"{allowed} processors, torch uses {used} threads", advice)


def torch_build() -> Finding:
    """Torch's version, whether it is a CPU or a CUDA build, and its OpenMP."""
    try:
        torch = importlib.import_module("torch")
    except _BROKEN as error:
        return _absent("torch", error)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    openmp = re.search(r"OpenMP \d+[^\n]*", torch.__config__.parallel_info())
    return Finding(
        "torch", f"{torch.__version__}, {build} build, {openmp.group() if openmp else 'no OpenMP'}", needed=True
    )


def package(name: str) -> Finding:
    """A package that Tidegate always needs: it has to import."""
    try:
        importlib.import_module(name)
        return Finding(name, version(name), needed=True)
    except _BROKEN as error:
        return _absent(name, error)


def compiler() -> Finding:
    """Whether llvmlite compiles and runs a small function; tried in a process of its own, because LLVM may abort."""
    try:
        run = subprocess.run([sys.executable, "-c", _TRY_ADD], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _no_compiler(str(error))
    if run.stdout.strip() != "42":
        return _no_compiler((run.stderr.strip().splitlines() or [f"ended with {run.returncode}"])[-1])
    return Finding("llvmlite", f"{version('llvmlite')}, compiles and runs")


def compiled_sum(a: int, b: int) -> int:
    """a + b, by a function compiled for the purpose."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    with llvm.create_mcjit_compiler(llvm.parse_assembly(_ADD), machine) as engine:
        engine.finalize_object()
        signature = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32, ctypes.c_int32)
        return int(signature(engine.get_function_address("add"))(a, b))


def cache() -> Finding:
    """Whether the user's cache folder can be written; nothing is left behind."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Finding("cache", f"{folder} can be written")
    except OSError as error:
        advice = "set XDG_CACHE_HOME to a folder that you may write"
        return Finding("cache", f"{folder} cannot be written: {error.strerror}", advice)


def extra(name: str) -> Finding:
    """Whether everything that an extra brings is installed."""
    missing = [p for p in packages(name) if not _installed(p)]
    if missing:
        return Finding(f"extra {name}", f"without {', '.join(missing)}", f"pip install 'tidegate[{name}]'")
    return Finding(f"extra {name}", "complete")


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _absent(name: str, error: Exception) -> Finding:
    return Finding(name, f"cannot be imported: {error}", f"pip install --force-reinstall --no-deps {name}", needed=True)


def _no_compiler(reason: str) -> Finding:
    advice = "layers work without it; to repair it: pip install --force-reinstall --no-deps llvmlite"
    return Finding("llvmlite", f"cannot compile and run a function: {reason}", advice)
