"""The training loop: Adam, early stopping on the validation loss, a budget, and checkpoints to continue from."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.errors import ArgumentError, TrainingError
from tidegate.files import reading
from tidegate.training.checkpoint import load_checkpoint, save_checkpoint
from tidegate.training.events import Checked, Event, Finished, Listener, Started, Undone, Updated
from tidegate.training.history import History
from tidegate.training.plan import TrainingPlan
from tidegate.training.position import Position
from tidegate.training.ranks import ALONE, Ranks
from tidegate.training.task import Shareable, Task
from tidegate.training.update import Attempt, Updater

ENOUGH = "the validation loss did not fall any further"
OUT_OF_TIME = "the time was up"
ALL_UPDATES = "all updates were made"
INTERRUPTED = "it was interrupted"
UNDONE_IN_A_ROW = 3  # updates that are not finite, before training ends
_SMALL = 100_000
TELL_EVERY = 1.0  # seconds between events, where nothing else happens


def train(
    task: Task[Any],
    plan: TrainingPlan,
    listeners: Sequence[Listener] = (),
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    ranks: Ranks = ALONE,
) -> History:
    """Train the task's module by the plan; on return it holds the best weights seen.

    `checkpoint` names a file to write at every check and every `plan.save_every` seconds. With `resume` training
    continues from it where it exists; with the same number of threads it ends with the bits of a run that was never
    interrupted, unless the clock ends it. Ctrl-C ends training with the best weights so far, but with `checkpoint` it
    is raised, since training can continue.

    Processes that `torchrun` started share each batch where `ranks` names them: the task is also `Shareable`, and
    gradients are summed over processes; buffers are those of rank 0. Only rank 0 calls listeners and writes
    checkpoints, which need as many processes again.

    An update whose loss or gradient is not finite is undone. Raises `TrainingError`, with the best weights in the
    module, after three of them in a row, and where a validation loss is not finite; `ArgumentError` where the file
    exists and `resume` is False, or it is of another plan; `ModelFileError` where it is damaged or of another net.
    """
    saved = load_checkpoint(checkpoint) if checkpoint else None
    if saved is not None and not resume:
        raise ArgumentError(f"{checkpoint} exists already. Pass resume=True to continue from it, or remove it.")
    if ranks.size > 1 and not isinstance(task, Shareable):
        raise ArgumentError(
            f"{type(task).__name__} has no method share: its batches cannot be divided, use one process"
        )
    with seeded(plan.seed + ranks.rank), _threads_for(task.module):
        loop = _Loop(task, plan, listeners, checkpoint, ranks)
        if saved is not None:
            loop.load(saved)
        return loop.run()


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
    def __init__(
        self,
        task: Task[Any],
        plan: TrainingPlan,
        listeners: Sequence[Listener],
        checkpoint: Path | None,
        ranks: Ranks,
    ) -> None:
        self.task, self.plan, self.checkpoint, self.ranks = task, plan, checkpoint, ranks
        self.listeners = listeners if ranks.rank == 0 else ()
        self.updater = Updater(task, plan, ranks)
        self.at, self.best = Position(), dict[str, Tensor]()
        self.started = self.told = time.monotonic()
        self.now = self.saved = 0.0  # seconds of training: as all processes agreed last, and at the last checkpoint

    @property
    def seconds(self) -> float:
        return self.at.seconds + time.monotonic() - self.started

    def run(self) -> History:
        if self.at.finished is None:
            size = sum(weight.numel() for weight in self.updater.parameters)
            self.tell(Started(size, self.plan.budget, self.plan.updates, self.at.updates, self.at.seconds))
            self.finish(self.until_done())
        if self.best:
            self.task.module.load_state_dict(self.best)
        assert self.at.finished is not None
        return History(tuple(self.at.checks), self.at.finished)

    def until_done(self) -> str:
        try:
            if self.plan.validated and not self.at.checks:
                self.check()
                self.save()
            while (reason := self.spent() or self.learn_and_check()) is None:
                pass
        except KeyboardInterrupt:
            if self.checkpoint or (self.plan.validated and not self.best):
                raise
            reason = INTERRUPTED
        return reason

    def spent(self) -> str | None:
        """Why training ends where its budget is spent."""
        if self.plan.updates is not None and self.at.updates >= self.plan.updates:
            return ALL_UPDATES
        begun = self.at.updates or self.at.batches
        return OUT_OF_TIME if begun and self.now >= self.plan.budget else None

    def learn_and_check(self) -> str | None:
        """One batch, and what is due after it. Returns why training ends, if it does."""
        self.learn()
        self.at.batches += 1
        self.ranks.copy_first(self.task.module.buffers())
        self.now = self.ranks.first(self.seconds)
        if self.at.losses and time.monotonic() - self.told >= TELL_EVERY:
            self.tell(Updated(self.at.updates, self.seconds, self.at.losses[-1]))
        if self.spent() is None and self.at.batches >= self.plan.check_every:
            self.at.batches = 0
            if self.plan.validated:
                self.at.waited = 0 if self.check() else self.at.waited + 1
            self.at.losses.clear()
            if self.plan.stops_early and self.at.waited == self.plan.patience:
                if self.at.cuts == self.plan.cuts:
                    return ENOUGH
                self.cut()
            self.save()
        elif self.now - self.saved >= self.plan.save_every:
            self.save()
        return None

    def finish(self, reason: str) -> None:
        if self.plan.validated and self.at.losses and reason in (OUT_OF_TIME, ALL_UPDATES):
            self.check()
        kept = max((check.update for check in self.at.checks if check.best), default=self.at.updates)
        self.at.finished = Finished(self.at.updates, self.seconds, reason, kept)
        self.tell(self.at.finished)
        self.save()

    def learn(self) -> None:
        """The updates of one batch, until the budget is spent."""
        for update in self.updater.batch(self.rate):
            if update.made:
                self.at.updates, self.at.undone = self.at.updates + 1, 0
                self.at.losses.append(update.loss)
            else:
                self.count_undone(update)
            if self.spent():
                break

    def count_undone(self, update: Attempt) -> None:
        self.at.undone += 1
        self.tell(Undone(self.at.updates, self.seconds, update.loss, update.norm, self.at.undone))
        if self.at.undone == UNDONE_IN_A_ROW:
            more = f" and the norm of its gradient {update.norm:g}, three times in a row"
            raise self.failure("training loss", update.loss, more)

    def rate(self) -> float:
        """The learning rate of the next update."""
        if self.plan.updates is None:
            return self.plan.rate(self.now / self.plan.budget, self.at.cuts)
        return self.plan.rate((self.at.updates + 1) / self.plan.updates, self.at.cuts)

    def check(self) -> bool:
        """Compute the validation loss. Returns whether it is the lowest so far; then the weights are the best."""
        self.task.module.eval()
        with torch.no_grad():
            validation = self.ranks.first(self.task.validate())
        if not math.isfinite(validation):
            raise self.failure("validation loss", validation, "")
        best = not self.at.checks or validation < min(check.validation for check in self.at.checks)
        mean = sum(self.at.losses) / len(self.at.losses) if self.at.losses else None
        self.at.checks.append(Checked(self.at.updates, self.seconds, mean, validation, self.rate(), best))
        self.at.losses.clear()
        if best:
            self.best = {name: tensor.clone() for name, tensor in self.task.module.state_dict().items()}
        self.tell(self.at.checks[-1])
        return best

    def cut(self) -> None:
        """Put the best weights back and cut the learning rate; Adam starts anew."""
        self.task.module.load_state_dict(self.best)
        self.updater.restart()
        self.at.cuts, self.at.waited = self.at.cuts + 1, 0

    def failure(self, what: str, value: float, more: str) -> TrainingError:
        """The error of a loss that is not finite; the module has its best weights again."""
        if self.best:
            self.task.module.load_state_dict(self.best)
        return TrainingError(
            f"After {self.at.updates} updates the {what} is {value:g}{more}, but it must be finite. "
            f"Lower the learning rate (now {self.rate():g}) or the clipping norm (now {self.plan.clip:g}), "
            "or look for extreme values in the data."
        )

    def save(self) -> None:
        """Write the checkpoint, where one is wanted."""
        if self.checkpoint is None:
            return
        learned = self.updater.state_dict()
        self.at.seconds, self.started = self.seconds, time.monotonic()
        self.saved = self.now
        if self.ranks.rank == 0:
            state = {"plan": self.plan.texts(), "position": self.at.to_json(), "best": self.best, "updater": learned}
            save_checkpoint(self.checkpoint, state)

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `save` wrote."""
        assert self.checkpoint is not None
        theirs = {**state["plan"], "processes": str(len(state["updater"]["ranks"]))}
        for name, value in {**self.plan.texts(), "processes": str(self.ranks.size)}.items():
            if value != theirs.get(name):
                raise ArgumentError(
                    f"{self.checkpoint} is of a run with {name}={theirs.get(name)}, got {name}={value}: give the same "
                    "options, or another file for a new run."
                )
        with reading(self.checkpoint):
            self.at = Position.from_json(state["position"])
            self.best = state["best"]
            self.updater.load_state_dict(state["updater"])
        self.started = time.monotonic()
        self.now = self.saved = self.at.seconds

    def tell(self, event: Event) -> None:
        self.told = time.monotonic()
        for listener in self.listeners:
            listener(event)
