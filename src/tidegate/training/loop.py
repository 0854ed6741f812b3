"""The training loop: Adam, early stopping on the validation loss, and a time budget."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.errors import TrainingError
from tidegate.gradients import BPTT, Rule, sweep
from tidegate.nn import State, clip_norm_
from tidegate.training.events import Checked, Event, Finished, Listener, Started
from tidegate.training.history import History
from tidegate.training.task import Task

ENOUGH = "the validation loss did not fall any further"
OUT_OF_TIME = "the time was up"
INTERRUPTED = "it was interrupted"
_SMALL = 100_000


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    The validation part is looked at before the first update and then every `check_every` updates. After `patience`
    looks without a new lowest loss the best weights are put back and the learning rate is cut to a third; when that has
    happened `cuts` times and `patience` looks have passed once more, training ends. It also ends after `budget`
    seconds, or at Ctrl-C. In each case the best weights seen are put back. The same seed gives the same numbers; a run
    that the clock ended gives those of the updates that it had time for.
    """

    learning_rate: float = 0.003
    clip: float = 1.0
    budget: float = 120.0
    seed: int = 0
    rule: Rule = field(default_factory=BPTT)
    check_every: int = 25
    patience: int = 6
    cuts: int = 2


def train(task: Task[Any], plan: TrainingPlan, listeners: Sequence[Listener] = ()) -> History:
    """Train the task's module by the plan; on return it holds the best weights seen.

    Raises `TrainingError` when a loss or a gradient is not finite.
    """
    with seeded(plan.seed), _threads_for(task.module):
        return _Loop(task, plan, listeners).run()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's RNG inside the block and restore the caller's state on exit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _threads_for(module: nn.Module) -> Iterator[None]:
    """Use one thread for small nets, where more threads cost more than they save."""
    before = torch.get_num_threads()
    if sum(weight.numel() for weight in module.parameters()) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Loop:
    def __init__(self, task: Task[Any], plan: TrainingPlan, listeners: Sequence[Listener]) -> None:
        self.task, self.plan, self.listeners = task, plan, listeners
        self.parameters = [weight for weight in task.module.parameters() if weight.requires_grad]
        self.batches = task.batches(torch.Generator().manual_seed(plan.seed))
        self.optimiser = torch.optim.Adam(self.parameters, lr=plan.learning_rate)
        self.checks: list[Checked] = []
        self.best: dict[str, Tensor] = {}
        self.losses: list[float] = []
        self.updates, self.started = 0, time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def run(self) -> History:
        self.tell(Started(sum(weight.numel() for weight in self.parameters), self.plan.budget))
        self.check()
        try:
            reason = self.until_done()
        except KeyboardInterrupt:
            reason = INTERRUPTED
        if self.losses and reason == OUT_OF_TIME:
            self.check()
        self.task.module.load_state_dict(self.best)
        kept = max(check.update for check in self.checks if check.best)
        finished = Finished(self.updates, self.seconds, reason, kept)
        self.tell(finished)
        return History(tuple(self.checks), finished)

    def until_done(self) -> str:
        cuts = waited = 0
        while waited < self.plan.patience:
            for _ in range(self.plan.check_every):
                self.learn(next(self.batches))
                if self.seconds >= self.plan.budget:
                    return OUT_OF_TIME
            waited = 0 if self.check() else waited + 1
            if waited == self.plan.patience and cuts < self.plan.cuts:
                self.cut()
                cuts, waited = cuts + 1, 0
        return ENOUGH

    def learn(self, batch: Any) -> None:
        def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
            return self.task.run(batch, start, stop, state)

        def score(outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
            return self.task.score(batch, outputs, start, stop)

        self.task.module.train()
        for total, count in sweep(self.plan.rule, self.task.module, self.task.length(batch), run, score):
            if count > 0:
                self.step(total / count)

    def step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        norm = float(clip_norm_(self.parameters, self.plan.clip))
        self.updates += 1
        self.losses.append(loss.item())
        if not (math.isfinite(norm) and math.isfinite(self.losses[-1])):
            raise self.failure("training loss", self.losses[-1], norm)
        self.optimiser.step()

    def check(self) -> bool:
        self.task.module.eval()
        with torch.no_grad():
            validation = self.task.validate()
        if not math.isfinite(validation):
            raise self.failure("validation loss", validation, None)
        best = not self.checks or validation < min(check.validation for check in self.checks)
        mean = sum(self.losses) / len(self.losses) if self.losses else None
        rate = self.optimiser.param_groups[0]["lr"]
        self.checks.append(Checked(self.updates, self.seconds, mean, validation, rate, best))
        self.losses.clear()
        if best:
            self.best = {name: tensor.clone() for name, tensor in self.task.module.state_dict().items()}
        self.tell(self.checks[-1])
        return best

    def cut(self) -> None:
        self.task.module.load_state_dict(self.best)
        self.optimiser = torch.optim.Adam(self.parameters, lr=self.optimiser.param_groups[0]["lr"] / 3)

    def failure(self, what: str, value: float, norm: float | None) -> TrainingError:
        gradient = "" if norm is None else f" and the norm of its gradient {norm:g}"
        return TrainingError(
            f"After {self.updates} updates the {what} is {value:g}{gradient}, but it must be finite. "
            f"Lower the learning rate (now {self.optimiser.param_groups[0]['lr']:g}) or the clipping norm "
            f"(now {self.plan.clip:g}), or look for extreme values in the data."
        )

    def tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
