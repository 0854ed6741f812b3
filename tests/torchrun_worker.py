"""What each process runs that tests/training/test_ranks.py starts by torchrun: FOLDER SCENARIO."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tidegate.errors import TrainingError
from tidegate.gradients import RTRL, TruncatedBPTT
from tidegate.training import Event, Finished, Ranks, TrainingPlan, torchrun, train
from training_cases import Follow, Stream

PLAN = TrainingPlan(learning_rate=0.02, clip=0.5, updates=30, check_every=5, patience=3)
PLANS = {
    "bptt": PLAN,
    "truncated, accumulated": replace(PLAN, rule=TruncatedBPTT(2, 4), accumulate=2),
    "rtrl": replace(PLAN, rule=RTRL(every=3)),
}


class Shared(Follow):
    """Batches whose 8 rows are shared: 3 of each 4 are those of rank 0."""

    def share(self, batch: Tensor, rank: int, size: int) -> Tensor:
        return batch.split([6, 2], 1)[rank]


class SharedStream(Stream):
    """A stream whose rows are shared with the state that is carried along them."""

    def __init__(self) -> None:
        super().__init__()
        self.module["layer"].dropout = 0.0

    def share(self, batch: tuple[Tensor, Tensor], rank: int, size: int) -> tuple[Tensor, Tensor]:
        return batch[0][:, rank::size], batch[1][:, rank::size]


class KilledError(BaseException):
    pass


def fail_at(task: Any, draws: int, action: Any) -> Any:
    draw, left = task.draw, iter(range(draws))

    def counted(generator: torch.Generator) -> Any:
        if next(left, None) is None:
            action()
        return draw(generator)

    task.draw = counted
    return task


def end() -> None:
    raise KilledError


def learn(folder: Path, ranks: Ranks) -> None:
    """Train each case, with events on rank 0 only."""
    for name, plan in PLANS.items():
        task, events = Shared(), list[Event]()
        history = train(task, plan, [events.append], ranks=ranks)
        assert isinstance(events[-1], Finished) if ranks.rank == 0 else not events
        assert history.finished.updates == 30
        save_file(dict(task.module.state_dict()), folder / f"{name}-{ranks.rank}")


def resume(folder: Path, ranks: Ranks) -> None:
    """Train with a carried state, once whole and once killed and continued."""
    whole, killed = SharedStream(), SharedStream()
    train(whole, PLAN, checkpoint=folder / "whole", ranks=ranks)
    for draws in (7, 6):
        try:
            train(fail_at(SharedStream(), draws, end), PLAN, checkpoint=folder / "killed", resume=True, ranks=ranks)
        except KilledError:
            continue
        raise AssertionError
    train(killed, PLAN, checkpoint=folder / "killed", resume=True, ranks=ranks)
    for name, task in (("whole", whole), ("killed", killed)):
        save_file(dict(task.module.state_dict()), folder / f"{name}-{ranks.rank}")


def hang(folder: Path, ranks: Ranks, stuck: int) -> None:
    """One rank sleeps in the middle; each other one writes what it is told."""
    task: Any = Shared()
    if ranks.rank == stuck:
        fail_at(task, 4, lambda: time.sleep(25))
    try:
        train(task, PLAN, ranks=ranks)
    except TrainingError as error:
        if ranks.rank != stuck:
            (folder / f"told-{ranks.rank}").write_text(str(error))


def main() -> None:
    folder, scenario = Path(sys.argv[1]), sys.argv[2]
    with torchrun(6.0 if scenario.startswith("hang") else 120.0) as ranks:
        if scenario.startswith("hang"):
            hang(folder, ranks, int(scenario[-1]))
        else:
            learn(folder, ranks)
            resume(folder, ranks)


if __name__ == "__main__":
    main()
