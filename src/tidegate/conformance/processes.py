"""The promise about training in several processes: together they find the gradient of the whole batch."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tidegate.conformance.subject import CheckedCell, H, expect, expect_near

T, B, COUNT = 4, 4, 2
TIMEOUT, POLL = 300.0, 0.02  # seconds


def distributed(subject: CheckedCell) -> None:
    """DistributedDataParallel with two processes on this machine."""
    layer, x = subject.layer(), subject.inputs(T, B)
    layer(x)[0].square().sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = {
            "cell": json.dumps(subject.cell.to_json()),
            "sizes": (subject.input_size, H, subject.letters),
            "weights": layer.state_dict(),
            "shares": [subject.rows(x, slice(rank * B // COUNT, (rank + 1) * B // COUNT)) for rank in range(COUNT)],
            "unused": len(gradients) < len(list(layer.parameters())),
        }
        torch.save(task, folder / "task")
        _run_workers(folder)
        for rank in range(COUNT):
            found = torch.load(folder / str(rank), weights_only=True)
            for key, gradient in gradients.items():
                expect_near(f"process {rank}, gradient of {key!r}", found[key], gradient / COUNT)


def _run_workers(folder: Path) -> None:
    """Run `tidegate.conformance.worker` once per rank; when one fails, stop the others, which would wait for it.

    The workers are new interpreters that import this package only: the caller's main module is never run again.
    """
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    environment = {**os.environ, "PYTHONPATH": paths}
    logs = [folder / f"{rank}.log" for rank in range(COUNT)]
    workers = []
    try:
        for rank, log in enumerate(logs):
            command = [sys.executable, "-m", "tidegate.conformance.worker", str(folder), str(rank)]
            with log.open("w") as output:
                workers.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
        end = time.monotonic() + TIMEOUT
        while any(w.poll() is None for w in workers) and not any(w.poll() for w in workers) and time.monotonic() < end:
            time.sleep(POLL)
        codes = [worker.poll() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    for rank, (code, log) in enumerate(zip(codes, logs, strict=True)):
        expect(not code, f"process {rank} ended with exit code {code}: {_last_line(log)}")
    expect(None not in codes, f"the processes did not end within {TIMEOUT:g} seconds")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "(it printed nothing)")
