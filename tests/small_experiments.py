"""Small experiments for the tests of what surrounds them."""

import signal
import time
from pathlib import Path

import torch

from reproductions.adding import Settings
from reproductions.experiment import Configuration, Curve, Experiment, Measure, Net, Outcome, Published
from reproductions.runs import Run
from tidegate.cells import get

COUNT = Measure("sequences until solved")
EASY, HARD = Settings(20, 60), Settings(20, 30, tanh=True)


def draws(settings: Settings, seed: int, data: Path | None) -> Outcome:
    """Solved by seeds from 2 on, with a figure that only torch's random numbers decide."""
    assert data is None
    figure = round(float(torch.rand(())) * 1000 * settings.steps)
    curve = tuple((float(k), 1.0 / k) for k in range(1, 4))
    return Outcome(figure, True, curve) if seed > 1 else Outcome(None, False, curve)


def fails(settings: Settings, seed: int, data: Path | None) -> Outcome:
    """A broken experiment, which takes a moment to break."""
    time.sleep(0.01)
    raise RuntimeError(f"seed {seed} broke")


def reads(settings: Settings, seed: int, data: Path | None) -> Outcome:
    """The number in the data file."""
    assert data is not None
    return Outcome(float((data / "number.txt").read_text("utf-8")))


def listens(settings: Settings, seed: int, data: Path | None) -> Outcome:
    """0 where an interrupt is ignored."""
    return Outcome(float(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN))


ROWS = (
    Configuration("easy", EASY, COUNT, Published(5000, "5,000 | all"), seeds=3),
    Configuration("hard", HARD, COUNT, seeds=1),
)
QUICK = (Configuration("short", Settings(10, 5), COUNT),)
DRAWS = Experiment(
    "draws",
    "Draws",
    "A paper",
    "What it is.",
    draws,
    ROWS,
    QUICK,
    nets=(Net(get("elman"), "The net:"),),
    curve=Curve("x", "y"),
)
READS = Experiment("reads", "Reads", "A paper", "With data.", reads, ROWS[1:], QUICK, files=("number.txt",))
FAILS = Experiment("fails", "Fails", "A paper", "Never works.", fails, ROWS[:1], QUICK)
LISTENS = Experiment("listens", "Listens", "A paper", "To interrupts.", listens, ROWS[:1], QUICK)


def a_run(figure: float | None = 4000.0, seed: int = 1, name: str = "easy", **more: object) -> Run:
    """A run that nobody ran."""
    outcome = Outcome(figure, figure is not None, ((1.0, 0.5), (2.0, 0.25)))
    fields: dict[str, object] = {"experiment": "draws", "settings": {"steps": 20}, "outcome": outcome, "seconds": 3.0}
    return Run(**fields | {"configuration": name, "seed": seed} | more)  # type: ignore[arg-type]
