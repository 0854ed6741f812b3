"""`DiagnosedLayer`: a checked copy of the layer to diagnose, with its data and loss."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.errors import ArgumentError, type_of
from tidegate.nn import Recurrent, Stack
from tidegate.nn.torch_modules.convert import KNOWN, as_recurrent
from tidegate.nn.unroll_autograd import AutogradUnroll, follow
from tidegate.reference.unroll import valid_steps

Loss = Callable[[Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Tensor], Tensor]  # outputs [K, B, size] and their steps [K] to one number
PROBE = "a random projection of the outputs (no loss was given)"


@dataclass(frozen=True, eq=False)
class DiagnosedLayer:
    """A layer in evaluation mode, its time-major input with zero padding, and its loss.

    `valid` `[T, B]` flags the steps that are not padding, `lengths` `[B]` are the rows' lengths.
    """

    layer: Recurrent | Stack
    x: Tensor
    lengths: Tensor
    valid: Tensor
    score: Score

    @property
    def steps(self) -> Tensor:
        """The steps' indices, `[T]`."""
        return torch.arange(len(self.x), device=self.x.device)

    def run(self) -> tuple[Tensor, list[AutogradUnroll]]:
        """The output and the run of each layer. Raises ArgumentError if a state is not finite."""
        y, runs = follow(self.layer, self.x)
        for layer, run in enumerate(runs):
            for t, states in enumerate(run.states[1:]):
                for name, state in states.items():
                    if not state[self.valid[t]].isfinite().all():
                        raise ArgumentError(
                            f"state {name!r} of layer {layer + 1} is not finite after step {t + 1} of {len(self.x)}, "
                            "so gradients cannot be computed: use shorter sequences, or smaller recurrent "
                            "weights"
                        )
        return y, runs

    def loss_at(self, outputs: Tensor, chosen: Tensor) -> Tensor:
        """The loss, with gradients of the chosen `[T, B]` steps only. Raises ArgumentError if it has no gradient."""
        value = self.score(torch.where(chosen.unsqueeze(-1), outputs, outputs.detach()), self.steps)
        if not isinstance(value, Tensor) or value.dim() or not value.requires_grad:
            given = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type_of(value)
            given += " that does not depend on the outputs" if isinstance(value, Tensor) and not value.dim() else ""
            raise ArgumentError(
                f"loss(outputs, target) must return one number computed from the outputs, got {given}: reduce the "
                "losses of all steps to one number, as in .sum()"
            )
        return value


def make_subject(
    layer: nn.Module, x: Any, target: Tensor | None, loss: Loss | None, readout: Any, lengths: Any, seed: int
) -> DiagnosedLayer:
    """Check the arguments of `diagnose`. Raises ArgumentError."""
    copied = _copied(layer)
    _check_input(x)
    if (target is None) != (loss is None):
        given, missing = ("loss", "target") if target is None else ("target", "loss")
        raise ArgumentError(f"got {given} without {missing}: give both, or neither for {PROBE.partition(' (')[0]}")
    if target is not None and len(target) != len(x):
        raise ArgumentError(
            f"target has {len(target)} steps, but x has {len(x)}: both must be time-major, with one target per step"
        )
    ends = _ends(lengths, x)
    valid = valid_steps(len(x), ends)
    padded = torch.where(valid if x.dim() == 2 else valid.unsqueeze(-1), x, torch.zeros_like(x))
    score = _probe(copied, seed) if loss is None or target is None else _scored(loss, target, readout)
    return DiagnosedLayer(copied, padded, ends, valid, score)


def _copied(layer: nn.Module) -> Recurrent | Stack:
    if isinstance(layer, Recurrent | Stack):
        copied: Any = copy.deepcopy(layer)
    elif isinstance(layer, nn.RNNBase) and type(layer) in KNOWN:
        copied = as_recurrent(layer)
    else:
        raise ArgumentError(
            f"diagnose takes a Recurrent, a Stack, or an LSTM, GRU or RNN of tidegate or torch.nn, got a "
            f"{type(layer).__name__}: pass the recurrent layer inside it"
        )
    if copied.bidirectional:
        raise ArgumentError(
            "diagnose takes layers of one direction, got a bidirectional one: its steps have no single past. "
            "Pass a layer of one direction"
        )
    _check_cells(copied)
    for module in copied.modules():
        if hasattr(module, "batch_first"):
            module.batch_first = False
    return copied.eval().requires_grad_(True)


def _check_cells(layer: Any) -> None:
    if isinstance(layer, Stack):
        for part in layer.layers:
            _check_cells(part)
        return
    graph = layer.graph
    names = [i.name for i in graph.inputs if i.name not in graph.masks]
    if len(names) > 1:
        raise ArgumentError(
            f"diagnose takes cells of one input, but {graph.name!r} reads {', '.join(names)}: choose a cell that reads "
            "one tensor, or concatenate the inputs"
        )


def _check_input(x: Any) -> None:
    if not isinstance(x, Tensor) or x.dim() != (3 if x.is_floating_point() else 2):
        found = f"a tensor {list(x.shape)}" if isinstance(x, Tensor) else type_of(x)
        raise ArgumentError(f"x must be one tensor [T, B, I], or integers [T, B], got {found}")
    if len(x) < 2 or not x.shape[1]:
        raise ArgumentError(f"diagnose needs at least 2 steps of at least 1 row, got {list(x.shape)}")


def _ends(lengths: Any, x: Tensor) -> Tensor:
    T, B = x.shape[:2]
    ends = torch.full((B,), T) if lengths is None else torch.as_tensor(lengths).cpu()
    if ends.shape != (B,) or ends.is_floating_point() or int(ends.min()) < 0 or int(ends.max()) > T:
        raise ArgumentError(f"lengths must be {B} whole numbers from 0 to {T}, one per row, got {lengths!r}")
    if int(ends.max()) < 2:
        raise ArgumentError(f"diagnose needs at least 2 steps, but the longest row has {int(ends.max())}")
    return ends.to(x.device)


def _probe(layer: Recurrent | Stack, seed: int) -> Score:
    like = next(layer.parameters())
    drawn = torch.randn(layer.output_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    direction = (drawn / drawn.norm()).to(like)
    return lambda outputs, steps: (outputs @ direction).sum()


def _scored(loss: Loss, target: Tensor, readout: Any) -> Score:
    def score(outputs: Tensor, steps: Tensor) -> Tensor:
        return loss(outputs if readout is None else readout(outputs), target[steps])

    return score


def origin_steps(subject: DiagnosedLayer, origins: Sequence[int] | None) -> list[Tensor]:
    """The step `[B]` of each origin, -1 in rows that end before it."""
    if origins is None:
        return [subject.lengths - 1]
    found = [torch.where(subject.lengths > step, step, -1) for step in origins]
    if not found or any(step < 0 or bool((at < 0).all()) for step, at in zip(origins, found, strict=True)):
        raise ArgumentError(
            f"origins must be one or more steps from 0 to {int(subject.lengths.max()) - 1}, got {list(origins)}"
        )
    return found
