"""Two processes under torchrun learn what one does, resume, and name the process that hangs."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import torchrun_worker
from tidegate.errors import ArgumentError
from tidegate.training import Ranks, torchrun, train
from tidegate.training.checkpoint import load_checkpoint
from torchrun_worker import PLAN, PLANS, Shared, SharedStream
from training_cases import Follow, bits

pytestmark = pytest.mark.timeout(400)  # each of its processes imports torch


def run(folder: Path, scenario: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
        "--master-port", port, torchrun_worker.__file__, str(folder), scenario,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in second)


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    done = run(tmp_path, "learn")
    assert done.returncode == 0, done.stderr
    for name, plan in PLANS.items():
        alone = Shared()
        train(alone, plan)
        first, second = (load_file(tmp_path / f"{name}-{rank}") for rank in (0, 1))
        assert bits(first) == bits(second)
        assert difference(first, dict(alone.module.state_dict())) < 2e-5
        assert difference(first, dict(Shared().module.state_dict())) > 0.1
    whole = [load_file(tmp_path / f"whole-{rank}") for rank in (0, 1)]
    killed = [load_file(tmp_path / f"killed-{rank}") for rank in (0, 1)]
    assert bits(whole) == bits(killed)
    states = [load_checkpoint(tmp_path / name) for name in ("whole", "killed")]
    assert len(states[0]["updater"]["ranks"]) == 2  # type: ignore[index]
    assert bits(states[0]) == bits(states[1])
    with pytest.raises(ArgumentError, match="killed is of a run with processes=2, got processes=1: give the same"):
        train(SharedStream(), PLAN, checkpoint=tmp_path / "killed", resume=True)


@pytest.mark.parametrize("stuck", [0, 1])
def test_a_process_that_hangs_is_named(stuck: int, tmp_path: Path) -> None:
    done = run(tmp_path, f"hang-{stuck}")
    assert (tmp_path / f"told-{1 - stuck}").exists(), done.stderr
    told = (tmp_path / f"told-{1 - stuck}").read_text()
    assert told == (
        f"Rank {1 - stuck} of 2 got no answer from rank {stuck} within 6 s: it ended or is stuck. Look at its output, "
        "and run the same command again to continue from the last checkpoint."
    )


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with torchrun() as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)
        assert (ranks.first(2.5), ranks.gather(b"x")) == (2.5, [b"x"])


def test_a_task_that_cannot_share_its_batches() -> None:
    ranks = Ranks()
    ranks.size = 2
    with pytest.raises(ArgumentError, match="Follow has no method share: its batches cannot be divided"):
        train(Follow(), replace(PLAN, updates=1), ranks=ranks)
