"""Errors of predictions that were made before their labels came, beside those of a naive guess."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from tidegate.online.events import Key
from tidegate.online.targets import Label
from tidegate.online.track import Recent


@dataclass
class JudgedKey:
    """One key: the label that came last, and what was predicted of steps whose labels have not come yet."""

    last: Label | None = None
    waiting: deque[tuple[Any, Any]] = field(default_factory=deque)


class Judge:
    """The prequential error (Dawid 1984, doi:10.2307/2981683): each prediction is scored when its label comes.

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
        """The label of a key that came last."""
        found = self.followed.find(key)
        return found.last if found else None

    def judge(self, prediction: Any, label: Any, key: Key = None) -> None:
        """One step: what was predicted for it, and the label that came with it, that of `delay` steps ago."""
        own = self.followed.find(key) or JudgedKey()
        self.followed.keep(key, own)
        own.waiting.append((prediction, self._naive(own)))
        guess, naive = own.waiting.popleft() if len(own.waiting) > self.delay else (None, None)
        if label is None:
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
    def from_json(cls, data: dict[str, Any]) -> Judge:
        """What `to_json` wrote."""
        judge = cls(data["task"], data["delay"], data["max_keys"])
        judge.count, judge.error, judge.naive = data["scores"]
        judge.labels.update(dict(map(tuple, data["labels"])))
        for key, last, waiting in data["followed"]:
            judge.followed.keep(key, JudgedKey(last, deque(map(tuple, waiting))))
        return judge
