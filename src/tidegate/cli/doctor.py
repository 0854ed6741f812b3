"""`tidegate doctor`: what this machine offers, and what to do where something is missing."""

import importlib
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from tidegate.cli import packages
from tidegate.cli.speed import as_text as speed_text
from tidegate.cli.speed import measure
from tidegate.errors import NativeError
from tidegate.files import to_json

_TRY = "from tidegate.cli.doctor import tried; print(tried())"
_BROKEN = (ImportError, OSError)  # a shared library that is missing or unfit is an OSError


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


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    speed: Annotated[bool, typer.Option("--speed", help="Compare our LSTM with torch's, for ten seconds.")] = False,
) -> None:
    """Check this machine, and say what is missing.

    For whatever is not well there is a line that says what to do. Exits with 0 if Tidegate can be used.
    """
    findings = examine()
    usable = all(f.ok for f in findings if f.needed)
    measured = measure() if speed and usable else None
    if as_json:
        told = {"usable": usable, "findings": [asdict(f) | {"ok": f.ok} for f in findings]}
        typer.echo(to_json(told | ({"speed": measured} if speed else {}), indent=2))
    else:
        typer.echo(as_text(findings, usable))
        if measured:
            typer.echo(f"\n{speed_text(measured)}")
    raise typer.Exit(0 if usable else 1)


def examine() -> list[Finding]:
    """Every finding, in the order in which it is shown."""
    core = [package(name) for name in packages() if name not in ("torch", "llvmlite")]
    return [system(), cpu(), threads(), torch_build(), *core, native(), openmp(), cache(), extra("app")]


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
    """The processor and those of its vector instructions that kernels are written for, as LLVM sees them."""
    try:
        return Finding("cpu", importlib.import_module("tidegate.runtime").described())
    except NativeError:
        return Finding("cpu", platform.processor() or platform.machine())


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


def native() -> Finding:
    """Whether a small kernel compiles and runs; tried in a process of its own, because LLVM may abort."""
    try:
        run = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _no_kernels(str(error))
    if run.returncode:
        return _no_kernels((run.stderr.strip().splitlines() or [f"the trial ended with {run.returncode}"])[-1])
    return Finding("native", f"llvmlite {version('llvmlite')}: {run.stdout.strip()}")


def tried() -> str:
    """The target, and what a small kernel for it did."""
    torch = importlib.import_module("torch")
    size = importlib.import_module("tidegate.runtime").trial(torch.get_num_threads())
    target = importlib.import_module("tidegate.runtime").host()
    lanes = f"{target.lanes('float32')} float32 or {target.lanes('float64')} float64 in a vector"
    return f"{target.name}, {lanes}; a kernel compiled and ran on {size} thread{'s' * (size > 1)}"


def openmp() -> Finding:
    """The OpenMP library whose threads kernels share with torch."""
    try:
        importlib.import_module("torch")
        library = importlib.import_module("tidegate.runtime").library()
    except _BROKEN as error:
        return Finding("openmp", f"not looked for: {error}")
    if library is None:
        return Finding("openmp", "none", "torch has no OpenMP library, so kernels run on one thread")
    return Finding("openmp", str(library))


def cache() -> Finding:
    """Where compiled kernels are kept, how many, and how large; nothing is made or left behind."""
    kept = importlib.import_module("tidegate.runtime").cache
    problem = kept.problem()
    if problem:
        advice = f"each process compiles them anew: set {kept.VARIABLE} to a folder of your own"
        return Finding("cache", f"compiled kernels are not kept: {problem}", advice)
    files, size = kept.held()
    return Finding("cache", f"{kept.where()}, {files} compiled modules, {size / (1 << 20):.1f} MiB")


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


def _no_kernels(reason: str) -> Finding:
    told = reason.partition("NativeError: ")[2]
    if told:
        return Finding("native", "no kernels", told)
    advice = "layers work without it; to repair it: pip install --force-reinstall --no-deps llvmlite"
    return Finding("native", f"a small kernel cannot be tried: {reason}", advice)
