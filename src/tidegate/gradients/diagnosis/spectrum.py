"""The spectrum of a step's Jacobian d s_t / d s_(t-1): what a step does to a small change of the state."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.gradients.diagnosis.subject import DiagnosedLayer
from tidegate.gradients.influence.parameter_groups import structure
from tidegate.gradients.influence.parameter_layout import ParameterLayout
from tidegate.gradients.influence.step_values import StepValues
from tidegate.nn.unroll_autograd import AutogradUnroll
from tidegate.reference import leaves

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
    """The Jacobian of a layer's step."""

    def __init__(self, run: AutogradUnroll) -> None:
        self.run, self.names = run, [s.name for s in run.graph.states if not s.bookkeeping]
        self.layout = ParameterLayout(structure(run.graph), run.sizes, run.weights)
        self.places, self.size = self.layout.places(self.names)

    def __call__(self, t: int, rows: Tensor) -> Tensor:
        """d s_t / d s_(t-1) in some rows: `[R, size, size]`."""
        inputs, states = ({n: x[rows][None] for n, x in of.items()} for of in (self.run.read(t), self.run.states[t]))
        env = leaves(self.run.graph, self.run.weights, inputs, states)
        values = StepValues(self.layout, env, (1, len(rows)), next(iter(states.values())))
        return values.matrix(self.names)[0]


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
