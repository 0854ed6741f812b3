"""The training loop and its checkpoints, its interface to tasks, its events, and the folder of a run."""

from tidegate.training.events import Checked, Event, Finished, Listener, Started, Undone
from tidegate.training.history import History
from tidegate.training.loop import seeded, train
from tidegate.training.plan import TrainingPlan
from tidegate.training.run import RunFolder
from tidegate.training.task import Resumable, Task

__all__ = [
    "Checked",
    "Event",
    "Finished",
    "History",
    "Listener",
    "Resumable",
    "RunFolder",
    "Started",
    "Task",
    "TrainingPlan",
    "Undone",
    "seeded",
    "train",
]
