"""Time and memory of a rule for a layer, computed without running it."""

from dataclasses import dataclass

from torch import nn

from tidegate.errors import ArgumentError
from tidegate.gradients.cost import Cost, kept
from tidegate.gradients.forward_rules import Forward
from tidegate.gradients.influence.engine import InfluenceEngine
from tidegate.gradients.rules import BPTT, Rule, TruncatedBPTT
from tidegate.nn.flatten import FlattenedLayer
from tidegate.nn.operations import operations
from tidegate.runtime.kernel_inputs import KernelInputs


@dataclass(frozen=True)
class Costs:
    """What a rule needs for a layer, for all rows of a batch.

    `trackers` are the parts of a forward rule's memory; backward rules have none. `size` is bytes per element. `kept`
    are the bytes carried from step to step, including states; for backward rules, the saved activations of the steps
    in reach, on native kernels. `most` is the peak of bytes during a run. `flops` are the operations of a step, forward
    and gradient together, without computing the elements of Jacobians. `calls` is the approximate number of torch
    operations in the recursion of a single step, as in a stream; each takes microseconds, which dominates in small
    nets. Backward rules have none.
    """

    rule: str
    trackers: tuple[Cost, ...]
    size: int
    kept: int
    most: int
    flops: int
    calls: int


def costs(layer: nn.Module, rule: Rule, *, batch: int = 1, steps: int = 100) -> Costs:
    """The costs of a rule for a layer, `rows` batch rows, and sequences of `steps` steps.

    The layer may be on the device "meta", where its weights take no memory. Raises ArgumentError for a layer or a
    cell that the rule does not support.
    """
    if isinstance(rule, Forward):
        return _forwards(layer, rule, batch, steps)
    if isinstance(rule, TruncatedBPTT):
        return _backwards(layer, rule, batch, min(steps, rule.k2), rule.k2 / rule.k1)
    if isinstance(rule, BPTT) and rule.checkpoint is None:
        return _backwards(layer, rule, batch, steps, 1.0)
    raise ArgumentError(f"rule must be a rule of tidegate.gradients such as RTRL() or BPTT(), got {rule}")


def _forwards(layer: nn.Module, rule: Forward, rows: int, steps: int) -> Costs:
    engine = InfluenceEngine(layer, rule)
    trackers, size = tuple(engine.plan.costs(rows)), _size(layer)
    states = rows * sum(engine.widths)
    recursion = sum(t.flops for t in trackers)
    return Costs(
        rule=str(rule),
        trackers=trackers,
        size=size,
        kept=size * (kept(trackers) + states),
        most=size * (engine.plan.most(steps, rows) + states),
        flops=_step(engine.flat, rows) + recursion,
        calls=sum(t.calls for t in trackers),
    )


def _backwards(layer: nn.Module, rule: Rule, rows: int, steps: int, runs: float) -> Costs:
    """The costs of a backward rule; each run of a step multiplies forward, for the states and for the weights."""
    flat = FlattenedLayer(layer)
    size = _size(layer)
    activations = size * rows * steps * KernelInputs(flat.graph, flat.sizes).saved_width
    return Costs(str(rule), (), size, activations, activations, round(3 * runs * _step(flat, rows)), 0)


def _step(flat: FlattenedLayer, rows: int) -> int:
    """The operations of a forward step."""
    found = operations(flat.graph, flat.sizes)
    return rows * (found.products + found.others)


def _size(layer: nn.Module) -> int:
    return next(layer.parameters()).element_size()
