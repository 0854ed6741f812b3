"""What is predicted: what the net's outputs mean, and the slope of the loss in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from tidegate.errors import ArgumentError
from tidegate.online.scale import LARGEST, RunningScale

Guess = list[float]  # as many numbers as there are outputs
Label = str | int | float | bool


class LearnerTarget(Protocol):
    """A task. A guess is made before its label is known, and belongs to the scale or the labels of its time."""

    outputs: int

    def read(self, y: Any) -> Any:
        """What came as label, checked; None where it is missing."""

    def guess(self, out: Sequence[float]) -> Guess:
        """What these outputs say."""

    def shown(self, guess: Guess) -> Any:
        """The prediction of a guess."""

    def error(self, guess: Guess, y: Any) -> float:
        """How far a guess was from its label."""

    def learn(self, y: Any) -> None:
        """Let the scale, or the labels that are known, have this one too."""

    def slope(self, out: Sequence[float], y: Any) -> list[float]:
        """The slope of the loss in each output."""

    def to_json(self) -> Any:
        """What was seen, as plain data."""


class Number:
    """Regression: half the squared error, in deviations of the target from its running mean."""

    outputs = 1

    def __init__(self, window: int, seen: Sequence[float] = ()) -> None:
        self.window, self.scale = window, RunningScale(*seen)

    def read(self, y: Any) -> float | None:
        """The number; NaN is none."""
        if y is None:
            return None
        try:
            number = float(y) if not isinstance(y, str) else None
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or abs(number) > LARGEST:
            raise ArgumentError(
                f"y is {y!r}, and a number between -{LARGEST:g} and {LARGEST:g} was expected: give None where it is "
                "missing, or task='classification' for labels"
            )
        return None if math.isnan(number) else number

    def guess(self, out: Sequence[float]) -> Guess:
        """The number, in the target's units."""
        return [self.scale.unscaled(out[0])]

    def shown(self, guess: Guess) -> float:
        """The number."""
        return guess[0]

    def error(self, guess: Guess, y: float) -> float:
        """The absolute error."""
        return abs(y - guess[0])

    def learn(self, y: float) -> None:
        """Move the scale."""
        self.scale = self.scale.seen(y, self.window)

    def slope(self, out: Sequence[float], y: float) -> list[float]:
        """The error, in deviations."""
        return [out[0] - self.scale.scaled(y)]

    def to_json(self) -> list[float]:
        """The scale."""
        return list(self.scale)


class Labels:
    """Classification: cross-entropy over the labels met so far; an output waits for each that may come."""

    def __init__(self, outputs: int, known: Sequence[Label] = ()) -> None:
        self.outputs = outputs
        self.known: dict[Label, int] = {label: k for k, label in enumerate(known)}

    def read(self, y: Any) -> Label | None:
        """The label, of plain Python; None and NaN are none."""
        label = y.item() if hasattr(y, "item") else y
        if label is None or label != label:
            return None
        if not isinstance(label, str | int | float):
            raise ArgumentError(
                f"y is {y!r}, and a label was expected, which is text, a number or a truth value: give None where it "
                "is missing"
            )
        if label not in self.known and len(self.known) == self.outputs:
            raise ArgumentError(
                f"y is {y!r}, which would be label {self.outputs + 1}, and there is room for {self.outputs}: give "
                "max_classes= with room for all"
            )
        return label

    def guess(self, out: Sequence[float]) -> Guess:
        """The probability of each label, 0 where none is met yet."""
        known = out[: len(self.known)]
        top = max(known, default=0.0)
        powers = [math.exp(o - top) for o in known]
        total = sum(powers)
        return [p / total for p in powers] + [0.0] * (self.outputs - len(known))

    def shown(self, guess: Guess) -> Label | None:
        """The likeliest label."""
        found = self.probabilities(guess)
        return max(found, key=found.__getitem__) if found else None

    def probabilities(self, guess: Guess) -> dict[Label, float]:
        """The probabilities by label."""
        return dict(zip(self.known, guess, strict=False))

    def error(self, guess: Guess, y: Label) -> float:
        """The probability that was not given to the label."""
        return 1.0 - guess[self.known[y]] if y in self.known else 1.0

    def learn(self, y: Label) -> None:
        """Know the label."""
        self.known.setdefault(y, len(self.known))

    def slope(self, out: Sequence[float], y: Label) -> list[float]:
        """The probabilities, less 1 at the label."""
        found = self.guess(out)
        found[self.known[y]] -= 1.0
        return found

    def to_json(self) -> list[Label]:
        """The labels."""
        return list(self.known)
