"""Updates: batches are drawn, gradients are summed over them and over processes, and Adam makes a step, or none."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from tidegate.gradients import sweep
from tidegate.nn import State, clip_norm_
from tidegate.training.checkpoint import pack, unpack
from tidegate.training.plan import TrainingPlan
from tidegate.training.ranks import Ranks
from tidegate.training.task import Resumable, Shareable, Task

Segments = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Attempt:
    """An update: its mean loss, the norm of its gradient, and whether it was made."""

    loss: float
    norm: float
    made: bool


class Updater:
    """Draws batches of a task and updates its module: all of a run's state but the position of the loop."""

    def __init__(self, task: Task[Any], plan: TrainingPlan, ranks: Ranks) -> None:
        self.task, self.plan, self.ranks = task, plan, ranks
        self.parameters = [weight for weight in task.module.parameters() if weight.requires_grad]
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.restart()

    def restart(self) -> None:
        """Forget Adam's moments."""
        self.optimiser = torch.optim.Adam(self.parameters, lr=self.plan.learning_rate)

    def batch(self, rate: Callable[[], float]) -> Iterator[Attempt]:
        """Learn from the next batch, or the next `accumulate` ones, with the learning rate that is asked for each time.

        With `accumulate` the batches are gone through one after the other, so that a state can be carried, and as many
        segments of the rule make one update. An update whose loss or gradient is not finite is not made; whatever else
        the batches have changed is put back, and the rest of them is skipped.
        """
        batches = [self._draw() for _ in range(self.plan.accumulate)]
        before = self.task.state_dict() if isinstance(self.task, Resumable) else None
        buffers = [buffer.clone() for buffer in self.task.module.buffers()]
        self.task.module.train()
        segments = chain.from_iterable(map(self._sweep, batches))
        while part := list(map(self._backward, islice(segments, self.plan.accumulate))):
            total, count = self._summed(part)
            if count > 0:
                update = self._step(total / count, count, rate())
                if not update.made:
                    self._undo(buffers, before)
                yield update
                if not update.made:
                    return

    def _draw(self) -> Any:
        """This process's share of the next batch."""
        batch = self.task.draw(self.generator)
        if isinstance(self.task, Shareable) and self.ranks.size > 1:
            return self.task.share(batch, self.ranks.rank, self.ranks.size)
        return batch

    def _sweep(self, batch: Any) -> Segments:
        def run(start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
            return self.task.run(batch, start, stop, state)

        def score(outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
            return self.task.score(batch, outputs, start, stop)

        return sweep(self.plan.rule, self.task.module, self.task.length(batch), run, score)

    def _backward(self, segment: tuple[Tensor, Tensor]) -> tuple[float, float]:
        """Add the gradients of a segment. Returns the sum of its losses and their number."""
        total, count = segment
        if count > 0:
            total.backward()
        return total.item(), float(count)

    def _summed(self, part: list[tuple[float, float]]) -> tuple[float, float]:
        """The sum of losses and their number, over segments and processes, over which gradients are summed too."""
        sums = torch.tensor(part, dtype=torch.float64).sum(0)
        if self.ranks.size > 1:
            for weight in self.parameters:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            self.ranks.sum([weight.grad for weight in self.parameters if weight.grad is not None])
            self.ranks.sum([sums])
        return float(sums[0]), float(sums[1])

    def _step(self, loss: float, count: float, rate: float) -> Attempt:
        """Make an update by the mean of `count` losses, unless it or its gradient is not finite."""
        for weight in self.parameters:
            if weight.grad is not None:
                weight.grad /= count
        norm = float(clip_norm_(self.parameters, self.plan.clip))
        update = Attempt(loss, norm, math.isfinite(norm) and math.isfinite(loss))
        if update.made:
            self.optimiser.param_groups[0]["lr"] = rate
            self.optimiser.step()
        self.optimiser.zero_grad()
        return update

    def _undo(self, buffers: list[Tensor], before: dict[str, Any] | None) -> None:
        """Put back what a batch changed beside weights and moments, which an update that is not made leaves alone."""
        with torch.no_grad():
            for buffer, value in zip(self.task.module.buffers(), buffers, strict=True):
                buffer.copy_(value)
        if isinstance(self.task, Resumable) and before is not None:
            self.task.load_state_dict(before)

    def state_dict(self) -> dict[str, Any]:
        """Weights, moments and the random stream of batches; for each process torch's stream and the task's state."""
        task = self.task.state_dict() if isinstance(self.task, Resumable) else None
        own = self.ranks.gather(pack({"torch": torch.get_rng_state(), "task": task}))
        moments = self.optimiser.state_dict()["state"]
        return {
            "weights": self.task.module.state_dict(),
            "moments": {str(number): values for number, values in moments.items()},
            "batches": self.generator.get_state(),
            "ranks": [unpack(data) for data in own],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, of which each process takes its own part."""
        self.task.module.load_state_dict(state["weights"])
        moments = {int(number): values for number, values in state["moments"].items()}
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.generator.set_state(state["batches"])
        own = state["ranks"][self.ranks.rank]
        torch.set_rng_state(own["torch"])
        if isinstance(self.task, Resumable):
            self.task.load_state_dict(own["task"])
