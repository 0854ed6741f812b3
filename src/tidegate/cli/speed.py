"""`tidegate doctor --speed`: our LSTM beside torch's on this machine."""

import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, NamedTuple


class Shape(NamedTuple):
    """The sizes of a comparison."""

    steps: int
    batch: int
    inputs: int
    units: int


SHAPES = (Shape(100, 1, 64, 128), Shape(100, 32, 128, 256), Shape(50, 32, 256, 512))
SECONDS = 0.8  # for each comparison: with the start and the compiling of kernels ten seconds in all
WARM_UP, ROUNDS = 2, 3  # rounds that do not count, and those that do, at least


def measure() -> dict[str, Any]:
    """Time both in turn, forward and in training, for about ten seconds. Returns times, threads and load average."""
    import torch

    from tidegate.nn import LSTM

    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    found = []
    for shape in SHAPES:
        x = torch.randn(shape[:3])
        nets = [lstm(shape.inputs, shape.units) for lstm in (LSTM, torch.nn.LSTM)]
        for what, call in (("forward", torch.no_grad()(_forward)), ("training", _training)):
            ours, theirs = alternate([partial(call, net, x) for net in nets])
            figures = {"tidegate": ours, "torch": theirs, "ratio": theirs / ours}
            found.append({**shape._asdict(), "what": what, **figures})
    return {"threads": torch.get_num_threads(), "load_average": load, "comparisons": found}


def _forward(net: Any, x: Any) -> Any:
    return net(x)[0]


def _training(net: Any, x: Any) -> None:
    net.zero_grad()
    _forward(net, x).sum().backward()


def alternate(calls: list[Callable[[], object]]) -> list[float]:
    """The median seconds of each call, taken in turn: A B A B."""
    taken: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + SECONDS
    while len(taken[0]) < WARM_UP + ROUNDS or time.perf_counter() < end:
        for call, seconds in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [median(seconds[WARM_UP:]) for seconds in taken]


def as_text(speed: dict[str, Any]) -> str:
    """A table of milliseconds."""
    load = "unknown" if speed["load_average"] is None else ", ".join(f"{value:.2f}" for value in speed["load_average"])
    lines = [
        f"LSTM, median times in ms, ratio = torch / tidegate; threads: {speed['threads']}, load average: {load}",
        "steps  batch  inputs  units  what      tidegate     torch  ratio",
    ]
    for c in speed["comparisons"]:
        sizes = f"{c['steps']:5}  {c['batch']:5}  {c['inputs']:6}  {c['units']:5}"
        times = f"{1e3 * c['tidegate']:8.2f}  {1e3 * c['torch']:8.2f}"
        lines.append(f"{sizes}  {c['what']:8}  {times}  {c['ratio']:5.2f}")
    return "\n".join(lines)
