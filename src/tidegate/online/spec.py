"""A learner as plain data and tensors, and back."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tidegate.cells import get
from tidegate.config import ConfigDict, Field, OnlineOptions, checked
from tidegate.equations import Cell
from tidegate.errors import ModelFileError
from tidegate.nn import State
from tidegate.nn.weights import check_tensors, fill
from tidegate.online.adam import BackOff
from tidegate.online.core import Core
from tidegate.online.drift import PageHinkley
from tidegate.online.events import Key
from tidegate.online.inputs import FeatureInputs, Name
from tidegate.online.net import OnlineNet
from tidegate.online.scale import LARGEST, RunningScale
from tidegate.online.targets import Label, Labels, LearnerTarget, Number
from tidegate.online.track import Track, Waiting

Spec = dict[str, Any]
Tensors = dict[str, Tensor]

Count = Annotated[int, Field(ge=0, le=2**62)]
Positive = Annotated[float, Field(ge=0)]
Seen = tuple[  # a RunningScale: weight, mean, variance
    Positive,
    Annotated[float, Field(ge=-2 * LARGEST, le=2 * LARGEST)],
    Annotated[float, Field(ge=0, le=4 * LARGEST**2)],
]


@dataclass(frozen=True)
class LearnerCounts:
    """What a learner has counted."""

    steps: Count
    refused: Count
    drifts: Count
    drift: bool
    backed_off: Count = 0  # as all that follows not in version 0.1.0


@dataclass(frozen=True)
class LearnerData:
    """A learner's specification, except for its target, which depends on the task."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    options: OnlineOptions
    cell: dict[str, Any]
    size: Annotated[int, Field(ge=0, le=65536)]
    features: list[Name]
    scales: list[Seen]
    target: list[Any]
    test: tuple[Seen, Positive]
    counts: LearnerCounts
    keys: list[Key]
    updates: Count
    streaks: list[Count] | None = None
    back_off: tuple[Annotated[float, Field(gt=0, lt=1)], Count] | None = None  # rate, quiet


def to_spec(core: Core) -> tuple[Spec, Tensors]:
    """The whole learner, without the cached step of the last prediction.

    The folder of its snapshots is not included: whoever loads a learner chooses where it writes.
    """
    spec: Spec = {
        "options": core.options.model_dump() | {"snapshots": None},
        "cell": (get(core.cell) if isinstance(core.cell, str) else core.cell).to_json(),
        "size": core.inputs.size,
        "features": list(core.inputs.slots),
        "scales": [list(scale) for scale in core.inputs.scales],
        "target": core.target.to_json(),
        "test": [list(core.test.errors), core.test.excess],
        "counts": {name: getattr(core, name) for name in LearnerCounts.__annotations__},
        "keys": list(core.tracks.kept),
        "updates": core.net.adam.steps if core.net else 0,
        "streaks": [track.streak for track in core.tracks.kept.values()],
        "back_off": [core.back_off.rate, core.back_off.quiet],
    }
    if core.net is None:
        return spec, {}
    parts = {"": _net_tensors(core.net)}
    for k, track in enumerate(core.tracks.kept.values()):
        parts[f"keys.{k}."] = _track_tensors(track, core.target.anchored)
    return spec, {
        place + name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for place, part in parts.items()
        for name, tensor in part.items()
    }


def from_spec(spec: Spec, tensors: Tensors) -> Core:
    """The learner of these, without a folder for snapshots. Raises ModelFileError, or errors of Python, for damage.

    Version 0.1.0 had no anchors.
    """
    spec = {**spec, "options": {"anchor": "none", **spec["options"]}}
    data: LearnerData = checked(LearnerData, spec, "spec")
    options = data.options.model_copy(update={"snapshots": None})
    core, left = Core(options, Cell.from_json(spec["cell"])), dict(tensors)
    core.target = _target(options, spec["target"])
    _check_counts(data, data.target if options.task == "classification" else [])
    core.test = PageHinkley(RunningScale(*data.test[0]), data.test[1])
    for name in LearnerCounts.__annotations__:
        setattr(core, name, getattr(data.counts, name))
    core.back_off = BackOff(options.learning_rate, *(data.back_off or [options.learning_rate]))
    if data.size:
        net = _net(core, data, left)
        for k, (key, streak) in enumerate(zip(data.keys, data.streaks or [0] * len(data.keys), strict=True)):
            track = _track(core, net, _part(left, f"keys.{k}."))
            track.streak = streak
            core.tracks.keep(key, track)
    if left:
        raise ModelFileError(f"tensor {min(left)!r} belongs to no part of the model")
    return core


def _target(options: OnlineOptions, data: object) -> LearnerTarget:
    if options.task == "classification":
        return Labels(options.max_classes, checked(list[Label], data, "spec.target"))
    anchored = options.anchor == "naive"
    found = checked(tuple[Seen, Seen] if anchored else Seen, data, "spec.target")
    target = Number(options.window, anchored)
    target.scale = RunningScale(*(found[0] if anchored else found))
    target.moves = RunningScale(*found[1]) if anchored else RunningScale()
    return target


