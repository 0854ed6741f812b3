"""Features of a step, by name or place: checked and scaled."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tidegate.data.values import can_be_saved, is_missing
from tidegate.errors import ArgumentError, TidegateNotice
from tidegate.online.scale import LARGEST, RunningScale

Name = str | int
Numbers = dict[Name, float]


class FeatureInputs:
    """Slots for features, in the order of their first occurrence, each with its scale.

    A slot whose feature is missing in a step reads 0, which is its running mean, as does one that no feature has yet.
    A feature for which there is no slot is ignored, with one notice.
    """

    def __init__(self, size: int, window: int, slots: Sequence[Name] = (), scales: Sequence[RunningScale] = ()) -> None:
        self.size, self.window = size, window
        self.slots = {name: k for k, name in enumerate(slots)}
        self.scales = [*scales, *[RunningScale()] * (size - len(scales))]
        self._told = False

    def admit(self, numbers: Numbers) -> None:
        """Assign slots to new features: those of one step in the order of their names."""
        for name in sorted((name for name in numbers if name not in self.slots), key=str):
            if len(self.slots) < self.size:
                self.slots[name] = len(self.slots)
            else:
                self._tell(name)

    def _tell(self, name: Name) -> None:
        if not self._told:
            self._told = True
            warnings.warn(
                f"feature {name!r} is ignored, as will be all other new ones: the net has {self.size} inputs, and all "
                "are taken. Give a larger max_features=, or every feature in the first step.",
                TidegateNotice,
                stacklevel=5,
            )

    def scaled(self, numbers: Numbers) -> tuple[list[float], list[RunningScale]]:
        """The net's input row, and the scales updated with these numbers, which the caller may store."""
        row, scales = [0.0] * self.size, self.scales.copy()
        for name, number in numbers.items():
            slot = self.slots.get(name)
            if slot is not None and number == number:
                scale = scales[slot] = scales[slot].seen(number, self.window)
                row[slot] = scale.scaled(number)
        return row, scales


def read_numbers(x: Any) -> Numbers:
    """The features of a mapping by name, those of a sequence by position; NaN where one is missing.

    Raises ArgumentError for a value that is not a number, is infinite or too large, and for a name of another type.
    """
    found: Numbers = {}
    for name, value in x.items() if isinstance(x, Mapping) else enumerate(_sequence(x)):
        if type(name) not in (str, int) or not can_be_saved(name):
            raise ArgumentError(f"a feature's name must be text or a whole number of 64 bits, got {name!r:.80}")
        number = value if type(value) is float else _number(name, value)
        if abs(number) > LARGEST:
            raise ArgumentError(
                f"feature {name!r} must be between -{LARGEST:g} and {LARGEST:g}, got {number:g}: give None or NaN "
                "where it is missing"
            )
        found[name] = number
    return found


def _sequence(x: Any) -> Sequence[Any]:
    if isinstance(x, np.ndarray):
        x = x.tolist()
    if isinstance(x, list | tuple):
        return x
    raise ArgumentError(
        f"x must be a mapping from features to numbers, or a sequence of numbers, got {type(x).__name__}"
    )


def _number(name: Any, value: Any) -> float:
    if is_missing(value):
        return math.nan
    try:
        if not isinstance(value, str):
            return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        pass
    raise ArgumentError(
        f"feature {name!r} must be a number, got {value!r:.80}: code labels as numbers, or omit the feature"
    )
