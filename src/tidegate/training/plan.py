"""How to train: the plan, and the schedules of the learning rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from tidegate.errors import ArgumentError
from tidegate.gradients import BPTT, Rule

WARM_UP = 0.05  # share of the budget in which "cosine" raises the learning rate
FLOOR = 0.01  # share of the learning rate that "cosine" starts from and ends at


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    The validation loss is computed before the first update and then after every `check_every` batches (with
    `accumulate`, groups of batches). Training ends after `budget` seconds, or after `updates` updates where these come
    first. In each case the best weights seen are put back. With `validated=False` there is no validation part and no
    early stopping, and the last weights are kept. The same seed gives the same numbers; a run that the clock ended
    gives those of the updates that it had time for.

    `schedule` says how the learning rate moves. "constant": after `patience` checks without a new lowest loss the best
    weights are put back and the rate is cut to a third; when that has happened `cuts` times and `patience` checks have
    passed once more, training ends early. "cosine": the rate rises for the first 5 % of the budget (Goyal et al. 2017,
    arXiv:1706.02677) and falls to 1 % along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983); the whole
    budget is used. Its share is that of `updates` where they are given, else that of the seconds.

    With `accumulate` so many batches make one update, by the gradient of the mean over all their losses. Under a rule
    with several updates a batch, so many of its segments make one. Where `train` writes
    checkpoints, it does so at each check and every `save_every` seconds.
    """

    learning_rate: float = 0.003
    clip: float = 1.0
    budget: float = 120.0
    seed: int = 0
    rule: Rule = field(default_factory=BPTT)
    check_every: int = 25
    patience: int = 6
    cuts: int = 2
    updates: int | None = None
    schedule: str = "constant"
    accumulate: int = 1
    validated: bool = True
    save_every: float = 60.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ArgumentError(f"schedule must be {' or '.join(map(repr, SCHEDULES))}, got {self.schedule!r}")
        for name in ("accumulate", "check_every", *(() if self.updates is None else ("updates",))):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} must be a whole number of 1 or more, got {getattr(self, name)!r}")

        if self.schedule == "cosine" and self.updates is None and not math.isfinite(self.budget):
            raise ArgumentError("schedule='cosine' needs an end: give updates, or a finite budget")

    @property
    def stops_early(self) -> bool:
        """Whether training ends, and rates are cut, when the validation loss stops falling."""
        return self.validated and self.schedule == "constant"

    def rate(self, share: float, cuts: int) -> float:
        """The learning rate of an update that ends at this share (0 to 1) of the budget, after so many cuts."""
        return self.learning_rate * SCHEDULES[self.schedule](min(share, 1.0)) / 3**cuts

    def texts(self) -> dict[str, str]:
        """What decides the numbers of a run, as texts by name."""
        names = [part.name for part in fields(self) if part.name != "save_every"]
        return {name: str(getattr(self, name)) for name in names}


def _constant(share: float) -> float:
    return 1.0


def _cosine(share: float) -> float:
    if share < WARM_UP:
        return max(share / WARM_UP, FLOOR)
    fall = (share - WARM_UP) / (1 - WARM_UP)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * fall)) / 2


SCHEDULES: dict[str, Callable[[float], float]] = {"constant": _constant, "cosine": _cosine}
