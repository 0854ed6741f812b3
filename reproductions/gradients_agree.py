"""One gradient by several ways: differences of losses, backwards in time, and forwards."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reproductions.cells import scalar_lru
from reproductions.experiment import Configuration, Experiment, Measure, Net, Outcome, Published
from tidegate.cells import CELLS
from tidegate.equations import Cell
from tidegate.gradients import gradient, rule_from_text
from tidegate.nn import Recurrent
from tidegate.runtime import support

I, H, P, N = 3, 5, 4, 4  # noqa: E741 - the project's word for the input size
WIDTHS = {"slstm": 12}  # units of cells whose blocks do not share out five
SPREAD = 0.4  # of what is added to each weight's initial value
STEP = 1e-8  # to both sides of a weight: gradients that explode bend the loss so much that 1e-6 is too long
DIFFERENCES = f"differences:{STEP:.0e}"
HAND = "scalar LRU, by hand"
BY_HAND = {
    f"l0.{name}": torch.tensor(value)
    for name, value in {"l_re": 53.0, "l_im": -159.0, "gamma": 85.75, "b_re": 85.75, "b_im": -42.875}.items()
}
Gradients = Mapping[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """`rule` is the text of a rule, or `DIFFERENCES`; without `kernels` it runs on the reference path.

    Solved is what differs by less than `below`.
    """

    rule: str
    kernels: bool = True
    below: float = 1e-10
    steps: int = 70
    rows: int = 10


@dataclass(frozen=True)
class Problem:
    """A layer, its inputs `[T, B, I]`, and targets `[T, B, H]` of all its steps."""

    layer: Recurrent
    x: Tensor
    targets: Tensor

    def gradients(self, rule: str) -> Gradients:
        """By the name of the weight."""
        if rule == DIFFERENCES:
            return self._differences()
        return gradient(self.layer, self.x, self.targets, half_square, rule=rule_from_text(rule))

    @torch.no_grad()
    def _differences(self) -> Gradients:
        """Of the losses to both sides of each weight."""
        weights = self.layer.named_parameters()
        return {name: torch.stack([self._quotient(place) for place in weight.view(-1)]) for name, weight in weights}

    def _quotient(self, place: Tensor) -> Tensor:
        was, losses = place.clone(), []
        for step in (STEP, -STEP):
            place.copy_(was + step)
            losses.append(half_square(self.layer(self.x)[0], self.targets))
        place.copy_(was)
        return (losses[0] - losses[1]) / (2 * STEP)


def run(settings: Settings, _: int, __: Path | None) -> Outcome:
    """The largest difference over all cells, one and two layers deep, relative to the gradient; `also` by cell."""
    with nullcontext() if settings.kernels else support.disabled():
        found = {
            name: max(disagreement(settings.rule, made(cell, layers, settings)) for layers in (1, 2))
            for name, cell in CELLS.items()
        }
        found[HAND] = difference(by_hand().gradients(settings.rule), BY_HAND)
    rounded = {name: float(f"{value:.3g}") for name, value in found.items()}
    worst = max(rounded.values())
    return Outcome(worst, worst < settings.below, also=rounded)


def half_square(y: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance."""
    return 0.5 * (y - targets).square().sum()


def disagreement(rule: str, problem: Problem) -> float:
    """From back-propagation on the reference path."""
    found = problem.gradients(rule)
    with support.disabled():
        return difference(found, problem.gradients("bptt"))


def difference(ours: Gradients, theirs: Gradients) -> float:
    """The norm of the difference, relative to that of the second; of the weights that it names."""
    first, second = (torch.cat([part[name].flatten() for name in theirs]).double() for part in (ours, theirs))
    return float((first - second).norm() / second.norm())


def made(cell: Cell, layers: int, settings: Settings) -> Problem:
    """Random weights that are no one's initial values, random inputs, and a random loss at every step."""
    hidden = WIDTHS.get(cell.name, H)
    sizes: dict[str, Any] = {k: v for k, v in (("P", P), ("N", N)) if k in cell.graph.letters}
    inputs = I if "I" in cell.graph.letters else hidden
    layer = Recurrent(cell, inputs, hidden, num_layers=layers, dtype=torch.float64, **sizes)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(torch.randn_like(weight), alpha=SPREAD)
    shape = settings.steps, settings.rows
    x, targets = (torch.randn(*shape, size, dtype=torch.float64) for size in (inputs, layer.output_size))
    return Problem(layer, x, targets)


def by_hand() -> Problem:
    """lambda 0.5, B 2 + 2j, C 2 + 1j and gamma 1 with x = (1, 2, 3) and targets of 1."""
    layer = Recurrent(scalar_lru, 1, 1, dtype=torch.float64)
    values = {"l_re": 0.5, "l_im": 0.0, "gamma": 1.0, "b_re": 2.0, "b_im": 2.0, "c_re": 2.0, "c_im": 1.0}
    with torch.no_grad():
        for name, value in values.items():
            layer.get_parameter(f"l0.{name}").fill_(value)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(3, 1, 1)
    return Problem(layer, x, torch.ones_like(x))


RELATIVE = Measure("worst relative difference", ".1e")

GRADIENTS_AGREE = Experiment(
    name="gradients-agree",
    title="Gradients agree",
    source="Williams & Zipser 1989, doi:10.1162/neco.1989.1.2.270; Menick et al. 2021, arXiv:2006.07232",
    about=f"""\
Every cell, one and two layers deep: 70 steps, 10 rows, {I} inputs, {H} units ({WIDTHS["slstm"]} in slstm, whose blocks
need a multiple), double precision, random asymmetric weights, and half the squared distance to random targets at every
step. The standard is back-propagation through time on the reference path, which evaluates a cell's equations as
written; every other method is compared with it. The figure is the worst relative difference over cells and depths. A
seed is solved below 1e-10; for central differences of the loss over {STEP:.0e} to both sides, which lose digits to
cancellation, below 1e-5.""",
    run=run,
    configurations=(
        Configuration("finite differences", Settings(DIFFERENCES, below=1e-5), RELATIVE),
        Configuration("BPTT, kernels", Settings("bptt"), RELATIVE),
        Configuration("BPTT with 8 stored states, kernels", Settings("bptt:8"), RELATIVE),
        Configuration("BPTT with 8 stored states, reference path", Settings("bptt:8", kernels=False), RELATIVE),
        Configuration("exact RTRL, kernels", Settings("rtrl"), RELATIVE, Published(4.4e-16, "4.4e-16", "code")),
        Configuration("exact RTRL, reference path", Settings("rtrl", kernels=False), RELATIVE),
        Configuration("SnAp-70, kernels", Settings("snap:70"), RELATIVE),
        Configuration("SnAp-70, reference path", Settings("snap:70", kernels=False), RELATIVE),
    ),
    quick=(Configuration("exact RTRL, 7 steps", Settings("rtrl", steps=7, rows=2), RELATIVE),),
    nets=(
        Net(
            scalar_lru,
            """\
The linear recurrent unit by hand: with lambda 0.5, B 2 + 2j, C 2 + 1j, gamma 1, x = (1, 2, 3), targets 1 and half the
squared distance, h = (2 + 2j, 5 + 5j, 8.5 + 8.5j), y = (2, 5, 8.5), and the gradients are 53 + 159j for lambda, 85.75
for gamma and 85.75 - 42.875j for B, where the gradient of a + bj is d/da - j d/db for lambda and d/da + j d/db for B.
In real parts:""",
        ),
    ),
)
