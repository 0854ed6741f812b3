"""A learner as plain data and tensors, and back."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tidegate.cells import get
from tidegate.config import OnlineOptions
from tidegate.equations import Cell
from tidegate.nn import State
from tidegate.online.core import Core
from tidegate.online.drift import PageHinkley
from tidegate.online.inputs import FeatureInputs
from tidegate.online.net import OnlineNet
from tidegate.online.scale import RunningScale
from tidegate.online.targets import Labels, Number
from tidegate.online.track import Track

Spec = dict[str, Any]
Tensors = dict[str, Tensor]
COUNTS = ("steps", "refused", "drifts", "drift")


def to_spec(core: Core) -> tuple[Spec, Tensors]:
    """All of a learner, except for the step that was predicted last: it is computed again."""
    spec: Spec = {
        "options": core.options.model_dump(),
        "cell": (get(core.cell) if isinstance(core.cell, str) else core.cell).to_json(),
        "size": core.inputs.size,
        "features": list(core.inputs.slots),
        "scales": [list(scale) for scale in core.inputs.scales],
        "target": core.target.to_json(),
        "test": [list(core.test.errors), core.test.excess],
        "counts": {name: getattr(core, name) for name in COUNTS},
        "keys": list(core.tracks.kept),
        "updates": core.net.adam.steps if core.net else 0,
    }
    if core.net is None:
        return spec, {}
    parts = {"": _net_tensors(core.net)}
    parts |= {f"keys.{k}.": _track_tensors(track) for k, track in enumerate(core.tracks.kept.values())}
    return spec, {place + name: tensor for place, part in parts.items() for name, tensor in part.items()}


def from_spec(spec: Spec, tensors: Tensors) -> Core:
    """The learner of these. An error of Python's, such as ValueError, where they do not fit each other."""
    options = OnlineOptions.make(**spec["options"])
    core, left = Core(options, Cell.from_json(spec["cell"])), dict(tensors)
    regression = options.task == "regression"
    core.target = Number(options.window, spec["target"]) if regression else Labels(options.max_classes, spec["target"])
    core.test = PageHinkley(RunningScale(*map(float, spec["test"][0])), float(spec["test"][1]))
    for name in COUNTS:
        setattr(core, name, spec["counts"][name])
    if spec["size"]:
        net = _net(core, spec, left)
        if len(spec["keys"]) > options.max_keys:
            raise ValueError(f"there are {len(spec['keys'])} keys, and {options.max_keys} are the most")
        for k, key in enumerate(spec["keys"]):
            core.tracks.keep(key, _track(core, net, _part(left, f"keys.{k}.")))
    if left:
        raise ValueError(f"nothing belongs to the tensor {min(left)!r}")
    return core


def _part(tensors: Tensors, place: str) -> Tensors:
    """The tensors whose names begin so, without that; they are taken away."""
    names = [name for name in tensors if name.startswith(place)]
    return {name.removeprefix(place): tensors.pop(name) for name in names}


# The net


def _net_tensors(net: OnlineNet) -> Tensors:
    own = {"head.weight": net.head, "head.bias": net.bias, "adam.mean": net.adam.mean, "adam.square": net.adam.square}
    return own | {f"layer.{name}": tensor for name, tensor in net.layer.state_dict().items()}


def _net(core: Core, spec: Spec, tensors: Tensors) -> OnlineNet:
    """The net of these tensors, allocated once they are seen to fit what the options ask for."""
    if type(spec["size"]) is not int or not 1 <= spec["size"] <= 65536:
        raise ValueError(f"a size of {spec['size']!r}")
    layer, weights = core.layer(spec["size"], "meta"), _part(tensors, "layer.")
    _check(weights, layer.state_dict())
    layer.load_state_dict(weights, assign=True)
    net = core.open(layer)
    for name, own in _net_tensors(net).items():
        if not name.startswith("layer."):
            _check({name: tensors[name]}, {name: own})
            own.copy_(tensors.pop(name))
    net.adam.steps = int(spec["updates"])
    scales = [RunningScale(*map(float, scale)) for scale in spec["scales"]]
    core.inputs = FeatureInputs(spec["size"], core.options.window, spec["features"], scales)
    if not len(core.inputs.slots) <= core.inputs.size == len(scales):
        raise ValueError(f"{len(spec['features'])} features and {len(scales)} scales in {core.inputs.size} slots")
    return net


def _check(found: Tensors, like: Tensors) -> None:
    """Raise ValueError unless the names, shapes and types are the same."""
    forms = [{name: (tuple(t.shape), t.dtype) for name, t in tensors.items()} for tensors in (found, like)]
    wrong = [name for name in forms[0].keys() | forms[1].keys() if forms[0].get(name) != forms[1].get(name)]
    if wrong:
        name = min(wrong)
        raise ValueError(f"{name!r} is {forms[0].get(name, 'missing')}, and {forms[1].get(name, 'none')} was expected")


# A key


def _track_tensors(track: Track) -> Tensors:
    found = {f"memory.{name}": tensor for name, tensor in track.memory.tensors().items()}
    if track.ahead is not None:
        found |= {f"ahead.{k}": tensor for k, tensor in enumerate(pytree.tree_leaves(track.ahead))}
    if track.waiting:
        found["rows"] = torch.cat([row for row, _ in track.waiting])
        found["guesses"] = torch.tensor([guess for _, guess in track.waiting], dtype=torch.float64)
    return found


def _track(core: Core, net: OnlineNet, tensors: Tensors) -> Track:
    memory = net.online.restored(_part(tensors, "memory."))
    rows = tensors.pop("rows", torch.zeros(0, core.inputs.size))
    guesses = tensors.pop("guesses", torch.zeros(0, core.target.outputs, dtype=torch.float64))
    if len(rows) > core.options.delay:
        raise ValueError(f"{len(rows)} steps wait for their labels, and {core.options.delay} are the most")
    sizes = {"rows": (core.inputs.size, torch.float32), "guesses": (core.target.outputs, torch.float64)}
    like = {name: torch.zeros(len(rows), size, dtype=kind) for name, (size, kind) in sizes.items()}
    _check({"rows": rows, "guesses": guesses}, like)
    waiting = zip((row[None] for row in rows.clone()), guesses.tolist(), strict=True)
    return Track(memory, _ahead(net, tensors) if core.options.delay else None, deque(waiting))


def _ahead(net: OnlineNet, tensors: Tensors) -> State:
    leaves, form = pytree.tree_flatten(net.layer.initial_state())
    like = {f"ahead.{k}": leaf for k, leaf in enumerate(leaves)}
    _check(tensors, like)
    found: State = pytree.tree_unflatten([tensors[name].clone() for name in like], form)
    return found
