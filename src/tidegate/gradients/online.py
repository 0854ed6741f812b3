"""Learning while a stream runs: a rule that gives the gradient of each step when it is asked for, in bounded memory."""

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
    """What a rule carries from step to step. It never changes: every step gives a new one, and the old stays valid."""

    @property
    def state(self) -> State:
        """The layer's state after the last step."""

    def tensors(self) -> dict[str, Tensor]:
        """All that is in it, flat; `restored` makes it again of these."""


M = TypeVar("M", bound=Memory)


class Online(Protocol[M]):
    """A layer under a rule, one step at a time; weights are read as they are at each call."""

    def begin(self, batch: int = 1) -> M:
        """The layer's own start."""

    def step(self, memory: M, x_t: Any) -> tuple[Tensor, M]:
        """One step with `x_t` `[B, I]`, or a mapping by input name: the output `[B, size]`, detached, and what comes
        of the memory."""

    def gradient(self, memory: M, dy: Tensor) -> dict[str, Tensor]:
        """The gradient by parameter, summed over rows, of a loss with the slope `dy` `[B, size]` in the output of the
        step that made this memory."""

    def restored(self, tensors: Mapping[str, Tensor]) -> M:
        """The memory whose `tensors()` these are. Raises ArgumentError where they cannot be."""

    def bytes(self, batch: int = 1) -> int:
        """How much one memory takes at most."""


def online(layer: Recurrent | Stack, rule: Rule) -> Online[Any]:
    """The layer, of one direction, under a rule. Raises ArgumentError for a rule that has to see the whole sequence."""
    if isinstance(rule, Forward):
        return OnlineForward(layer, rule)
    if isinstance(rule, TruncatedBPTT) and rule.k1 == 1:
        return OnlineTruncated(layer, rule.k2)
    raise ArgumentError(
        f"the rule {rule} gives no gradient at each step: give one that does, such as RTRL(), SnAp() or "
        "TruncatedBPTT(1, 16)"
    )
