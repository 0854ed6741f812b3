"""Holding a cell of the language against its oracle: random asymmetric weights, some steps, values and gradients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tidegate.equations import Cell, Graph
from tidegate.reference import bound, numpy_ops, step, torch_ops, weight_shape

from .common import Oracle, Tensors, unroll

BATCH, STEPS = 7, 3
SIZES = {"I": 3, "H": 12, "P": 5, "S": 4, "R": 2, "N": 8, "G": 6}  # H has blocks of 2, 3, 4 and 6; all else differs
TOLERANCE = 1e-10


@dataclass
class Setting:
    """What a cell is tried with: weights by name, inputs `[T, B, size]`, old states `[B, size]`."""

    weights: Tensors
    inputs: Tensors
    states: Tensors
    fixed: frozenset[str] = field(default_factory=frozenset)  # has no gradient: counters, masks

    def parts(self) -> dict[str, Tensor]:
        """Everything by one name each, as leaves of a new autograd graph where it has a gradient."""
        found: dict[str, Tensor] = {}
        for kind in ("weights", "inputs", "states"):
            named = {f"{kind}/{k}": v.detach().clone() for k, v in getattr(self, kind).items()}
            found |= {k: v.requires_grad_(k not in self.fixed) for k, v in named.items()}
        return found


def taken(parts: Mapping[str, Tensor], kind: str) -> Tensors:
    """The parts of one kind under their plain names."""
    return {k.removeprefix(kind + "/"): v for k, v in parts.items() if k.startswith(kind + "/")}


def random_setting(graph: Graph, seed: int = 5) -> Setting:
    """Normal numbers of scale 1/2 everywhere; fixed weights have no gradient."""
    source = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 0.5 * torch.randn(*shape, dtype=torch.float64, generator=source)

    return Setting(
        {name: draw(*weight_shape(w, SIZES)) for name, w in graph.weights.items()},
        {i.name: draw(STEPS, BATCH, *bound(i.size, SIZES)) for i in graph.inputs},
        {s.name: draw(BATCH, *bound(s.size, SIZES)) for s in graph.states},
        frozenset(f"weights/{name}" for name, w in graph.weights.items() if not w.attrs["learn"]),
    )


def positive_normaliser(graph: Graph, setting: Setting) -> None:
    """A normaliser divides: it begins well above 0."""
    setting.states["n"] = setting.states["n"].abs() + 0.5


def reference_of(graph: Graph) -> Oracle:
    """The reference's step in the form of an oracle."""

    def one_step(weights: Tensors, inputs: Tensors, states: Tensors, **_: object) -> tuple[Tensor, Tensors]:
        return step(graph, weights, inputs, states, torch_ops, SIZES)

    return one_step


def run(oracle: Oracle, setting: Setting, options: Mapping[str, Any]) -> tuple[Tensors, Tensors]:
    """Results by name (`y`, and each state at the end), and the gradients of one random sum of them all."""
    parts = setting.parts()
    arguments = (taken(parts, kind) for kind in ("weights", "inputs", "states"))
    y, states = unroll(oracle, *arguments, **options)
    results = {"y": y, **{f"{name} at the end": v for name, v in states.items()}}
    chance = torch.Generator().manual_seed(11)
    loss = sum((v * torch.randn(v.shape, dtype=v.dtype, generator=chance)).sum() for v in results.values())
    leaves = {k: v for k, v in parts.items() if v.requires_grad}
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradients = {k: torch.zeros_like(v) if d is None else d for (k, v), d in zip(leaves.items(), found, strict=True)}
    return {k: v.detach() for k, v in results.items()}, gradients


def run_numpy(graph: Graph, setting: Setting) -> dict[str, Any]:
    """The reference's results on numpy."""
    weights, inputs, states = (
        {k: v.numpy() for k, v in kind.items()} for kind in (setting.weights, setting.inputs, setting.states)
    )
    outputs = []
    for t in range(STEPS):
        y, states = step(graph, weights, {k: v[t] for k, v in inputs.items()}, states, numpy_ops, SIZES)
        outputs.append(torch.from_numpy(y.copy()))
    ends = {f"{name} at the end": torch.from_numpy(v.copy()) for name, v in states.items()}
    return {"y": torch.stack(outputs), **ends}


def assert_close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Same names, same shapes, finite, and within the tolerance of each other."""
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, name
        assert torch.isfinite(value).all(), name
        error = torch.max((ours[name] - value).abs()) / (1 + value.abs().max())
        assert error < TOLERANCE, f"{name}: off by {error:.1e}"


def assert_agreement(
    cell: Cell,
    oracle: Oracle,
    prepare: Callable[[Graph, Setting], None] = lambda graph, setting: None,
    **options: Any,
) -> None:
    """The cell's reference on numpy and torch agrees with the oracle, and no weight is without effect.

    `prepare` changes the random setting where a cell needs it (positive periods, whole counters); `options` are the
    oracle's.
    """
    setting = random_setting(cell.graph)
    prepare(cell.graph, setting)
    values, gradients = run(oracle, setting, options)
    our_values, our_gradients = run(reference_of(cell.graph), setting, {})
    assert_close(our_values, values)
    assert_close(run_numpy(cell.graph, setting), values)
    assert_close(our_gradients, gradients)
    dead = [name for name, d in gradients.items() if not d.any()]
    assert not dead, f"nothing depends on {dead}: the comparison would not see them"
