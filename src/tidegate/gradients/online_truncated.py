"""Truncated BPTT on a stream: the last steps are stored, and run again for a gradient."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tidegate.equations import Rate
from tidegate.errors import ArgumentError
from tidegate.nn import Recurrent, Stack, State
from tidegate.nn.stack import inputs_of

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class TruncatedMemory:
    """The state, and the window: the state before each of the last steps, and its input; None is the initial state."""

    state: State
    window: tuple[tuple[State | None, Inputs], ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """`state.0` ... and, after a step, `inputs.x` and `before.0` ... with the steps as first axis.

        If the window reaches back to the initial state, there is one more input than states.
        """
        found = {f"state.{k}": t for k, t in enumerate(pytree.tree_leaves(self.state))}
        if self.window:
            each = [inputs for _, inputs in self.window]
            found |= {f"inputs.{name}": torch.stack([inputs[name] for inputs in each]) for name in each[0]}
        before = [pytree.tree_leaves(state) for state, _ in self.window if state is not None]
        return found | {f"before.{k}": torch.stack(steps) for k, steps in enumerate(zip(*before, strict=True))}


class OnlineTruncated:
    """`TruncatedBPTT(1, k2)` at each step: BPTT through the last `k2` steps.

    A memory holds k2 states and inputs, and a gradient costs k2 steps forward and backward (Williams & Peng 1990,
    doi:10.1162/neco.1990.2.4.490, BPTT(h; 1)). The window is run again from the stored state at its
    beginning, with the current weights.
    """

    def __init__(self, layer: Recurrent | Stack, k2: int) -> None:
        self.layer, self.k2 = layer, k2
        self._inputs = inputs_of(layer)

    def begin(self, batch: int = 1) -> TruncatedMemory:
        """The memory before the first step."""
        return TruncatedMemory(self._start(batch))

    def step(self, memory: TruncatedMemory, x_t: Any) -> tuple[Tensor, TruncatedMemory]:
        """One step without autograd."""
        with torch.no_grad():
            y, state = self.layer.step(x_t, memory.state)
        named = x_t if isinstance(x_t, Mapping) else {next(iter(self._inputs)): x_t}
        inputs = {name: x.detach().clone() for name, x in named.items()}
        before = memory.state if memory.window else None
        return y, TruncatedMemory(state, (*memory.window, (before, inputs))[-self.k2 :])

    def gradient(self, memory: TruncatedMemory, dy: Tensor) -> dict[str, Tensor]:
        """Run the window again with autograd, and compute its vjp with `dy`."""
        learned = {name: p for name, p in self.layer.named_parameters() if p.requires_grad}
        if not memory.window:
            return {name: torch.zeros_like(p) for name, p in learned.items()}
        with torch.enable_grad():
            y, _ = self.layer(self._over_time(memory), memory.window[0][0])
            last = y[:, -1] if self.layer.batch_first else y[-1]
        found = torch.autograd.grad(last, list(learned.values()), dy, materialize_grads=True)
        return dict(zip(learned, found, strict=True))

    def restored(self, tensors: Mapping[str, Tensor]) -> TruncatedMemory:
        """The memory whose `tensors()` these are."""
        try:
            return self._restored(dict(tensors))
        except (LookupError, ValueError) as error:
            raise ArgumentError(
                f"expected the tensors of a memory of this layer under TruncatedBPTT(1, {self.k2}): {error}; "
                "pass those of a memory of the same layer and rule"
            ) from error

    def bytes(self, batch: int = 1) -> int:
        """The bytes of `k2` inputs and `k2` + 1 states."""
        state = pytree.tree_leaves(self._start(batch))
        widths = [size for _, size in self._inputs.values()]
        inputs = self.k2 * batch * sum(widths) * state[0].element_size()
        return inputs + (self.k2 + 1) * sum(t.nbytes for t in state)

    def _start(self, batch: int) -> State:
        return self.layer.initial_state(batch).map(lambda t: t.detach().clone(memory_format=torch.contiguous_format))

    def _over_time(self, memory: TruncatedMemory) -> Any:
        """The window's inputs as a sequence; of inputs given once per sequence the latest."""
        axis, each = int(self.layer.batch_first), [inputs for _, inputs in memory.window]
        found = {
            name: torch.stack([inputs[name] for inputs in each], axis) if rate == Rate.INPUT else each[-1][name]
            for name, (rate, _) in self._inputs.items()
        }
        return found if len(found) > 1 else found.popitem()[1]  # a single tensor takes the layer's cached path

    def _restored(self, tensors: dict[str, Tensor]) -> TruncatedMemory:
        like, form = pytree.tree_flatten(self._start(len(tensors["state.0"])))
        state = [_same(tensors.pop(f"state.{k}"), t, f"state.{k}") for k, t in enumerate(like)]
        inputs = {name: tensors.pop(f"inputs.{name}") for name in self._inputs if f"inputs.{name}" in tensors}
        steps = len(next(iter(inputs.values()), ()))
        before = [tensors.pop(f"before.{k}", like[k][None][:0]) for k in range(len(like))]
        since = steps - len(before[0])
        if tensors or steps > self.k2 or since not in (0, 1) or any(len(t) != steps for t in inputs.values()):
            raise ValueError(f"got {steps} inputs, {len(before[0])} states and {len(tensors)} other tensors")
        states: list[State | None] = [None] * since
        for n in range(len(before[0])):
            each = [_same(t[n], like[k], f"before.{k}") for k, t in enumerate(before)]
            states.append(pytree.tree_unflatten(each, form))
        given = [{name: t[n].clone() for name, t in inputs.items()} for n in range(steps)]
        return TruncatedMemory(pytree.tree_unflatten(state, form), tuple(zip(states, given, strict=True)))


def _same(tensor: Tensor, like: Tensor, name: str) -> Tensor:
    """A copy of the tensor, checked to have the shape and dtype of `like`."""
    if tensor.shape != like.shape or tensor.dtype != like.dtype:
        form = f"{list(tensor.shape)} of {tensor.dtype}"
        raise ValueError(f"{name!r} must be {list(like.shape)} of {like.dtype}, got {form}")
    return tensor.clone()
