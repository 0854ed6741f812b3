"""The costs of a gradient rule as text, for `tidegate explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tidegate.equations import Cell
from tidegate.files import to_json

if TYPE_CHECKING:
    from tidegate.gradients import Costs
    from tidegate.nn import Recurrent

NAMES = 8  # of weights, in one line


@dataclass(frozen=True)
class CostShape:
    """The sizes of a layer and of a run."""

    input_size: int
    hidden_size: int
    layers: int
    batch: int
    steps: int
    dtype: str


def rule_costs(cell: Cell, rule: str, shape: CostShape, as_json: bool) -> str:
    """The costs of a rule, and of back-propagation beside it. Raises ArgumentError where it does not work."""
    from tidegate.gradients import BPTT, costs, rule_from_text

    layer = _layer(cell, shape)
    rules = rule_from_text(rule), BPTT()
    found = [costs(layer, r, batch=shape.batch, steps=shape.steps) for r in rules]
    if as_json:
        return to_json([asdict(c) for c in found], indent=2)
    sizes = {"input": layer.input_size, "unit": shape.hidden_size, "layer": shape.layers}
    sizes |= {"row": shape.batch, "step": shape.steps}
    counts = ", ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in sizes.items())
    return "\n".join([f"{cell.name}, {shape.dtype}: {counts}", "", *_kept(found[0]), *_figures(found)])


def _layer(cell: Cell, shape: CostShape) -> Recurrent:
    """A layer on the meta device."""
    import torch

    from tidegate.nn import Recurrent

    H = shape.hidden_size
    width = H if cell.graph.inputs[0].size == ("H",) else shape.input_size
    more: dict[str, Any] = {letter: H for letter in cell.graph.letters if letter not in ("I", "H")}
    dtype = getattr(torch, shape.dtype)
    return Recurrent(cell, width, H, num_layers=shape.layers, device="meta", dtype=dtype, **more)


def _kept(found: Costs) -> list[str]:
    """What is kept of the influence of each weight, equal ones in one line."""
    from tidegate.gradients.cost import in_units, kept

    lines = []
    for form, why in dict.fromkeys((t.form, t.why) for t in found.trackers):
        alike = [t for t in found.trackers if (t.form, t.why) == (form, why)]
        names = [name for tracker in alike for name in tracker.weights]
        shown = names if len(names) <= NAMES else [*names[: NAMES - 1], f"{len(names) - NAMES + 1} more"]
        each = " for each" if len(alike) > 1 else ""
        lines += [f"{', '.join(shown)}:", f"    {form}{each}; {why}; {in_units(found.size * kept(alike), 'B')}"]
    return [*lines, ""] if lines else []


def _figures(found: Sequence[Costs]) -> list[str]:
    from tidegate.gradients.cost import in_units

    rows = {
        "": [c.rule for c in found],
        "kept": [in_units(c.kept, "B") for c in found],
        "at most while steps are taken": [in_units(c.most, "B") for c in found],
        "operations a step": [in_units(c.flops, "flop") for c in found],
        "calls of torch, a step alone": [str(c.calls) if c.trackers else "-" for c in found],
    }
    return [f"{name:30}" + "".join(f"{text:>14}" for text in texts) for name, texts in rows.items()]
