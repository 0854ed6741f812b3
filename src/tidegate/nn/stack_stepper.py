"""`StackStepper`: one step at a time through a stack."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidegate.errors import ArgumentError
from tidegate.nn.state import State, check_is_state, check_state
from tidegate.nn.stepper import Stepper, given_arrays

Array = NDArray[Any]
Steps = Union[Stepper, "StackStepper"]


class StackStepper:
    """A stack's step for streaming, made by `stack.stepper(batch)`. Calls, `reset` and `state` are as in `Stepper`."""

    def __init__(
        self,
        steppers: Sequence[Steps],
        gates: Sequence[Stepper],
        reads: Sequence[Sequence[str]],
        inputs: Sequence[str],
        residual: bool,
    ) -> None:
        self._steppers, self._gates, self._reads = list(steppers), list(gates), reads
        self._inputs, self._residual = inputs, residual

    @property
    def batch(self) -> int:
        """The number of rows."""
        return self._steppers[0].batch

    def __call__(self, x_t: Any, active: Any = None) -> Any:
        """Advance by one step; see `Stepper`."""
        given = x_t if isinstance(x_t, Mapping) else {self._inputs[0]: x_t}
        named = given_arrays(given, self._inputs)
        x = named[self._inputs[0]]
        for k, (stepper, (first, *others)) in enumerate(zip(self._steppers, self._reads, strict=True)):
            y = stepper({first: x, **{n: named[n] for n in others}} if others else x, active)
            x = self._around(k, x, y, active)
        return torch.from_numpy(x) if any(isinstance(v, Tensor) for v in given.values()) else x

    def _around(self, k: int, x: Array, y: Array, active: Any) -> Array:
        if self._gates:
            found: Array = self._gates[k]({"x": x, "y": y}, active)
            return found
        return _sum(x, y, active) if self._residual else y

    def reset(self, rows: Any = None) -> None:
        """Reset these rows (default: all) to the layers' initial states."""
        for stepper in self._steppers:
            stepper.reset(rows)

    @property
    def state(self) -> State:
        """A copy of the current state."""
        return State([own for stepper in self._steppers for own in stepper.state.layers])

    @state.setter
    def state(self, state: State) -> None:
        check_is_state(state)
        check_state(state, self.state)
        begin = 0
        for stepper in self._steppers:
            end = begin + len(stepper.state.layers)
            stepper.state = State(state.layers[begin:end])
            begin = end


def _sum(x: Array, y: Array, active: Any) -> Array:
    if x.ndim == 1:
        refuse_indices()
    with np.errstate(all="ignore"):  # as in torch, overflow gives infinity without a warning
        total: Array = y + x.astype(y.dtype, copy=False)
    if active is not None:
        total[~np.asarray(active.cpu() if isinstance(active, Tensor) else active, dtype=bool)] = 0.0
    return total


def refuse_indices() -> NoReturn:
    """Raise ArgumentError for a residual connection around a layer that reads indices."""
    raise ArgumentError(
        "residual=True adds a layer's input to its output, got indices of one-hots: pass one-hots, "
        "as in torch.nn.functional.one_hot(x, size).float()"
    )
