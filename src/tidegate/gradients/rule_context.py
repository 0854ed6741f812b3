"""`RuleContext`: the recurrent layers of a module under a forward rule, with memory from call to call."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from torch import nn

from tidegate.errors import ArgumentError
from tidegate.gradients.forward_rules import Forward
from tidegate.gradients.influence.engine import EngineRun, InfluenceEngine
from tidegate.nn import Recurrent, Stack
from tidegate.nn.state import State


class RuleContext:
    """The recurrent layers of a module under a forward rule.

    Within `working()` calls of a layer have the rule's gradients. A call that continues from the state returned by the
    layer's last call also continues its influence. Raises ArgumentError if the module has no recurrent layer.
    """

    def __init__(self, module: nn.Module, rule: Forward) -> None:
        found = [m for m in module.modules() if isinstance(m, Recurrent | Stack)]
        inside = {part for m in found if isinstance(m, Stack) for part in m.modules() if part is not m}
        layers = [m for m in found if m not in inside]
        if not layers:
            raise ArgumentError(
                f"{type(rule).__name__} takes modules that contain a Recurrent or a Stack, got a "
                f"{type(module).__name__} without one: add one, or use BPTT()"
            )
        self._layers = [_LayerContext(layer, rule) for layer in layers]

    @contextmanager
    def working(self) -> Iterator[None]:
        """Calls inside the block have the rule's gradients."""
        with ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(layer.working())
            yield


class _LayerContext:
    def __init__(self, layer: Any, rule: Forward) -> None:
        self.layer = layer
        self._engine = cache(lambda training: InfluenceEngine(layer, rule))  # an engine knows the layer's mode
        self._last: tuple[list[int], EngineRun] | None = None

    @contextmanager
    def working(self) -> Iterator[None]:
        self.layer.forward = self._forward
        try:
            yield
        finally:
            del self.layer.forward

    def _forward(self, x: Any, state: State | None = None, *, lengths: Any = None, reset: Any = None) -> Any:
        goes_on = self._last is not None and state is not None and _places(state) == self._last[0]
        past = self._last[1].end if goes_on and self._last is not None else None
        y, end, segment = self._engine(self.layer.training)(x, state, past, lengths, reset)
        self._last = _places(end), segment
        return y, end


def _places(state: State) -> list[int]:
    """The addresses of a state's tensors, which a detached copy shares; the segment keeps the memory alive."""
    return [t.data_ptr() for layer in state.layers for named in layer for t in named.values()]
