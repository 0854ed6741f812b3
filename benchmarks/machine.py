"""The machine that figures are from."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]  # of the checkout: where other processes find this package
PACKAGES = ("tidegate", "torch", "llvmlite", "numpy", "onnxruntime", "torchrecurrent", "jax", "braintrace")


def machine() -> dict[str, str]:
    """Processor, cores, threads and versions, each as a text."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    described = {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": str(cores),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "Python": platform.python_version(),
    }
    return described | {name: found for name in PACKAGES if (found := _version(name))}


def load_average() -> tuple[float, ...]:
    """Processes that wanted to run, on average over 1, 5 and 15 minutes; empty where the system does not say."""
    return tuple(round(load, 2) for load in os.getloadavg()) if hasattr(os, "getloadavg") else ()


def _processor() -> str:
    try:
        known = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name, model = (re.search(rf"^{key}\s*: (.*)$", known, re.MULTILINE) for key in ("model name", "model"))
    return f"{name.group(1) if name else platform.machine()}{f', model {model.group(1)}' if model else ''}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
