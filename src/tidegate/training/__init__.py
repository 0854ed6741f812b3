"""The training loop and its checkpoints, its interface to tasks, its events, and the folder of a run."""

from tidegate.training.events import (
    Checked,
    Event,
    Finished,
    Judging,
    Listener,
    Started,
    Undone,
    Updated,
    read_events,
)
from tidegate.training.history import History
from tidegate.training.judging import judging
from tidegate.training.loop import seeded, train
from tidegate.training.plan import TrainingPlan
from tidegate.training.ranks import Ranks, torchrun
from tidegate.training.run import RunFolder
from tidegate.training.task import Resumable, Shareable, Task

__all__ = [
    "Checked",
    "Event",
    "Finished",
    "History",
    "Judging",
    "Listener",
    "Ranks",
    "Resumable",
    "RunFolder",
    "Shareable",
    "Started",
    "Task",
    "TrainingPlan",
    "Undone",
    "Updated",
    "judging",
    "read_events",
    "seeded",
    "torchrun",
    "train",
]
