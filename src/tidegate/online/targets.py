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
    """A task. A guess is made before its label is known, in the scale or the labels of that time.

    `last` is the newest label of the key that was known when the step was predicted, or None. An `anchored` task reads
    it beside the features, and adds the net's output to it.
    """

    outputs: int
    anchored: bool

    def inputs(self, last: Any) -> list[float]:
        """What the net reads of the last label, scaled."""

    def read(self, y: Any) -> Any:
        """A label, checked; None where it is missing."""

    def guess(self, out: Sequence[float], last: Any) -> Guess:
        """The guess that these outputs stand for."""

    def shown(self, guess: Guess) -> Any:
        """The prediction that users see."""

    def error(self, guess: Guess, y: Any) -> float:
        """The error of a guess."""

    def learn(self, y: Any, last: Any) -> None:
        """Update the scales, or the known labels, with a label."""

    def gradient(self, out: Sequence[float], y: Any, last: Any) -> list[float]:
        """The gradient of the loss in each output."""

    def to_json(self) -> Any:
        """The scales or the known labels as plain data."""


class Number:
    """Regression: half the squared error, in the units of the net's output.

    These are standard deviations from the target's running mean, or, if the target is `anchored` and there is a last
    number, distances from it, in units of the root mean square of all such distances: `moves` is their scale.
    """

    outputs = 1

    def __init__(self, window: int, anchored: bool) -> None:
        self.window, self.anchored = window, anchored
        self.scale = self.moves = RunningScale()

    def inputs(self, last: float | None) -> list[float]:
        """The last number in deviations from the mean, 0 if there is none; nothing without an anchor."""
        return [0.0 if last is None else self.scale.scaled(last)] if self.anchored else []

    def _about(self, last: float | None) -> RunningScale:
        """The scale of the output."""
        if last is None or not self.anchored:
            return self.scale
        weight, mean, variance = self.moves
        return RunningScale(weight, last, variance + mean * mean)

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

    def guess(self, out: Sequence[float], last: float | None) -> Guess:
        """The number, in the target's units."""
        return [self._about(last).unscaled(out[0])]

    def shown(self, guess: Guess) -> float:
        """The number itself."""
        return guess[0]

    def error(self, guess: Guess, y: float) -> float:
        """The absolute error."""
        return abs(y - guess[0])

    def learn(self, y: float, last: float | None) -> None:
        """Update the scales."""
        self.scale = self.scale.seen(y, self.window)
        if last is not None:
            self.moves = self.moves.seen(y - last, self.window)

    def gradient(self, out: Sequence[float], y: float, last: float | None) -> list[float]:
        """The error, in units of the output."""
        return [out[0] - self._about(last).scaled(y)]

    def to_json(self) -> list[Any]:
        """The scale, and that of distances from an anchor."""
        return [list(self.scale), list(self.moves)] if self.anchored else list(self.scale)


class Labels:
    """Classification: cross-entropy over the labels met so far; further outputs are for labels still to come."""

    anchored = False

    def __init__(self, outputs: int, known: Sequence[Label] = ()) -> None:
        self.outputs = outputs
        self.known: dict[Label, int] = {label: k for k, label in enumerate(known)}

    def inputs(self, last: Label | None) -> list[float]:
        """Nothing: a label is no number."""
        return []

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

    def guess(self, out: Sequence[float], last: Label | None = None) -> Guess:
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

    def learn(self, y: Label, last: Label | None = None) -> None:
        """Add the label to the known ones."""
        self.known.setdefault(y, len(self.known))

    def gradient(self, out: Sequence[float], y: Label, last: Label | None = None) -> list[float]:
        """The probabilities, minus 1 at the label."""
        found = self.guess(out)
        found[self.known[y]] -= 1.0
        return found

    def to_json(self) -> list[Label]:
        """The labels."""
        return list(self.known)
