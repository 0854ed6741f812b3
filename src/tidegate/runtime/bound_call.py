"""A call's kernels between tensors that stay where they are, but for the values of weights and a few others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tidegate.native.run.workspace import Block
from tidegate.runtime.kernel_call import KernelBackward, KernelCall


class Held:
    """The forward pass of a call from these tensors to `y` `[T, B, size]` and, where that is given, `kept`.

    The values of weights are told anew at each run, and so are the inputs whose numbers are `given`, contiguous.
    """

    def __init__(
        self, call: KernelCall, tensors: Sequence[Tensor], given: Sequence[int], y: Tensor, kept: Tensor | None = None
    ) -> None:
        cell, places = call.cell, call.cell.places["forward"]
        self._call, self._bound = call, call.bind("forward")
        arguments, ends = self._bound.arguments, [room() for room in call.ends]
        self._alive = [call.tell(arguments, places, tensors), ends, y, kept]
        self._weights, self._inputs = places.weights, [places.inputs[k][0] for k in given]
        self.nbytes = y.nbytes + (0 if kept is None else kept.nbytes)
        arguments[places.output], arguments[places.ld_output] = y.data_ptr(), cell.recipe.width
        for (place, _), end in zip(places.ends, ends, strict=True):
            arguments[place] = end.data_ptr()
        arguments[places.keeping] = 0 if kept is None else cell.keeping(kept)
        if kept is not None:
            call.tell_kept(arguments, places, kept)

    def __call__(self, weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        """Run."""
        addresses, alive = self._call.weights(weights)
        _tell(self._bound.arguments, self._weights, addresses, self._inputs, inputs)
        self._bound()
        del alive


class HeldBackward:
    """The backward pass of such a call. The gradients of inputs, `of_inputs`, always come to the same places."""

    def __init__(
        self, call: KernelCall, tensors: Sequence[Tensor], given: Sequence[int], kept: Tensor, needs: Sequence[bool]
    ) -> None:
        self._call, self._pass, self._bound = call, KernelBackward(call, needs), call.bind("backward")
        places, arguments = self._pass.places, self._bound.arguments
        self._alive = [call.tell(arguments, places, tensors), kept]
        self._weights, self._inputs = places.weights, [places.inputs[k][0] for k in given]
        call.tell_kept(arguments, places, kept)
        self._block = Block(self._pass.size)
        self.of_inputs, _ = self._pass.tell(call, arguments, tensors, self._block)
        self.nbytes = self._block.size + sum(g.nbytes for g in self.of_inputs if g is not None)

    def __call__(self, weights: Sequence[Tensor], inputs: Sequence[Tensor], slope: Tensor) -> list[Tensor | None]:
        """The gradients of the values of weights, from the slope in the output."""
        call = self._call
        addresses, alive = call.weights(weights)
        _tell(self._bound.arguments, self._weights, addresses, self._inputs, inputs)
        slopes = [slope, *[None] * len(call.ends)]
        total = self._pass.go(call, self._bound, slopes, self._block, self._pass.nothing(call, slope))
        del alive
        return self._pass.finished(call, total)[: call.count]


def _tell(
    arguments: Any,
    weight_places: Sequence[int],
    addresses: Sequence[int],
    input_places: Sequence[int],
    inputs: Sequence[Tensor],
) -> None:
    for place, address in zip(weight_places, addresses, strict=True):
        arguments[place] = address
    for place, tensor in zip(input_places, inputs, strict=True):
        arguments[place] = tensor.data_ptr()
