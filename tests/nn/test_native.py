"""Native kernels against the reference path: every cell, values and gradients, in every form of call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from catalogue import ALL
from layer_cases import SIZES, positive
from tidegate.equations import Graph, Rate
from tidegate.native import kernel as kernels
from tidegate.nn import native
from tidegate.nn.sequence import Sequence
from tidegate.reference import bound, weight_shape

Tensors = dict[str, Tensor]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}  # of an array's largest number


def sizes_of(graph: Graph, I: int, H: int) -> dict[str, int]:  # noqa: E741
    return {x: {"I": I, "H": H}.get(x, SIZES.get(x, 4)) for x in dict.fromkeys((*graph.letters, "H"))}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class Setting:
    """A cell with random tensors for everything that it takes, and random slopes for what it gives."""

    def __init__(self, graph: Graph, sizes: dict[str, int], T: int, B: int, scale: float = 0.4) -> None:
        self.graph, self.sizes, self.T, self.B = graph, sizes, T, B
        width = max(sizes.values())
        lead = {Rate.SEQUENCE: (B,), Rate.INPUT: (T, B)}
        self.weights = {n: _weight(n, scale * normal(*weight_shape(w, sizes)), width) for n, w in graph.weights.items()}
        self.inputs = {i.name: normal(*lead[i.rate], *bound(i.size, sizes)) for i in graph.inputs}
        self.state = {s.name: positive(s.name, normal(B, *bound(s.size, sizes))) for s in graph.states}
        self.start = {s.name: positive(s.name, normal(1, *bound(s.size, sizes))) for s in graph.states}
        self.slopes = [normal(T, B, *bound(graph.output_size, sizes)), *(normal(*s.shape) for s in self.state.values())]
        self.lengths: Tensor | None = None
        self.reset: Tensor | None = None

    def ragged(self) -> "Setting":
        """The same with lengths, and with resets where rows are not at their end."""
        self.lengths = torch.randint(0, self.T + 1, (self.B,))
        self.lengths[0] = self.T
        self.reset = (torch.rand(self.T, self.B) < 0.3) & (torch.arange(self.T)[:, None] < self.lengths)
        return self

    def run(self, dtype: torch.dtype = torch.float64, backwards: bool = False, like: Callable[..., Any] | None = None) -> Tensors:
        """Outputs, ends, and the gradients in everything, by name."""
        parts = [self.weights, self.inputs, self.state, self.start]
        given = [{n: t.to(dtype, copy=True).requires_grad_() for n, t in part.items()} for part in parts]
        taken = [{n: like(t) for n, t in part.items()} for part in given] if like else given
        y, ends = Sequence(self.graph, self.sizes)(*taken, self.lengths, self.reset, backwards=backwards)
        found = {"y": y, **{f"end {n}": t for n, t in ends.items()}}
        leaves = {f"{k} {n}": t for k, part in zip("wxhs", given, strict=True) for n, t in part.items()}
        slopes = [s.to(dtype) for s in self.slopes]
        gradients = torch.autograd.grad(list(found.values()), list(leaves.values()), slopes, allow_unused=True)
        found |= {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(leaves.items(), gradients, strict=True)}
        return {n: t.detach() for n, t in found.items()}


def _weight(name: str, drawn: Tensor, width: int) -> Tensor:
    """Products stay moderate for wide states; time constants and periods are positive."""
    if drawn.dim() > 1:
        return drawn * (20 / max(width, 20)) ** 0.5
    return drawn.abs() + 0.5 if name.split(".")[-1] == "tau" else drawn


def assert_near(ours: Tensors, theirs: Tensors, tolerance: float) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, name
        if not value.numel():
            continue
        assert torch.isfinite(value).all(), name
        error = (ours[name].double() - value).abs().max() / (value.abs().max() + 1e-30)
        assert error <= tolerance, f"{name}: off by {error:.1e}"


@contextmanager
def only_native() -> Iterator[list[str]]:
    """Inside, whatever does not run on kernels fails; the list grows by a word for each run of a kernel."""
    runs: list[str] = []
    run = kernels.Kernel.run

    def counted(self: Any, direction: Any, *arguments: Any) -> None:
        runs.append(direction)
        run(self, direction, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.Kernel, "run", counted)
        yield runs


def assert_as_reference(setting: Setting, dtype: torch.dtype = torch.float64, **options: Any) -> None:
    with only_native() as runs:
        ours = setting.run(dtype, **options)
    assert runs == ["forward", "backward"]
    with native.disabled():
        theirs = setting.run(**options)
    assert_near(ours, theirs, TOLERANCE[dtype])


SHAPES = [(5, 3, 3, 7), (2, 17, 1, 12)]  # T, B, I, H


def fitting(graph: Graph, H: int) -> int:
    """A size of the state that the cell's blocks and groups divide."""
    blocks = [v.attrs["blocks"] for v in graph.weights.values() if v.attrs.get("blocks")]
    return H if not blocks and "G" not in graph.letters else 12


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_every_cell(name: str, backwards: bool, ragged: bool) -> None:
    graph = ALL[name].graph
    for T, B, I, H in SHAPES:  # noqa: E741
        setting = Setting(graph, sizes_of(graph, I, fitting(graph, H)), T, B)
        assert_as_reference(setting.ragged() if ragged else setting, backwards=backwards)
