"""`OnlineLearner`: predicts a step, then learns from it."""

from __future__ import annotations

import os
import textwrap
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors.torch
from torch import Tensor

from tidegate.config import OnlineOptions
from tidegate.data.values import can_be_saved, is_missing, plain
from tidegate.equations import Cell
from tidegate.errors import ArgumentError
from tidegate.files import write_model
from tidegate.gradients import Rule
from tidegate.online import kept
from tidegate.online.core import Core
from tidegate.online.events import Event, Key, Listener
from tidegate.online.frames import column, rows
from tidegate.online.inputs import read_numbers
from tidegate.online.river import RiverModel, enter
from tidegate.online.spec import from_spec, to_spec
from tidegate.online.targets import Label, Labels

Place = str | os.PathLike[str]


class OnlineLearner(RiverModel):
    """A recurrent net that learns a stream step by step, in memory that does not grow.

        learner = OnlineLearner(cell="gru", hidden_size=16)
        for x, y in stream:                     # x: {"load": 31.0, "wind": 4.2}, or [31.0, 4.2]
            guess = learner.predict_one(x)      # as often as you like: nothing moves
            learner.learn_one(x, y)             # one step; y=None where there is no label

    `task` is "regression" or "classification", `rule` a rule of `tidegate.gradients` that works step by step, or its
    text, `cell` the name of a cell or a `Cell`. The further options are the fields of `tidegate.config.OnlineOptions`,
    which say what each does: num_layers, learning_rate, clip, delay, anchor, seed, window, drift, max_keys,
    max_features, max_classes, snapshots, snapshot_every.

    **Features** are fixed by the first step; a larger `max_features` leaves inputs for new ones, and those beyond it
    are ignored, with a notice. A feature that is missing (None, NaN, NaT, pandas.NA) reads as its running mean. An
    infinite one is an error. **Scales** are running means and deviations of each feature, this step's included, and of
    the target; predictions are in the target's units. Labels are known as they come, up to `max_classes`.

    **Anchor**: a number is predicted as the last known one of its key plus the net's output, which begins at zero. The
    net reads that last number too. With `anchor="none"` the prediction is the running mean plus the net's output.

    **Keys**, text or whole numbers: each has a state of its own; weights and scales are shared. The least recently
    seen key is forgotten when there are more than `max_keys`.

    **Late labels**: with `delay=k` the label given now is that of k calls ago of the same key; in the first k calls
    it is ignored. A key then has two lines: predictions are made from the newest state, while
    learning follows k steps behind, fed from the last k inputs, with a memory of its own.

    **Guards**: gradients are clipped to the norm `clip`. A step whose output, state or gradient is not finite, or whose
    gradient has exploded, is refused: weights, optimiser and the key's memory stay as they were, and `refused` counts
    it. After three refused steps of a key in a row the learner backs off: the states of all keys and Adam's moments
    start anew, with half the learning rate, which recovers when all goes well; `backed_off` counts. When errors grow an
    alarm is raised: `drift` says so of the last step, `drifts` counts. `listeners` are called with the events of
    `tidegate.online`. With `snapshots=` a folder keeps the last two snapshots, one every `snapshot_every` steps.

    **Threads** may share a learner: each call is one step, in the order in which they take its lock.
    """

    kind: ClassVar[str] = "online-learner"

    def __init__(
        self,
        cell: str | Cell = "gru",
        hidden_size: int = 16,
        *,
        task: str = "regression",
        rule: str | Rule = "rtrl",
        **options: Any,
    ) -> None:
        name = cell.name if isinstance(cell, Cell) else cell
        made = OnlineOptions.make(cell=name, hidden_size=hidden_size, task=task, rule=str(rule), **options)
        self.listeners: list[Listener] = []
        self._lock = threading.RLock()
        self._take(Core(made, cell))

    def _take(self, core: Core) -> None:
        o = core.options
        self.cell, self.hidden_size, self.task, self.rule = core.cell, o.hidden_size, o.task, o.rule
        self.options, self._core = o, core
        core.tell = self._tell
        own = OnlineRegressor if o.task == "regression" else OnlineClassifier
        if type(self) in (OnlineLearner, OnlineRegressor, OnlineClassifier):
            self.__class__ = own  # river asks the class of a model what it predicts
        enter(type(self), own.family)

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    # Predicting and learning

    def predict_one(self, x: Any, key: Key = None) -> Any:
        """Predict the label of the key's next step: a number, or a label (None before the first one).

        Nothing is changed. Raises ArgumentError for a feature that is not a number, or is infinite.
        """
        numbers, key = read_numbers(x), plain(key)
        with self._lock:
            return self._core.target.shown(self._core.guess(numbers, key))

    def predict_proba_one(self, x: Any, key: Key = None) -> dict[Label, float]:
        """The probability of each label met so far, in a classification."""
        numbers, key = read_numbers(x), plain(key)
        with self._lock:
            target = self._core.target
            if not isinstance(target, Labels):
                raise ArgumentError("a regression has no probabilities: use predict_one, or task='classification'")
            return target.probabilities(self._core.guess(numbers, key))

    def learn_one(self, x: Any, y: Any = None, key: Key = None) -> Self:
        """Advance the key's state by exactly one step, and learn if there is a label.

        Raises ArgumentError for features and labels that cannot be read; nothing is changed then.
        """
        numbers, key = read_numbers(x), plain(key)
        if key is not None and (type(key) not in (str, int) or not can_be_saved(key)):
            raise ArgumentError(f"a key must be text, a whole number of 64 bits or None, got {key!r:.80}")
        with self._lock:
            core, options = self._core, self.options
            core.learn(numbers, core.target.read(y), key)
            if options.snapshots and core.steps % options.snapshot_every == 0:
                kept.add(Path(options.snapshots), core.steps, self.snapshot())
        return self

    def learn_many(self, X: Any, y: Any = None, keys: Any = None) -> Self:
        """`learn_one` for each row of a frame, an array `[N, I]` or a list, in their order.

        Where `keys` are given each row must have one.
        """
        each = rows(X)
        own = column(keys, len(each), "keys")
        absent = next((n for n, key in enumerate(own) if is_missing(key) or key == ""), None)
        if keys is not None and absent is not None:
            raise ArgumentError(f"keys must have a value for each row, got {own[absent]!r} for row {absent}")
        for x, label, key in zip(each, column(y, len(each), "y"), own, strict=True):
            self.learn_one(x, label, key)
        return self

    # What has happened

    @property
    def steps(self) -> int:
        """The number of steps, of all keys."""
        return self._core.steps

    @property
    def refused(self) -> int:
        """The number of refused steps."""
        return self._core.refused

    @property
    def backed_off(self) -> int:
        """How often the learner has backed off."""
        return self._core.backed_off

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update: that of the options, or a lower one after backing off."""
        return self._core.back_off.rate

    @property
    def drift(self) -> bool:
        """Whether the last step raised the drift alarm."""
        return self._core.drift

    @property
    def drifts(self) -> int:
        """How often the drift alarm was raised."""
        return self._core.drifts

    @property
    def keys(self) -> list[Key]:
        """The keys whose state is kept, the most recent one last."""
        with self._lock:
            return list(self._core.tracks.kept)

    # Keeping

    def snapshot(self) -> bytes:
        """The whole learner as safetensors; restored anywhere, it continues with the same bits."""
        return kept.pack(*self.to_spec())

    def restore(self, data: bytes) -> Self:
        """Take over everything from a snapshot, options included, but not where snapshots are written.

        Raises ArgumentError for bytes that are not a snapshot.
        """
        core = kept.unpack(data)
        with self._lock:
            own = self.options.model_dump(include={"snapshots", "snapshot_every"})
            core.options = core.options.model_copy(update=own)
            self._take(core)
        return self

    def keep_snapshots(self, folder: Place | None, every: int | None = None) -> Self:
        """From now on keep the last two snapshots in this folder, one every `every` steps; None: keep none.

        A loaded learner keeps none until this is called: a file does not choose where to write.
        """
        with self._lock:
            given = self.options.model_dump() | {"snapshots": None if folder is None else str(folder)}
            given |= {} if every is None else {"snapshot_every": every}
            self._core.options = self.options = OnlineOptions.make(**given)
        return self

    def save(self, folder: Place) -> None:
        """Save into a folder, as `tidegate.save` does; an earlier model there is replaced whole."""
        spec, tensors = self.to_spec()
        write_model(Path(folder), self.kind, version("tidegate"), spec, safetensors.torch.save(tensors))

    @classmethod
    def load(cls, folder: Place) -> OnlineLearner:
        """The learner that `save` kept. Raises ModelFileError where the folder is not what it claims to be."""
        return cls._of(kept.read(Path(folder), cls.kind))

    @classmethod
    def resume(cls, folder: Place) -> OnlineLearner:
        """The learner of the newest snapshot in a folder, `snapshots=`, that can be read.

        It goes on keeping snapshots there. Raises ModelFileError where there is none.
        """
        return cls._of(kept.newest(Path(folder))).keep_snapshots(folder)

    def to_spec(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The learner as plain data and tensors."""
        with self._lock:
            return to_spec(self._core)

    @classmethod
    def from_spec(cls, spec: dict[str, Any], tensors: dict[str, Tensor]) -> OnlineLearner:
        """The learner that `to_spec` wrote."""
        return cls._of(from_spec(spec, tensors))

    @classmethod
    def _of(cls, core: Core) -> OnlineLearner:
        learner = cls()
        learner._take(core)
        return learner

    def __reduce__(self) -> tuple[Any, ...]:
        return _copy, (self.snapshot(),)

    def __repr__(self) -> str:
        own = self.options.model_dump(exclude_defaults=True, exclude={"cell"})
        made = ", ".join([f"OnlineLearner({self.options.cell!r}", *(f"{k}={v!r}" for k, v in own.items())]) + ")"
        with self._lock:
            core, features = self._core, ", ".join(map(str, self._core.inputs.slots))
            return (
                f"{made}\n"
                f"  task           {self.task}{', from the last known value' if core.target.anchored else ''}\n"
                f"  rule           {self.options.rule}, learning rate {self.learning_rate:g}\n"
                f"  features       {textwrap.shorten(features, 80, placeholder=' ...') or 'those of the first step'}\n"
                f"  steps          {core.steps}, keys {len(core.tracks.kept)}\n"
                f"  refused        {core.refused}, backed off {core.backed_off}, alarms of a drift {core.drifts}"
            )

    def _get_params(self) -> dict[str, Any]:
        return {**self.options.model_dump(), "cell": self.cell}


class OnlineRegressor(OnlineLearner):
    """The class of an `OnlineLearner` with task="regression"."""

    family: ClassVar[str] = "Regressor"


class OnlineClassifier(OnlineLearner):
    """The class of an `OnlineLearner` with task="classification"."""

    family: ClassVar[str] = "Classifier"


def _copy(snapshot: bytes) -> OnlineLearner:
    return OnlineLearner().restore(snapshot)
