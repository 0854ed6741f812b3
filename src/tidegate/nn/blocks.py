"""One call of a cell for one block of steps after another, by a kernel that is told once where its tensors stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from tidegate.equations.values import Rate
from tidegate.native.kernel import Bound
from tidegate.nn import native
from tidegate.nn.native_call import Call, NativeCell
from tidegate.nn.sequence import Sequence

Tensors = Mapping[str, Tensor]


class Blocks:
    """Runs of a cell over blocks of `steps` steps, the last of which may be shorter; `still` are the inputs that are
    the same for every block. No derivatives, lengths or resets."""

    def __init__(self, run: Sequence, steps: int, still: Collection[str] = ()) -> None:
        self.run, self.steps, self.still = run, steps, frozenset(still)
        self.once = {i.name for i in run.graph.inputs if i.rate == Rate.SEQUENCE}

    def __call__(self, weights: Tensors, inputs: Tensors, state: dict[str, Tensor], output: Tensor) -> Course:
        """What runs block after block: inputs `[T, B, size]`, and for `still` ones `[steps, B, size]`. `state` is read
        at the beginning of each block and holds its end afterwards; the output goes to `output` `[T, B, size]`."""
        cell = self._cell(weights, inputs, state)
        if cell is None:
            return Course(self, weights, inputs, state, output)
        return _Native(self, weights, inputs, state, output, cell)

    def _cell(self, weights: Tensors, inputs: Tensors, state: Tensors) -> NativeCell | None:
        every = [*weights.values(), *inputs.values(), *state.values()]
        if not native.enabled() or not native.fits(self.run.graph.name, every):
            return None
        return self.run.cell(every[0].dtype, False)


class Course:
    """The blocks of one sequence, each by a call of its own."""

    def __init__(
        self, blocks: Blocks, weights: Tensors, inputs: Tensors, state: dict[str, Tensor], output: Tensor
    ) -> None:
        self.blocks, self.weights, self.inputs, self.state, self.output = blocks, weights, inputs, state, output

    def __call__(self, start: int, stop: int) -> None:
        """Move over some steps."""
        some = {
            n: x[: stop - start] if n in self.blocks.still else x if n in self.blocks.once else x[start:stop]
            for n, x in self.inputs.items()
        }
        with torch.no_grad():
            y, end = self.blocks.run(self.weights, some, dict(self.state), self.state)
        self.output[start:stop] = y
        for name, after in end.items():
            self.state[name].copy_(after)


class _Native(Course):
    """The same by a kernel; from block to block only addresses change, and weights stay packed."""

    def __init__(
        self,
        blocks: Blocks,
        weights: Tensors,
        inputs: Tensors,
        state: dict[str, Tensor],
        output: Tensor,
        cell: NativeCell,
    ) -> None:
        super().__init__(blocks, weights, inputs, state, output)
        self.cell, self._rows = cell, output.shape[1]
        self._alive: list[Any] = []
        with torch.no_grad():
            self._tensors = cell.recipe.tensors(weights, inputs, state, state)
        self._bound: dict[int, tuple[Bound, list[tuple[int, int, int]]]] = {}

    def __call__(self, start: int, stop: int) -> None:
        """Move over some steps."""
        if stop - start not in self._bound:
            self._bound[stop - start] = self._told(stop - start)
        bound, moving = self._bound[stop - start]
        for place, address, stride in moving:
            bound.arguments[place] = address + start * stride
        bound()
        bound.arguments[self.cell.kernel.frames["forward"].index["packed"]] = 1

    def _told(self, steps: int) -> tuple[Bound, list[tuple[int, int, int]]]:
        """A kernel for blocks of so many steps, and which of its arguments move with the step, from where and by how
        much."""
        cell, recipe, item = self.cell, self.cell.recipe, self.cell.kernel.item
        places, y = cell.places["forward"], self.output
        call: Call = cell.call(steps, self._rows, False, None, None)
        bound = call.bind("forward", own=True)
        self._alive += [call, call.tell(bound.arguments, places, self._tensors)]
        for (place, _), name in zip(places.ends, recipe.states, strict=True):
            bound.arguments[place] = self.state[name].data_ptr()
        bound.arguments[places.ld_output] = recipe.width
        moving = [(places.output, y.data_ptr(), self._rows * recipe.width * item)]
        for (place, ld), name in zip(places.inputs, recipe.inputs, strict=True):
            if ld is not None and name not in self.blocks.still:
                stride = bound.arguments[ld] * self._rows * item
                moving.append((place, bound.arguments[place], stride))
        return bound, moving
