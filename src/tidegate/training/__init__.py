"""The training loop, its interface to tasks, its events, and the folder of a run."""

from tidegate.training.events import Checked, Event, Finished, Listener, Started
from tidegate.training.history import History
from tidegate.training.loop import TrainingPlan, seeded, train
from tidegate.training.run import RunFolder
from tidegate.training.task import Task

__all__ = [
    "Checked",
    "Event",
    "Finished",
    "History",
    "Listener",
    "RunFolder",
    "Started",
    "Task",
    "TrainingPlan",
    "seeded",
    "train",
]
