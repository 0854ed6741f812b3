"""The gradient of a whole sequence where all is as it was before: nothing is looked at but where tensors lie."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.equations.values import Value
from tidegate.gradients.influence.engine import LITTLE, InfluenceEngine, totals
from tidegate.gradients.influence.known import HeldTraces, Known
from tidegate.gradients.influence.output import HeldOutput, Told
from tidegate.runtime.bound_call import Held

Tensors = dict[str, Tensor]
KEPT = 1 << 28  # bytes of room that stay from call to call, of all layers


@dataclass(frozen=True, eq=False)
class Place:
    """Room for one run: what it finds, the output's cell where that is no state, and the output."""

    run: Held
    found: Tensor
    told: HeldOutput | None
    moved: HeldTraces
    y: Tensor
    nbytes: int


class _Kept:
    """Who has rooms that wait to be used again: the last ones, of all layers."""

    def __init__(self) -> None:
        self._owners: OrderedDict[int, tuple[weakref.ref[Ready], int]] = OrderedDict()
        self._total, self._lock = 0, threading.Lock()

    def keep(self, owner: Ready, place: Place) -> None:
        """Remember one, and have those let go that were not used for the longest time."""
        with self._lock:
            self._total += place.nbytes - self._owners.pop(id(place), (None, 0))[1]
            self._owners[id(place)] = weakref.ref(owner), place.nbytes
            while self._total > KEPT:
                oldest, (last_owner, size) = self._owners.popitem(last=False)
                self._total -= size
                if (ready := last_owner()) is not None:
                    ready.let_go(oldest)


_KEPT = _Kept()


class Ready:
    """A layer under a rule from its own start, for inputs of one shape.

    `Ready.made` gives None where a run is no known one, or something is drawn, learned or given besides weights and the
    one input. `parameters` are the layer's by name.
    """

    @staticmethod
    def made(machine: InfluenceEngine, x: Tensor) -> Ready | None:
        """What gives the gradient, where there is something."""
        flat, plan = machine.flat, machine.plan
        plain = not (flat.layer.batch_first or flat.learns_starts or flat.graph.masks) and len(flat.graph.inputs) == 1
        plain = plain and all(w.attrs["learn"] for w in flat.graph.weights.values())  # else a plan looks at numbers
        if not plain or x.dim() != 3 or not 0 < x.shape[0] <= plan.at_once(x.shape[1]):
            return None
        if machine.rule.every is not None and machine.rule.every < x.shape[0]:
            return None
        if plan.most(x.shape[0], x.shape[1]) * x.element_size() > LITTLE:  # then it is looked at how much is free
            return None
        known = plan.known(x.shape[0], x.shape[1], x)
        return None if known is None else Ready(machine, known, x)

    def __init__(self, machine: InfluenceEngine, known: Known, x: Tensor) -> None:
        self.machine, self._known, flat, plan = machine, known, machine.flat, machine.plan
        (declared,) = flat.graph.inputs
        self._input, self._threads = declared.name, torch.get_num_threads()
        self._values = machine.structure.parameters
        self._begin = flat.begin(x.shape[1], None)
        self._free: list[Place] = []
        self.parameters: Tensors = dict(flat.layer.named_parameters())
        self._weights = flat.weights()
        hooked = any(m._forward_pre_hooks for m in flat.layer.modules())
        plain = not hooked and all(self.parameters.get(name) is w for name, w in self._weights.items())
        self._told = None if plan.state_of_output else Told.made(plan, x.shape[0], x.shape[1], x)
        state = plan.state_of_output
        self._states = (state,) if state else self._told.states if self._told else ()
        self._place = plan.places[state] if state else slice(0)
        self._works = plain and bool(self._states) and known.traced

    def serves(self) -> bool:
        """Whether this still is what its layer does."""
        return torch.get_num_threads() == self._threads and self.machine.flat.still()

    def __call__(self, x: Tensor, score: Callable[[Tensor], Tensor], learned: Sequence[Tensor]) -> list[Tensor] | None:
        """The gradient of the score of the output `[T, B, size]`, for what is learned; None where something is out of
        the ordinary."""
        known, weights, inputs = self._known, self._weights, {self._input: x.detach()}
        if not (self._works and known.serves(weights, inputs, self._begin)):
            return None
        place = self._taken(weights, inputs)
        with torch.no_grad():
            known.run(place.run, weights, inputs)
            if place.told is not None:
                place.told(weights, inputs)
        leaf = place.y.detach().requires_grad_()
        value = score(leaf.clone())  # which may be changed in place
        slope, *direct = torch.autograd.grad(value, [leaf, *learned], allow_unused=True)
        pairs: list[tuple[Tensor, Tensor | None]] = []
        if slope is not None:
            with torch.no_grad():
                named = {} if place.told is None else place.told.backward(slope)
                found = self._pulled(place, weights, inputs, slope)
            pairs = [(weights[name], gradient) for name, gradient in named.items()]
            pairs += zip(self.machine.parameters(weights), map(found.get, self._values), strict=True)
        self._given_back(place)
        return totals(learned, direct, pairs)

    @torch.no_grad()
    def _taken(self, weights: Tensors, inputs: Tensors) -> Place:
        """Room for a run that nobody else uses."""
        try:
            return self._free.pop()
        except IndexError:
            pass
        run, found = self._known.held(weights, inputs, self._begin)
        told = None if self._told is None else self._told.held(weights, inputs, found)
        y = found[1:, :, self._place] if told is None else told.y
        adjoints = told.adjoints if told is not None else {name: torch.empty_like(y) for name in self._states}
        moved = self._known.held_traces(found, inputs, adjoints, still=told is not None)
        nbytes = found.nbytes + moved.nbytes + (0 if told is None else told.nbytes)
        return Place(run, found, told, moved, y, nbytes)

    def _pulled(self, place: Place, weights: Tensors, inputs: Tensors, slope: Tensor) -> dict[Value, Tensor]:
        """The gradients by way of the states, from a slope in the output."""
        adjoints = [slope.contiguous()] if place.told is None else list(place.told.adjoints.values())
        moving = self._known.moving(weights, inputs)
        return place.moved(moving if place.told is not None else [*moving, *adjoints])

    def _given_back(self, place: Place) -> None:
        self._free.append(place)
        _KEPT.keep(self, place)

    def let_go(self, number: int) -> None:
        """Forget the room with this id, if nobody uses it."""
        for place in [p for p in self._free if id(p) == number]:
            with suppress(ValueError):  # somebody has just taken it
                self._free.remove(place)
