"""Events while a trained net is judged."""

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tidegate.training.events import Judging, Listener

TELL_EVERY = 1.0  # seconds between events

Part = TypeVar("Part")


def judging(parts: Sequence[Part], listeners: Sequence[Listener]) -> Iterator[Part]:
    """The parts to be judged, one after the other; listeners hear of the first and the last, and once a second."""
    began = told = time.monotonic()
    for done, part in enumerate(parts):
        now = time.monotonic()
        if done == 0 or now - told >= TELL_EVERY:
            told = now
            _tell(Judging(done, len(parts), now - began), listeners)
        yield part
    _tell(Judging(len(parts), len(parts), time.monotonic() - began), listeners)


def _tell(event: Judging, listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        listener(event)
