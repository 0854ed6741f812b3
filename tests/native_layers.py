"""A cell over time with random tensors, run on kernels and on the reference path, and what comes out compared."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from layer_cases import SIZES, positive
from tidegate.equations import Graph, Rate
from tidegate.native.compile.arguments import CallShape
from tidegate.reference import bound, weight_shape
from tidegate.reference.unroll import UnrollArguments
from tidegate.runtime import support
from tidegate.runtime.kernel_call import KernelCall
from tidegate.runtime.unroll import Unroll

Tensors = dict[str, Tensor]

# Of an array's largest number; the reference has float64. Both sum products of up to 100 numbers, in orders of their
# own, over up to 5 steps, and float32 begins with rounded weights.
AS_NEAR = 8.0
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def sizes_of(graph: Graph, I: int, H: int) -> dict[str, int]:  # noqa: E741 - the project's word for the input size
    """Sizes for a cell; H is made one that its blocks and groups divide."""
    blocks = [v.attrs["blocks"] for v in graph.weights.values() if v.attrs.get("blocks")]
    H = 12 * -(-H // 12) if blocks or "G" in graph.letters else H
    return {x: {"I": I, "H": H}.get(x, SIZES.get(x, 4)) for x in dict.fromkeys((*graph.letters, "H"))}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class Setting:
    """A cell with random tensors for everything that it takes, and random gradients for what it gives."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], T: int, B: int, scale: float = 0.4) -> None:
        self.graph, self.sizes, self.T, self.B = graph, dict(sizes), T, B
        width = max(sizes.values())
        lead = {Rate.SEQUENCE: (B,), Rate.INPUT: (T, B)}
        self.moving = {i.name for i in graph.inputs if i.rate == Rate.INPUT}
        self.weights = {n: _weight(n, scale * normal(*weight_shape(w, sizes)), width) for n, w in graph.weights.items()}
        self.inputs = {i.name: normal(*lead[i.rate], *bound(i.size, sizes)) for i in graph.inputs}
        self.state = {s.name: positive(s.name, normal(B, *bound(s.size, sizes))) for s in graph.states}
        self.start = {s.name: positive(s.name, normal(1, *bound(s.size, sizes))) for s in graph.states}
        self.output_gradients = [
            normal(T, B, *bound(graph.output_size, sizes)),
            *(normal(*s.shape) for s in self.state.values()),
        ]
        self.lengths: Tensor | None = None
        self.reset: Tensor | None = None

    def ragged(self) -> "Setting":
        """With lengths, and with resets where rows are not at their end."""
        self.lengths = torch.randint(0, self.T + 1, (self.B,))
        self.lengths[0] = self.T
        self.reset = (torch.rand(self.T, self.B) < 0.3) & (torch.arange(self.T)[:, None] < self.lengths)
        return self

    def indexed(self) -> "Setting":
        """With whole numbers, indices of one-hots, for the first input."""
        first = self.graph.inputs[0].name
        self.inputs[first] = torch.randint(0, self.inputs[first].shape[-1], (self.T, self.B))
        return self

    def rows(self, chosen: Any) -> "Setting":
        """Some of the rows."""
        part = copy(self)
        part.inputs = {n: x[:, chosen] if n in self.moving else x[chosen] for n, x in self.inputs.items()}
        part.state = {n: s[chosen] for n, s in self.state.items()}
        part.output_gradients = [self.output_gradients[0][:, chosen], *(s[chosen] for s in self.output_gradients[1:])]
        part.lengths = None if self.lengths is None else self.lengths[chosen]
        part.reset = None if self.reset is None else self.reset[:, chosen]
        part.B = part.output_gradients[0].shape[1]
        return part

    def run(
        self,
        dtype: torch.dtype = torch.float64,
        backwards: bool = False,
        form: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensors:
        """Outputs, ends, and the gradients in everything, by name; tensors are given in a `form` of memory."""
        parts = [self.weights, self.inputs, self.state, self.start]
        given = [{n: _leaf(t, dtype) for n, t in part.items()} for part in parts]
        taken = [{n: form(t) for n, t in part.items()} for part in given] if form else given
        y, ends = Unroll(self.graph, self.sizes)(UnrollArguments(*taken, self.lengths, self.reset, backwards))
        found = {"y": y, **{f"end {n}": t for n, t in ends.items()}}
        leaves = {f"{k} {n}": t for k, part in zip("wxhs", given, strict=True) for n, t in part.items()}
        leaves = {n: t for n, t in leaves.items() if t.requires_grad}
        moved = [
            (t, output_gradient.to(dtype))
            for t, output_gradient in zip(found.values(), self.output_gradients, strict=True)
            if t.requires_grad
        ]
        ends_moved, output_gradients = zip(*moved, strict=True)
        gradients = torch.autograd.grad(ends_moved, list(leaves.values()), output_gradients, allow_unused=True)
        gradient_of = dict(zip(leaves, gradients, strict=True))
        found |= {n: torch.zeros_like(leaves[n]) if g is None else g for n, g in gradient_of.items()}
        return {n: t.detach() for n, t in found.items()}


def _leaf(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype, copy=True).requires_grad_() if tensor.is_floating_point() else tensor


def _weight(name: str, drawn: Tensor, width: int) -> Tensor:
    """Products stay moderate for wide states; time constants and periods are positive."""
    if drawn.dim() > 1:
        return drawn * (20 / max(width, 20)) ** 0.5
    return drawn.abs() + 0.5 if name.split(".")[-1] == "tau" else drawn


def assert_near(
    ours: Tensors, theirs: Tensors, tolerance: float, cancelled: float = 0.0, others: Tensors | None = None
) -> None:
    """Same names, shapes and numbers, which are finite: within the tolerance of an array's largest number, or, where
    large terms may have `cancelled`, of that part of the largest of all numbers; or hardly further off than `others`,
    numbers of the same type, are anywhere."""
    assert list(ours) == list(theirs)
    least = cancelled * max((float(v.detach().abs().max()) for v in theirs.values() if v.numel()), default=0.0)
    usual = max(_errors(others, theirs, least).values(), default=0.0) if others else 0.0
    for name, error in _errors(ours, theirs, least).items():
        assert error <= max(tolerance, AS_NEAR * usual), f"{name}: off by {error:.1e}, and others by {usual:.1e}"


def _errors(found: Tensors, right: Tensors, least: float) -> dict[str, float]:
    errors = {}
    for name, value in right.items():
        assert found[name].shape == value.shape, name
        assert torch.isfinite(value).all(), name
        if value.numel():
            off = float((found[name].double() - value).detach().abs().max())
            errors[name] = off / max(float(value.detach().abs().max()), least, 1e-30)
    return errors


def assert_equal(ours: Tensors, theirs: Tensors) -> None:
    """The same bits."""
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


@contextmanager
def counted_runs(told: Callable[[str, CallShape], Any] = lambda direction, shape: direction) -> Iterator[list[Any]]:
    """A list that grows with each run of a kernel, by its direction or what else is to be told of it."""
    runs: list[Any] = []
    acquire = KernelCall.acquire

    def counted(self: KernelCall, direction: Any) -> Any:
        runs.append(told(direction, self.shape))
        return acquire(self, direction)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KernelCall, "acquire", counted)
        yield runs


def assert_as_reference(
    setting: Setting, dtype: torch.dtype = torch.float64, cancelled: float = 0.0, **options: Any
) -> None:
    """Kernels run, and find what the reference path does."""
    with counted_runs() as runs:
        ours = setting.run(dtype, **options)
    assert runs == ["forward", "backward"]
    with support.disabled():
        theirs = setting.run(**options)
        others = setting.run(dtype, **options) if dtype != torch.float64 else None
    assert_near(ours, theirs, TOLERANCE[dtype], cancelled, others)
