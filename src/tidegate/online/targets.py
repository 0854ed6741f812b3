"""Targets: what the net's outputs mean, and the gradient of the loss in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from tidegate.data.values import can_be_saved, is_missing, plain
from tidegate.errors import ArgumentError
from tidegate.online.scale import LARGEST, RunningScale

Label = str | int | float | bool
Guess = list[float]  # as many numbers as there are outputs


class LearnerTarget(Protocol):
    """A task. A guess is made before its label is known, in the scale or the labels of that time."""

    outputs: int

    def read(self, y: Any) -> Any:
        """A label, checked; None where it is missing."""

    def guess(self, out: Sequence[float]) -> Guess:
        """The guess that these outputs stand for."""

    def shown(self, guess: Guess) -> Any:
        """The prediction that users see."""

    def error(self, guess: Guess, y: Any) -> float:
        """The error of a guess."""

    def learn(self, y: Any) -> None:
        """Update the scale, or the known labels, with a label."""

    def gradient(self, out: Sequence[float], y: Any) -> list[float]:
        """The gradient of the loss in each output."""

    def to_json(self) -> Any:
        """The scale or the known labels as plain data."""


class Number:
    """Regression: half the squared error, in deviations of the target from its running mean."""

    outputs = 1

    def __init__(self, window: int, seen: Sequence[float] = ()) -> None:
        self.window, self.scale = window, RunningScale(*seen)

    def read(self, y: Any) -> float | None:
        """The number; None where it is missing."""
        if is_missing(y):
            return None
        try:
            number = float(y) if not isinstance(y, str) else math.nan
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= LARGEST:
            raise ArgumentError(
                f"y must be a number between -{LARGEST:g} and {LARGEST:g}, got {y!r:.80}: give None where it is "
                "missing, or task='classification' for labels"
            )
        return number

    def guess(self, out: Sequence[float]) -> Guess:
        """The number, in the target's units."""
        return [self.scale.unscaled(out[0])]

    def shown(self, guess: Guess) -> float:
        """The number itself."""
        return guess[0]

    def error(self, guess: Guess, y: float) -> float:
        """The absolute error."""
        return abs(y - guess[0])

    def learn(self, y: float) -> None:
        """Update the scale."""
        self.scale = self.scale.seen(y, self.window)

    def gradient(self, out: Sequence[float], y: float) -> list[float]:
        """The error, in standard deviations."""
        return [out[0] - self.scale.scaled(y)]

    def to_json(self) -> list[float]:
        """The scale."""
        return list(self.scale)


class Labels:
    """Classification: cross-entropy over the labels met so far; further outputs are for labels still to come."""

    def __init__(self, outputs: int, known: Sequence[Label] = ()) -> None:
        self.outputs = outputs
        self.known: dict[Label, int] = {label: k for k, label in enumerate(known)}

    def read(self, y: Any) -> Label | None:
        """The label, of plain Python; None where it is missing."""
        label: Label = plain(y)
        if is_missing(label):
            return None
        if not isinstance(label, str | int | float) or not can_be_saved(label):
            raise ArgumentError(
                f"y must be a label: text, a finite number or a truth value, got {y!r:.80}: give None where it is "
                "missing"
            )
        if label not in self.known and len(self.known) == self.outputs:
            raise ArgumentError(f"label {y!r:.80} is one more than max_classes={self.outputs}: give a larger number")
        return label

    def guess(self, out: Sequence[float]) -> Guess:
        """The probability of each label; 0 for outputs without a label."""
        known = out[: len(self.known)]
        top = max(known, default=0.0)
        powers = [math.exp(o - top) for o in known]
        total = sum(powers)
        return [p / total for p in powers] + [0.0] * (self.outputs - len(known))

    def shown(self, guess: Guess) -> Label | None:
        """The most probable label."""
        found = self.probabilities(guess)
        return max(found, key=found.__getitem__) if found else None

    def probabilities(self, guess: Guess) -> dict[Label, float]:
        """The probabilities by label."""
        return dict(zip(self.known, guess, strict=False))

    def error(self, guess: Guess, y: Label) -> float:
        """One minus the probability of the label."""
        return 1.0 - guess[self.known[y]] if y in self.known else 1.0

    def learn(self, y: Label) -> None:
        """Add the label to the known ones."""
        self.known.setdefault(y, len(self.known))

    def gradient(self, out: Sequence[float], y: Label) -> list[float]:
        """The probabilities, minus 1 at the label."""
        found = self.guess(out)
        found[self.known[y]] -= 1.0
        return found

    def to_json(self) -> list[Label]:
        """The labels."""
        return list(self.known)
