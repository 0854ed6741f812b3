"""The spectrum of a step's Jacobian d s_t / d s_(t-1): what a step does to a small change of the state."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.calculus import Dense, jacobians
from tidegate.gradients.diagnosis.subject import DiagnosedLayer
from tidegate.nn.unroll_autograd import AutogradUnroll
from tidegate.reference import Program, bound, leaves
from tidegate.reference import torch_ops as xp

ROWS, SAMPLES, FULLY_SAMPLED = 8, 32, 256  # fewer samples are taken for more states than FULLY_SAMPLED
MAX_POINTS = 512


@dataclass(frozen=True)
class Range:
    """The median, the least and the greatest of several samples, by rank."""

    median: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Spectrum:
    """The Jacobian of one layer's step over all its states (bookkeeping apart), at `samples` steps of the data.

    `singular_values` and `moduli` (of the eigenvalues) are sorted, the largest first. `radius` is the spectral radius:
    median, least, greatest. `eigenvalues` are those of some samples, as pairs of real and imaginary part.
    `growth` is the mean logarithmic growth of a small change of the state per step, along the data: an estimate of the
    largest Lyapunov exponent, below 0 if changes die out; None if one becomes 0.
    """

    layer: int
    states: list[str]
    samples: int
    singular_values: Range
    moduli: Range
    radius: tuple[float, float, float]
    eigenvalues: list[tuple[float, float]]
    growth: float | None


class StepJacobian:
    """The Jacobian of a layer's step, compiled for many steps and rows."""

    def __init__(self, run: AutogradUnroll) -> None:
        graph = run.graph
        self.run, self.names = run, [s.name for s in graph.states if not s.bookkeeping]
        sizes = [bound(s.size, run.sizes)[0] for s in graph.states if not s.bookkeeping]
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        self.places = {name: slice(e - n, e) for name, n, e in zip(self.names, sizes, ends, strict=True)}
        self.size = ends[-1]
        self.blocks = {p: j for p, j in jacobians(graph).states.items() if set(p) <= set(self.names)}
        self.program = Program([j.value for j in self.blocks.values()])

    def __call__(self, t: int, rows: Tensor) -> Tensor:
        """d s_t / d s_(t-1) in some rows: `[R, size, size]`."""
        run = self.run
        moving = {n: x[rows] for n, x in run.read(t).items()}
        states = {n: s[rows] for n, s in run.states[t].items()}
        env = leaves(run.graph, run.weights, moving, states)
        whole = next(iter(states.values())).new_zeros(len(rows), self.size, self.size)
        for ((new, old), jacobian), value in zip(self.blocks.items(), self.program(xp, run.sizes, env), strict=True):
            block, values = whole[:, self.places[new], self.places[old]], torch.as_tensor(value)
            if not isinstance(jacobian, Dense):
                values = torch.diag_embed(values.expand(block.shape[:2]))
            block.copy_(values.expand(block.shape))
        return whole


def spectrum(subject: DiagnosedLayer, layer: int, run: AutogradUnroll, seed: int) -> Spectrum:
    """The spectrum of a layer's step, at steps and rows spread over the data."""
    step = StepJacobian(run)
    rows = subject.lengths.argsort(descending=True)[:ROWS]
    wanted = max(4, min(SAMPLES, SAMPLES * FULLY_SAMPLED**3 // step.size**3))
    places = subject.valid[:, rows].nonzero()
    sampled = places[torch.linspace(0, len(places) - 1, min(wanted, len(places))).long()]
    kept, change = [], _Change(subject.lengths[rows], step.size, run, seed)
    with torch.no_grad():
        for t in range(len(run.values)):
            matrices = step(t, rows)
            change.advance(t, matrices)
            kept.append(matrices[sampled[sampled[:, 0] == t, 1]].double())
    return _summary(layer, step.names, torch.cat(kept), change.growth)


class _Change:
    """A small change of the state, propagated along rows of these lengths; its growth is averaged over the second
    half."""

    def __init__(self, lengths: Tensor, size: int, run: AutogradUnroll, seed: int) -> None:
        drawn = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        like = next(iter(run.states[0].values()))
        self.lengths, self.total, self.count = lengths, 0.0, 0
        self.vector = (drawn / drawn.norm()).to(like.device).expand(len(lengths), size)

    def advance(self, t: int, matrices: Tensor) -> None:
        """Propagate by one step."""
        moved = torch.einsum("rnm,rm->rn", matrices.double(), self.vector)
        size = moved.norm(dim=-1)
        counted = (t >= self.lengths // 2) & (t < self.lengths)
        self.total += float(size[counted].log().sum())
        self.count += int(counted.sum())
        self.vector = moved / size.clamp(min=1e-300).unsqueeze(-1)

    @property
    def growth(self) -> float | None:
        """The mean logarithm of the growth per step."""
        return self.total / self.count if math.isfinite(self.total) else None


def _summary(layer: int, names: list[str], matrices: Tensor, growth: float | None) -> Spectrum:
    eigenvalues = torch.linalg.eigvals(matrices)
    moduli = eigenvalues.abs().sort(dim=-1, descending=True).values
    few = torch.linspace(0, len(matrices) - 1, max(1, MAX_POINTS // eigenvalues.shape[1])).long().unique()
    radius = moduli[:, 0]
    return Spectrum(
        layer,
        names,
        len(matrices),
        _range(torch.linalg.svdvals(matrices)),
        _range(moduli),
        (float(radius.median()), float(radius.min()), float(radius.max())),
        [(float(z.real), float(z.imag)) for z in eigenvalues[few].flatten()],
        growth,
    )


def _range(values: Tensor) -> Range:
    return Range(values.median(0).values.tolist(), values.amin(0).tolist(), values.amax(0).tolist())
