"""Time and memory of a rule for a layer, known without running it."""

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

    `trackers` are the parts of what a forward rule carries on; a rule that goes back has none. `size` is that of a
    number in bytes. `kept` are the bytes that stay from step to step, states among them; going back, the activations of
    the steps that are gone back through, on native kernels. `most` are the bytes while steps are taken. `flops` are the
    operations of a step, forward step and gradient together; what elements of Jacobians take is not counted. `calls`
    is about how many operations of torch the recursion takes for a step that comes alone, as in a stream; each takes
    some microseconds, and in small nets they decide. A rule that goes back has none.
    """

    rule: str
    trackers: tuple[Cost, ...]
    size: int
    kept: int
    most: int
    flops: int
    calls: int


def costs(layer: nn.Module, rule: Rule, *, batch: int = 1, steps: int = 100) -> Costs:
    """What a rule needs for a layer, a batch of so many rows, and sequences of so many steps.

    The layer may be on the device "meta", where its weights take no memory. Raises ArgumentError for a layer or a
    cell that the rule does not work for.
    """
    if isinstance(rule, Forward):
        return _forwards(layer, rule, batch, steps)
    if isinstance(rule, TruncatedBPTT):
        return _backwards(layer, rule, batch, min(steps, rule.k2), rule.k2 / rule.k1)
    if isinstance(rule, BPTT) and rule.checkpoint is None:
        return _backwards(layer, rule, batch, steps, 1.0)
    raise ArgumentError(f"the cost of {rule} is not known: give a rule of tidegate.gradients, such as RTRL() or BPTT()")


def _forwards(layer: nn.Module, rule: Forward, rows: int, steps: int) -> Costs:
    machine = InfluenceEngine(layer, rule)
    trackers, size = tuple(machine.plan.costs(rows)), _size(layer)
    states = rows * sum(machine.widths)
    recursion = sum(t.flops for t in trackers)
    return Costs(
        rule=str(rule),
        trackers=trackers,
        size=size,
        kept=size * (kept(trackers) + states),
        most=size * (machine.plan.most(steps, rows) + states),
        flops=_step(machine.flat, rows) + recursion,
        calls=sum(t.calls for t in trackers),
    )


def _backwards(layer: nn.Module, rule: Rule, rows: int, steps: int, runs: float) -> Costs:
    """Each step is run so many times; a run multiplies forward, for the states and for the weights."""
    flat = FlattenedLayer(layer)
    size = _size(layer)
    activations = size * rows * steps * KernelInputs(flat.graph, flat.sizes).saved_width
    return Costs(str(rule), (), size, activations, activations, round(3 * runs * _step(flat, rows)), 0)


def _step(flat: FlattenedLayer, rows: int) -> int:
    """The operations of a step forward."""
    found = operations(flat.graph, flat.sizes)
    return rows * (found.products + found.others)


def _size(layer: nn.Module) -> int:
    return next(layer.parameters()).element_size()
