"""Two small tasks that the tests of training share."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.nn import Recurrent, State
from tidegate.training import Event, History


class Follow:
    """Follow the running mean of the input; batches are random, `[T, B, 1]`."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.module = nn.ModuleDict({"layer": Recurrent("gru", 1, 5), "head": nn.Linear(5, 1)})
        self.held = torch.randn(6, 40, 1)
        self.trained: list[bool] = []

    def draw(self, generator: torch.Generator) -> Tensor:
        return torch.randn(6, 8, 1, generator=generator)

    def length(self, batch: Tensor) -> int:
        return len(batch)

    def run(self, batch: Tensor, start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        self.trained.append(self.module.training)
        return self.module["layer"](batch[start:stop], state)

    def score(self, batch: Tensor, outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        steps = torch.arange(1, len(batch) + 1)[:, None, None]
        target = (batch.cumsum(0) / steps)[start:stop]
        return ((self.module["head"](outputs) - target) ** 2).sum(), torch.tensor(target.numel())

    def validate(self) -> float:
        assert not self.module.training
        outputs, _ = self.run(self.held, 0, 6, None)
        self.trained.pop()
        total, count = self.score(self.held, outputs, 0, 6)
        return (total / count).item()


class Stream:
    """Predict the next value of 8 long series that are read in order, with a carried state and dropout."""

    STEPS = 5

    def __init__(self) -> None:
        torch.manual_seed(2)
        layer = Recurrent("lstm", 1, 6, num_layers=2, dropout=0.3)
        self.module = nn.ModuleDict({"layer": layer, "norm": nn.BatchNorm1d(1), "head": nn.Linear(6, 1)})
        self.data = torch.randn(101, 8, 1).cumsum(0).sin()
        self.at, self.state = 0, None

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.at + self.STEPS >= len(self.data):
            self.at, self.state = 0, None
        part = self.data[self.at : self.at + self.STEPS + 1]
        self.at += self.STEPS
        noise = 0.01 * torch.randn(part[:-1].shape, generator=generator)
        return part[:-1] + noise, part[1:]

    def length(self, batch: tuple[Tensor, Tensor]) -> int:
        return len(batch[0])

    def run(self, batch: tuple[Tensor, Tensor], start: int, stop: int, state: State | None) -> tuple[Tensor, State]:
        outputs, end = self._layer(batch[0][start:stop], self.state if start == 0 else state)
        if stop == self.STEPS:
            self.state = end.detach()
        return outputs, end

    def score(self, batch: tuple[Tensor, Tensor], outputs: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        errors = (self.module["head"](outputs) - batch[1][start:stop]) ** 2
        return errors.sum(), torch.tensor(errors.numel())

    def validate(self) -> float:
        outputs, _ = self._layer(self.data[:-1], None)
        return (self.score((self.data[:-1], self.data[1:]), outputs, 0, 100)[0] / 800).item()

    def _layer(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        outputs, end = self.module["layer"](self.module["norm"](x.flatten(0, 1)).view_as(x), state)
        return outputs, end

    def state_dict(self) -> dict[str, Any]:
        layers = self.state.layers if self.state else []
        return {"at": self.at, "state": [[dict(named) for named in layer] for layer in layers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]
        self.state = State(tuple(tuple(layer) for layer in state["state"])) if state["state"] else None


def numbers(history: History) -> list[tuple[int, float, float | None, float, bool]]:
    """All that a run with the same seed repeats."""
    return [(c.update, c.validation, c.training, c.learning_rate, c.best) for c in history.checks]


def timeless(event: Event) -> Event:
    """The event without its time."""
    return replace(event, seconds=0.0)


def bits(state: Any) -> Any:
    """A checkpoint's state in a form that == compares bit for bit, without times."""
    if isinstance(state, Tensor):
        return state.dtype, tuple(state.shape), state.numpy().tobytes()
    if isinstance(state, dict):
        return {name: bits(value) for name, value in state.items() if name != "seconds"}
    return [bits(value) for value in state] if isinstance(state, list) else state
