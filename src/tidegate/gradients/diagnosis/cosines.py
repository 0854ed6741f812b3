"""The cosine between a rule's gradient and the exact one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.gradients.diagnosis.subject import DiagnosedLayer
from tidegate.gradients.rules import BPTT, Rule, TruncatedBPTT
from tidegate.gradients.sweep import gradient

HORIZONS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Cosine:
    """The cosine between a rule's gradient of the whole sequence and the exact one, and `ratio`, the ratio of their
    norms: over all parameters, and by parameter name. None where one of the two gradients is 0."""

    rule: str
    cosine: float | None
    ratio: float | None
    by_parameter: dict[str, float | None]


def default_rules(steps: int) -> tuple[Rule, ...]:
    """Truncated BPTT for horizons shorter than the sequence."""
    return tuple(TruncatedBPTT(k, k) for k in HORIZONS if k < steps)


def cosines(subject: DiagnosedLayer, rules: Sequence[Rule]) -> list[Cosine]:
    """The cosine of each rule."""
    exact = _gradient(subject, BPTT())
    return [_cosine(str(rule), _gradient(subject, rule), exact) for rule in rules]


def _gradient(subject: DiagnosedLayer, rule: Rule) -> dict[str, Tensor]:
    """The gradient of the loss of all steps that are not padding."""

    def loss(outputs: Tensor, steps: Tensor) -> Tensor:
        counted = subject.valid[steps].unsqueeze(-1)
        return subject.score(torch.where(counted, outputs, outputs.detach()), steps)

    found = gradient(subject.layer, subject.x, subject.steps, loss, rule=rule)
    return {name: g.double().flatten() for name, g in found.items()}


def _cosine(rule: str, ours: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> Cosine:
    a, b = torch.cat(list(ours.values())), torch.cat(list(exact.values()))
    ratio = float(a.norm() / b.norm()) if b.norm() else None
    return Cosine(rule, _angle(a, b), ratio, {name: _angle(ours[name], exact[name]) for name in exact})


def _angle(a: Tensor, b: Tensor) -> float | None:
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths else None
