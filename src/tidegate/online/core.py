"""The engine of a learner: scales, net and per-key state, without files and user-facing checks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tidegate.config import OnlineOptions
from tidegate.equations import Cell
from tidegate.errors import TidegateNotice
from tidegate.gradients import Memory, online, rule_from_text
from tidegate.nn import Recurrent, State
from tidegate.online.adam import STREAK, BackOff
from tidegate.online.drift import PageHinkley
from tidegate.online.events import BackedOff, Drifted, Event, Forgotten, Key, Refused
from tidegate.online.inputs import FeatureInputs, Numbers
from tidegate.online.net import EXPLODED, OnlineNet
from tidegate.online.scale import LARGEST
from tidegate.online.targets import Guess, Labels, LearnerTarget, Number
from tidegate.online.track import Recent, Track, Waiting, unsound


class Step(NamedTuple):
    """A step of the net: the state and number of updates that it started from, its input, and its results."""

    origin: Memory | State | None
    updates: int
    row: list[float]
    x: Tensor
    h: Tensor
    carried: Any
    out: list[float]


class Core:
    """Scales, net, and the state of each key. `tell` is called with each event."""

    def __init__(self, options: OnlineOptions, cell: str | Cell) -> None:
        self.options, self.cell = options, cell
        self.rule = rule_from_text(options.rule)
        self.target: LearnerTarget = (
            Number(options.window, options.anchor == "naive")
            if options.task == "regression"
            else Labels(options.max_classes)
        )
        self.inputs = FeatureInputs(0, options.window)
        self.net: OnlineNet | None = None
        self.tracks: Recent[Track] = Recent(options.max_keys)
        self.test, self.drift = PageHinkley(), False
        self.back_off = BackOff(options.learning_rate, options.learning_rate)
        self.steps = self.refused = self.drifts = self.backed_off = 0
        self.tell: Callable[[Event], None] = lambda event: None
        self._last: Step | None = None
        online(self.layer(1, "meta"), self.rule)  # a cell or a rule that will not do is refused before the first step

    def open(self, size: int, layer: Recurrent | None = None) -> OnlineNet:
        """Use a net for `size` features, with this layer or a new one."""
        o, layer = self.options, layer or self.layer(size)
        self.inputs = FeatureInputs(size, o.window)
        self.net = OnlineNet(layer, self.target.outputs, self.rule, o.learning_rate, o.clip)
        return self.net

    def layer(self, size: int, device: str = "cpu") -> Recurrent:
        """A layer for `size` features and what the target adds to them, with weights drawn from the seed; torch's
        random state is left alone."""
        o, size = self.options, size + len(self.target.inputs(None))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(o.seed)
            layer = Recurrent(
                self.cell, size, o.hidden_size, num_layers=o.num_layers, device=device, dtype=torch.float32
            )
        return layer.eval()

    def guess(self, numbers: Numbers, key: Key) -> Guess:
        """The prediction of a key's next step."""
        if self.net is None:
            return self.target.guess([0.0] * self.target.outputs, None)
        row, _ = self.inputs.scaled(numbers)
        track = self.tracks.find(key) or self._fresh(self.net)
        return self.target.guess(self._forward(self.net, track, row).out, track.last)

    def learn(self, numbers: Numbers, label: Any, key: Key) -> None:
        """One step of a key, and an update where there is a label whose step is known."""
        net = self.net or self.open(self.options.max_features or max(1, len(numbers)))
        self.inputs.admit(numbers)
        row, self.inputs.scales = self.inputs.scaled(numbers)
        track = self._met(net, key)
        updates = net.adam.steps
        broken = self._advance(net, track, row, label, key)
        if broken:
            self._refuse(net, track, key, broken)
        elif net.adam.steps > updates:
            track.streak, net.adam.rate = 0, self.back_off.updated()

    def _advance(self, net: OnlineNet, track: Track, row: list[float], label: Any, key: Key) -> str:
        """Move the lines of a key by one step; returns the name of what is broken, if anything."""
        step = self._forward(net, track, row)
        made = Waiting(step.x, track.last, self.target.guess(step.out, track.last))
        if not self.options.delay:
            return self._settle(net, track, key, made, (step.h, step.carried, step.out), label)
        broken = unsound(step.carried, step.out)
        track.ahead = track.ahead if broken else step.carried
        track.waiting.append(made)
        if len(track.waiting) > self.options.delay:
            made = track.waiting.popleft()
            h, carried = net.online.step(track.memory, made.x)
            broken = self._settle(net, track, key, made, (h, carried, net.outputs(h)), label) or broken
        return broken

    def _met(self, net: OnlineNet, key: Key) -> Track:
        """Count a step of the key and return its track, which becomes the most recent."""
        self.steps, self.drift = self.steps + 1, False
        track = self.tracks.find(key) or self._fresh(net)
        for gone in self.tracks.keep(key, track):
            self.tell(Forgotten(self.steps, gone))
        return track

    def _fresh(self, net: OnlineNet) -> Track:
        """The track of a new key."""
        return Track(net.online.begin(), net.layer.initial_state() if self.options.delay else None)

    def _forward(self, net: OnlineNet, track: Track, row: list[float]) -> Step:
        """Run the net from the newest state of a key. The last step is cached: predict and learn run it once."""
        row = row + self.target.inputs(track.last)
        origin, last = track.ahead or track.memory, self._last
        if last is None or last.origin is not origin or last.updates != net.adam.steps or last.row != row:
            x = torch.tensor([row], dtype=torch.float32)
            with torch.no_grad():
                h, carried = net.online.step(origin, x) if track.ahead is None else net.layer.step(x, track.ahead)
            last = self._last = Step(origin, net.adam.steps, row, x, h, carried, net.outputs(h))
        return last

    def _settle(
        self, net: OnlineNet, track: Track, key: Key, made: Waiting, step: tuple[Tensor, Any, list[float]], label: Any
    ) -> str:
        """Store the state after a step and learn from it, unless something is broken, whose name is returned."""
        h, carried, out = step
        broken = unsound(carried.state, out)
        if label is not None:
            self._watch(key, self.target.error(made.guess, label))
            self.target.learn(label, made.last)
            track.last = label if self.target.anchored else None
            if not broken and not net.learn(carried, h, self.target.gradient(out, label, made.last)):
                broken = "gradient"
        track.memory = track.memory if broken else carried
        return broken

    def _watch(self, key: Key, error: float) -> None:
        if self.options.drift and math.isfinite(error):
            self.test, self.drift = self.test.after(min(error, LARGEST), self.options.drift)
        if self.drift:
            self.drifts += 1
            self.tell(Drifted(self.steps, key, error))

    def _refuse(self, net: OnlineNet, track: Track, key: Key, what: str) -> None:
        self.refused, self.back_off.quiet, track.streak = self.refused + 1, 0, track.streak + 1
        if not all(t.isfinite().all() for t in track.memory.tensors().values()):
            track.memory = net.online.begin()  # else every later step would be refused too
        self.tell(Refused(self.steps, key, what))
        if self.refused == 1:
            above = f" or above {EXPLODED:g}" if what == "gradient" else ""
            warnings.warn(
                f"step {self.steps} was refused: its {what} is not finite{above}. Weights and state stay as they were; "
                f"`refused` counts such steps, and listeners hear of each. After {STREAK} in a row states start anew, "
                "with half the learning rate.",
                TidegateNotice,
                stacklevel=4,
            )
        if track.streak >= STREAK:
            self._back_off(net, key)

    def _back_off(self, net: OnlineNet, key: Key) -> None:
        """Start the states and the influence of all keys anew, as their weights are shared, with a lower rate.

        If the rate has not yet recovered from the last time, the weights are at fault and start anew as well.
        """
        if self.back_off.lowered_before:
            net.restart(self.layer(self.inputs.size))
        net.adam.clear()
        net.adam.rate = self.back_off.lowered()
        for track in self.tracks.kept.values():
            fresh = self._fresh(net)
            track.memory, track.ahead, track.streak = fresh.memory, fresh.ahead, 0
        self.backed_off += 1
        self.tell(BackedOff(self.steps, key, net.adam.rate))
