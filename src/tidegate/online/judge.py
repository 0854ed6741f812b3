"""Errors of predictions made before their labels were known, beside those of a naive guess."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tidegate.config import ConfigDict, Field, checked
from tidegate.data.values import can_be_saved, is_missing
from tidegate.errors import ArgumentError, ModelFileError
from tidegate.online.events import Key
from tidegate.online.targets import Label
from tidegate.online.track import Recent

_Score = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class JudgeData:
    """A judge as plain data."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    task: Literal["regression", "classification"]
    delay: Annotated[int, Field(ge=0, le=100_000)]
    max_keys: Annotated[int, Field(ge=1)]
    scores: tuple[_Count, _Score, _Score]
    labels: list[tuple[Label, _Count]]
    followed: list[tuple[Key, Label | None, list[tuple[Label | None, Label | None]]]]


@dataclass
class JudgedKey:
    """One key: its last label, and (prediction, naive guess) for each step whose label is still to come."""

    last: Label | None = None
    waiting: deque[tuple[Any, Any]] = field(default_factory=deque)


class Judge:
    """The prequential error (Dawid 1984, doi:10.2307/2981683): each prediction is scored when its label is known.

    For numbers it is the mean absolute error, beside that of the key's last number known when the prediction was made;
    for labels the share of wrong ones, beside that of the most frequent label so far. A step is scored where there is
    a prediction, a naive guess and a label. Of keys as many are followed as a learner keeps.
    """

    def __init__(self, task: str, delay: int = 0, max_keys: int = 1024) -> None:
        self.task, self.delay = task, delay
        self.followed: Recent[JudgedKey] = Recent(max_keys)
        self.labels: Counter[Label] = Counter()
        self.count, self.error, self.naive = 0, 0.0, 0.0

    def last(self, key: Key) -> Label | None:
        """The last label of a key."""
        found = self.followed.find(key)
        return found.last if found else None

    def judge(self, prediction: Any, label: Any, key: Key = None) -> None:
        """One step: its prediction, and the label given with it, that of `delay` steps ago.

        A prediction that is not finite counts as none. Raises ArgumentError for a label that is not finite.
        """
        missing = is_missing(label)
        if not missing and not can_be_saved(label):
            raise ArgumentError(f"a label must be text, a finite number or a truth value, got {label!r:.80}")
        own = self.followed.find(key) or JudgedKey()
        self.followed.keep(key, own)
        made = prediction is not None and can_be_saved(prediction)
        own.waiting.append((prediction if made else None, self._naive(own)))
        guess, naive = own.waiting.popleft() if len(own.waiting) > self.delay else (None, None)
        if missing:
            return
        if guess is not None and naive is not None:
            self._score(guess, naive, label)
        own.last = label
        if self.task == "classification":
            self.labels[label] += 1

    def _naive(self, own: JudgedKey) -> Any:
        if self.task == "regression":
            return own.last
        return max(self.labels, key=self.labels.__getitem__) if self.labels else None

    def _score(self, prediction: Any, naive: Any, label: Any) -> None:
        self.count += 1
        self.error += (self._loss(prediction, label) - self.error) / self.count
        self.naive += (self._loss(naive, label) - self.naive) / self.count

    def _loss(self, guess: Any, label: Any) -> float:
        return abs(guess - label) if self.task == "regression" else float(guess != label)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "task": self.task,
            "delay": self.delay,
            "max_keys": self.followed.most,
            "scores": [self.count, self.error, self.naive],
            "labels": list(self.labels.items()),
            "followed": [[key, own.last, list(own.waiting)] for key, own in self.followed.kept.items()],
        }

    @classmethod
    def from_json(cls, data: object) -> Judge:
        """The judge that `to_json` wrote. Raises ModelFileError where the data is not that of one."""
        found: JudgeData = checked(JudgeData, data, "judge")
        judge = cls(found.task, found.delay, found.max_keys)
        judge.count, judge.error, judge.naive = found.scores
        judge.labels.update(dict(found.labels))
        for key, last, waiting in found.followed:
            if len(waiting) > found.delay:
                raise ModelFileError(f"judge.followed has {len(waiting)} waiting predictions of one key")
            values = [last, *(value for pair in waiting for value in pair)]
            if found.task == "regression" and any(isinstance(value, str) for value in values):
                raise ModelFileError("judge.followed must hold numbers where the task is a regression")
            judge.followed.keep(key, JudgedKey(last, deque(waiting)))
        return judge
