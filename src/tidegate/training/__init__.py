"""The training loop: what it asks of a task, what it tells while it runs, and the folder a run leaves."""

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
