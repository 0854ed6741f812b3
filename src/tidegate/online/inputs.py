"""What a net reads of a step: features by name or place, checked and scaled."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tidegate.errors import ArgumentError, TidegateNotice
from tidegate.online.scale import LARGEST, RunningScale

Name = str | int
Numbers = dict[Name, float]


class FeatureInputs:
    """Slots for features, in the order in which they came, each with its scale.

    A slot whose feature is missing in a step reads 0, which is its running mean, as does one that no feature has yet.
    A feature for which there is no slot is left unread, and said so once.
    """

    def __init__(self, size: int, window: int, slots: Sequence[Name] = (), scales: Sequence[RunningScale] = ()) -> None:
        self.size, self.window = size, window
        self.slots = {name: k for k, name in enumerate(slots)}
        self.scales = [*scales, *[RunningScale()] * (size - len(scales))]
        self._told = False

    def admit(self, numbers: Numbers) -> None:
        """Give slots to features that have none: those of one step in the order of their names."""
        for name in sorted((name for name in numbers if name not in self.slots), key=str):
            if len(self.slots) < self.size:
                self.slots[name] = len(self.slots)
            else:
                self._tell(name)

    def _tell(self, name: Name) -> None:
        if not self._told:
            self._told = True
            warnings.warn(
                f"feature {name!r} came, and all {self.size} slots have theirs: it is left unread, and so will be all "
                "others that are new. Give max_features= with room for them, or every feature in the first step.",
                TidegateNotice,
                stacklevel=5,
            )

    def scaled(self, numbers: Numbers) -> tuple[list[float], list[RunningScale]]:
        """The row that the net reads, and the scales with these numbers in them, which are not kept yet."""
        row, scales = [0.0] * self.size, self.scales.copy()
        for name, number in numbers.items():
            slot = self.slots.get(name)
            if slot is not None and number == number:
                scale = scales[slot] = scales[slot].seen(number, self.window)
                row[slot] = scale.scaled(number)
        return row, scales


def read_numbers(x: Any) -> Numbers:
    """A mapping's features by name, a sequence's by place; NaN where one is missing, which None says too.

    Raises ArgumentError for a value that is no number, is infinite or too large, and for a name that is none.
    """
    found: Numbers = {}
    for name, value in x.items() if isinstance(x, Mapping) else enumerate(_sequence(x)):
        if type(name) not in (str, int):
            raise ArgumentError(f"a feature's name is text or a whole number, and {name!r} came: give it such a name")
        number = value if type(value) is float else _number(name, value)
        if abs(number) > LARGEST:
            raise ArgumentError(
                f"feature {name!r} is {number:g}, and a number between -{LARGEST:g} and {LARGEST:g} was expected: give "
                "None or NaN where it is missing"
            )
        found[name] = number
    return found


def _sequence(x: Any) -> Sequence[Any]:
    if isinstance(x, np.ndarray):
        x = x.tolist()
    if isinstance(x, list | tuple):
        return x
    raise ArgumentError(
        f"x is a mapping from features to numbers, or a sequence of numbers, and a {type(x).__name__} came"
    )


def _number(name: Any, value: Any) -> float:
    if value is None:
        return math.nan
    try:
        if not isinstance(value, str):
            return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        pass
    raise ArgumentError(
        f"feature {name!r} is {value!r}, and a number was expected: code labels as numbers, or leave the feature away"
    )