def _check_counts(data: LearnerData, labels: Sequence[Label]) -> None:
    """Raise ModelFileError for counts that exceed their limits, and for names given twice."""
    options, steps = data.options, data.counts.steps
    names: dict[str, tuple[Sequence[Key | Label], int]] = {
        "features": (data.features, data.size),
        "keys": (data.keys, options.max_keys if data.size else 0),
        "target": (labels, options.max_classes),
    }
    for name, (found, _) in names.items():
        if len({*found}) < len(found):
            raise ModelFileError(f"spec.{name} must name each once, got {found!r:.80}")
    counts = {name: (len(found), most) for name, (found, most) in names.items()}
    counts |= {f"counts.{name}": (getattr(data.counts, name), steps) for name in ("refused", "drifts", "backed_off")}
    counts["updates"] = data.updates, steps if data.size else 0
    for name, (count, most) in counts.items():
        if count > most:
            raise ModelFileError(f"spec.{name} must be at most {most}, got {count}")
    if len(data.scales) != data.size or (data.size and options.max_features not in (None, data.size)):
        raise ModelFileError(f"spec.size is {data.size}, but there are {len(data.scales)} scales")


def _part(tensors: Tensors, place: str) -> Tensors:
    """Remove the tensors whose names begin with a prefix, and return them without it."""
    names = [name for name in tensors if name.startswith(place)]
    return {name.removeprefix(place): tensors.pop(name) for name in names}


# The net


def _net_tensors(net: OnlineNet) -> Tensors:
    own = {"head.weight": net.head, "head.bias": net.bias, "adam.mean": net.adam.mean, "adam.square": net.adam.square}
    return own | {f"layer.{name}": tensor for name, tensor in net.layer.state_dict().items()}


def _net(core: Core, data: LearnerData, tensors: Tensors) -> OnlineNet:
    """The net of these tensors, allocated once they are seen to fit the options."""
    layer = core.layer(data.size, "meta")
    fill(layer, _part(tensors, "layer."))
    net = core.open(data.size, layer)
    for name, own in _net_tensors(net).items():
        if not name.startswith("layer."):
            check_tensors({name: tensors[name]}, {name: own})
            own.copy_(tensors.pop(name))
    net.adam.steps, net.adam.rate = data.updates, core.back_off.rate
    core.inputs = FeatureInputs(
        data.size, core.options.window, data.features, [RunningScale(*scale) for scale in data.scales]
    )
    return net


# A key


def _track_tensors(track: Track, anchored: bool) -> Tensors:
    found = {f"memory.{name}": tensor for name, tensor in track.memory.tensors().items()}
    if track.ahead is not None:
        found |= {f"ahead.{k}": tensor for k, tensor in enumerate(pytree.tree_leaves(track.ahead))}
    if track.waiting:
        found["rows"] = torch.cat([made.x for made in track.waiting])
        found["guesses"] = torch.tensor([made.guess for made in track.waiting], dtype=torch.float64)
    if anchored:  # NaN: there was no label yet
        known = [*(made.last for made in track.waiting), track.last]
        found["lasts"] = torch.tensor([math.nan if y is None else y for y in known], dtype=torch.float64)
    return found


def _track(core: Core, net: OnlineNet, tensors: Tensors) -> Track:
    memory = net.online.restored(_part(tensors, "memory."))
    size = core.inputs.size + len(core.target.inputs(None))
    rows = tensors.pop("rows", torch.zeros(0, size))
    guesses = tensors.pop("guesses", torch.zeros(0, core.target.outputs, dtype=torch.float64))
    if len(rows) > core.options.delay:
        raise ModelFileError(f"{len(rows)} steps wait for their labels, more than delay={core.options.delay}")
    lasts = tensors.pop("lasts") if core.target.anchored else torch.full((len(rows) + 1,), math.nan).double()
    like = {
        "rows": torch.zeros(len(rows), size),
        "guesses": torch.zeros(len(rows), core.target.outputs, dtype=torch.float64),
        "lasts": torch.zeros(len(rows) + 1, dtype=torch.float64),
    }
    check_tensors({"rows": rows, "guesses": guesses, "lasts": lasts}, like)
    for y in lasts.tolist():
        if abs(y) > LARGEST:
            raise ModelFileError(f"tensor 'lasts' must be between -{LARGEST:g} and {LARGEST:g}, got {y:g}")
    *known, last = (None if math.isnan(y) else y for y in lasts.tolist())
    waiting = map(Waiting, (row[None] for row in rows.clone()), known, guesses.tolist())
    return Track(memory, _ahead(net, tensors) if core.options.delay else None, deque(waiting), last)


def _ahead(net: OnlineNet, tensors: Tensors) -> State:
    leaves, form = pytree.tree_flatten(net.layer.initial_state())
    like = {f"ahead.{k}": leaf for k, leaf in enumerate(leaves)}
    check_tensors(tensors, like)
    found: State = pytree.tree_unflatten([tensors[name].clone() for name in like], form)
    return found
