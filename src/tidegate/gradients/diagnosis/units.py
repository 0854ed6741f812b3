"""Dead units: those whose state does not move, or that receive no gradient."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.gradients.diagnosis.subject import DiagnosedLayer
from tidegate.nn.unroll_autograd import AutogradUnroll, state_label

DEAD_DEVIATION = 1e-3


@dataclass(frozen=True)
class Units:
    """The units of a state: the standard deviation of each over the data, and which are dead.

    `label` is the state's name in plots. `still` are the indices of units whose deviation is below 0.001, `no_gradient`
    of those whose gradient is 0 at every step.
    """

    layer: int
    state: str
    label: str
    deviations: list[float]
    still: list[int]
    no_gradient: list[int]

    @property
    def dead(self) -> list[int]:
        """The indices of either kind."""
        return sorted({*self.still, *self.no_gradient})


def units(
    subject: DiagnosedLayer, layer: int, run: AutogradUnroll, largest: Mapping[tuple[int, str], Tensor]
) -> Iterator[Units]:
    """The units of each state of a layer."""
    for state in run.graph.states:
        if not state.bookkeeping:
            values = torch.stack([s[state.name] for s in run.states[1:]])[subject.valid].detach().double()
            deviations, gradient = values.std(0, correction=0), largest[layer, state.name]
            label = state_label(run.graph, state.name)
            yield Units(
                layer,
                state.name,
                label,
                deviations.tolist(),
                _where(deviations < DEAD_DEVIATION),
                _where(gradient == 0),
            )


def _where(chosen: Tensor) -> list[int]:
    return [int(k) for k in chosen.nonzero().flatten()]
