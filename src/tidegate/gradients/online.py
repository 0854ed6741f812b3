"""Learning on a stream: rules that give the gradient of each step on demand, in bounded memory."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from torch import Tensor

from tidegate.errors import ArgumentError
from tidegate.gradients.forward_rules import Forward
from tidegate.gradients.online_forward import OnlineForward
from tidegate.gradients.online_truncated import OnlineTruncated
from tidegate.gradients.rules import Rule, TruncatedBPTT
from tidegate.nn import Recurrent, Stack, State


class Memory(Protocol):
    """What a rule carries from step to step. Immutable: every step returns a new one, and the old one stays valid."""

    @property
    def state(self) -> State:
        """The layer's state after the last step."""

    def tensors(self) -> dict[str, Tensor]:
        """All its tensors by name; `restored` is the inverse."""


M = TypeVar("M", bound=Memory)


class Online(Protocol[M]):
    """A layer under a rule, one step at a time; each call reads the current weights."""

    def begin(self, batch: int = 1) -> M:
        """The memory before the first step."""

    def step(self, memory: M, x_t: Any) -> tuple[Tensor, M]:
        """One step with `x_t` `[B, I]`, or a mapping by input name: the output `[B, size]`, detached, and the new
        memory."""

    def gradient(self, memory: M, dy: Tensor) -> dict[str, Tensor]:
        """The gradient by parameter, summed over rows, of a loss with gradient `dy` `[B, size]` in the output of the
        step that made this memory."""

    def restored(self, tensors: Mapping[str, Tensor]) -> M:
        """The memory whose `tensors()` these are. Raises ArgumentError for other tensors."""

    def bytes(self, batch: int = 1) -> int:
        """The most bytes that one memory takes."""


def online(layer: Recurrent | Stack, rule: Rule) -> Online[Any]:
    """Put a layer of one direction under a rule. Raises ArgumentError for a rule that needs the whole sequence."""
    if isinstance(rule, Forward):
        return OnlineForward(layer, rule)
    if isinstance(rule, TruncatedBPTT) and rule.k1 == 1:
        return OnlineTruncated(layer, rule.k2)
    raise ArgumentError(
        f"rule must give a gradient at each step, got {rule}: use for example RTRL(), SnAp() or TruncatedBPTT(1, 16)"
    )
