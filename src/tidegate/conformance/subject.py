"""The cell under test: layers with asymmetric weights, inputs, and the reference that they are compared with."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tidegate.equations import Cell, Rate
from tidegate.nn import Recurrent, State
from tidegate.reference import bound, step, torch_ops
from tidegate.runtime.masks import without_masks

Tensors = dict[str, Tensor]
Inputs = Callable[[int, int], Mapping[str, Tensor]]
I, H = 3, 12  # noqa: E741 - the project's word for the input size; 12 units can be shared out in many ways
SIZES = {"P": 5, "S": 4, "R": 2, "N": 8, "G": 6}
OTHER_SIZE = 4
SPREAD = 0.2


class Broken(Exception):  # noqa: N818 - what a check says, and not yet an error
    """A broken promise; the message says which, and by how much."""


class CheckedCell:
    """A cell, with sizes, inputs `[T, B, size]` by name, and layers in double precision."""

    def __init__(self, cell: Cell, inputs: Inputs | None, sizes: Mapping[str, int]) -> None:
        self.cell, self.graph, self._inputs = cell, without_masks(cell.graph), inputs
        letters: dict[str, Any] = {x: SIZES.get(x, OTHER_SIZE) for x in cell.graph.letters if x not in "IH"} | dict(
            sizes
        )
        first = cell.graph.inputs[0].size[0]
        self.input_size = bound((first,), {"I": I, "H": H, **letters})[0]
        self.letters = letters  # Any: they go into a call beside other options
        self.sizes = {"I": self.input_size, "H": H, **letters}
        self._once = {i.name for i in self.graph.inputs if i.rate == Rate.SEQUENCE}

    def layer(self, seed: int = 1, **options: Any) -> Recurrent:
        """A layer in evaluation, its initial weights shifted by random amounts that depend on the seed."""
        torch.manual_seed(seed)
        layer = Recurrent(self.cell, self.input_size, H, **self.letters, **options).double().eval()
        with torch.no_grad():
            for name, p in layer.named_parameters():
                source = torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed)
                p.mul_(1.0 + SPREAD * torch.rand(p.shape, generator=source, dtype=p.dtype))
                p.add_(SPREAD * torch.rand(p.shape, generator=source, dtype=p.dtype))
        return layer

    def inputs(self, T: int, B: int, seed: int = 2) -> Tensors:
        """Inputs by name: normally distributed, or those that `inputs` makes."""
        torch.manual_seed(seed)
        if self._inputs is not None:
            return {n: x.double() for n, x in self._inputs(T, B).items()}
        lead = {i.name: (B,) if i.rate == Rate.SEQUENCE else (T, B) for i in self.graph.inputs}
        return {i.name: torch.randn(*lead[i.name], *bound(i.size, self.sizes)).double() for i in self.graph.inputs}

    def state(self, layer: Recurrent, B: int, seed: int = 3) -> State:
        """A state that the cell can reach: after two steps of other inputs."""
        with torch.no_grad():
            return layer(self.inputs(2, B, seed))[1]

    def moving(self, inputs: Tensors, steps: slice) -> Tensors:
        """A slice of the steps of inputs."""
        return {n: x if n in self._once else x[steps] for n, x in inputs.items()}

    def at(self, inputs: Tensors, t: int) -> Tensors:
        """The inputs of one step, `[B, size]`."""
        return {n: x if n in self._once else x[t] for n, x in inputs.items()}

    def rows(self, inputs: Tensors, chosen: Any) -> Tensors:
        """Some rows of inputs."""
        return {n: x[chosen] if n in self._once else x[:, chosen] for n, x in inputs.items()}

    def slowly(
        self, layer: Recurrent, inputs: Tensors, state: State | None, lengths: list[int], reset: Tensor
    ) -> tuple[Tensor, Tensors]:
        """The reference: one layer, row by row and step by step, each row cut to its length."""
        T, B = reset.shape
        weights: Any = layer.get_submodule("l0").tensors()  # type: ignore[operator]
        own = dict(layer.initial_state(1).layers[0][0])
        y, ends = [], []
        for b in range(B):
            row = self.rows(inputs, slice(b, b + 1))
            now = own if state is None else {n: s[b : b + 1] for n, s in state.layers[0][0].items()}
            outputs = []
            for t in range(lengths[b]):
                now = own if reset[t, b] else now
                output, now = step(self.graph, weights, self.at(row, t), now, torch_ops, self.sizes)
                outputs.append(output)
            width = bound(self.graph.output_size, self.sizes)
            y.append(torch.cat([*(o.expand(1, *width) for o in outputs), torch.zeros(T - lengths[b], *width).double()]))
            ends.append(now)
        return torch.stack(y, 1), {n: torch.cat([e[n] for e in ends]) for n in own}


def expect_near(what: str, found: Tensor, right: Tensor, tolerance: float = 1e-9) -> None:
    """Raise Broken unless two arrays agree within a tolerance, relative to the largest element."""
    if found.shape != right.shape:
        raise Broken(f"{what}: shape {list(found.shape)}, expected {list(right.shape)}")
    if found.numel() == 0:
        return
    found, right = found.detach(), right.detach()
    off = float((found.double() - right.double()).abs().max()) / (1.0 + float(right.double().abs().max()))
    if not off <= tolerance:
        raise Broken(f"{what}: off by {off:.1e}, allowed {tolerance:.0e}")


def expect_states(what: str, found: State, right: Mapping[str, Tensor], tolerance: float = 1e-9) -> None:
    """`expect_near` for the states of one layer."""
    for name, value in right.items():
        expect_near(f"{what}, state {name!r}", found.layers[0][0][name], value, tolerance)


def expect(holds: bool, what: str) -> None:
    """Raise Broken with this text unless the condition holds."""
    if not holds:
        raise Broken(what)
