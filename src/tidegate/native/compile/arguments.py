"""The arguments of a kernel, by name, and the memory that it works in.

A kernel is called with one pointer to an array of 64-bit integers: numbers and addresses, in the order of a `Frame`.
`step.begin.h` is 1 if `begin.h` has a row for each batch row, and 0 if all share one row; likewise for the gradients of
final states.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from tidegate.equations.values import Rate, Size, Value
from tidegate.native.compile.plan import BLOCK_VECTORS, KernelPlan, MatrixCall, Stage, StepLoop

Pass = Literal["forward", "backward"]
NUMBERS: tuple[str, ...] = ("threads", "hidden", "T", "B", "fresh.step", "packed", "keeping", "count", "block.count")
NUMBERS += ("chunk", "ld.products", "ld.scratch")
TABLES = ("flags", "rows", "lens", "place", "fresh", "valid", "blocks")
PAST_CACHES = 2  # value of `keeping`: saved values that are aligned to vectors bypass the caches
PAD = 16  # elements between rows of working memory, so that rows map to different cache sets


@dataclass(frozen=True)
class Span:
    """Adjacent columns of the left factors that are multiplied by one right factor."""

    vector: Value
    columns: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CallShape:
    """The sizes of a call.

    Inputs are multiplied for `chunk` steps at once, before the recurrence, and their gradients are computed after it;
    0 is step by step.
    """

    T: int
    B: int
    threads: int
    hidden: bool
    sizes: Mapping[str, int]
    lanes: int
    chunk: int = 0

    def number(self, size: Size) -> int:
        """A size in elements."""
        return sum(p if isinstance(p, int) else self.letter(p) for p in size)

    def letter(self, letters: str) -> int:
        """A size letter, or a sum of letters, as a number."""
        return sum(1 if part == "1" else self.sizes[part] for part in letters.split("+"))


class Frame:
    """The names of a kernel's arguments, in order.

    Working memory comes last: each array is given as its offset in bytes from `flags`, where that memory begins.
    """

    def __init__(self, names: Iterable[str], working: Iterable[str]) -> None:
        self.working = tuple(dict.fromkeys(working))
        self.names = (*dict.fromkeys(names), *self.working)
        self.index = {name: k for k, name in enumerate(self.names)}


def spans(plan: KernelPlan) -> list[Span]:
    """The products that give the matrices' gradients: for each right factor its runs of adjacent left factors."""
    place = {d: k for k, d in enumerate(plan.columns)}
    found: list[Span] = []
    for vector in dict.fromkeys(g.vector for g in plan.gradients):
        columns = sorted({place[g.d] for g in plan.gradients if g.vector is vector})
        breaks = [0, *(k + 1 for k, (a, b) in enumerate(pairwise(columns)) if b != a + 1), len(columns)]
        found += [Span(vector, tuple(columns[a:b])) for a, b in pairwise(breaks)]
    return found


def frame_of(plan: KernelPlan, direction: Pass) -> Frame:
    """The arguments of a cell's forward or backward kernel."""
    graph = plan.graph
    inputs = [i.name for i in graph.inputs]
    moving = [i.name for i in graph.inputs if i.rate != Rate.SEQUENCE]
    states = [s.name for s in graph.states]
    names = [*NUMBERS, *TABLES, *(f"size.{x}" for x in graph.letters)]
    names += [f"weights.{k}" for k in range(len(plan.fixed))]
    names += [f"input.{n}" for n in inputs] + [f"ld.input.{n}" for n in moving] + ["output", "ld.output"]
    names += [f"{kind}.{n}" for kind in ("begin", "step.begin", "start", "end", "step.end", "history") for n in states]
    names += [f"keep.{k}" for k in range(len(plan.stored))]
    if direction == "backward":
        names += [f"{kind}_gradient.{n}" for kind in ("begin", "start") for n in states]
        names += [f"gradient.{n}" for n in inputs] + [f"ld.gradient.{n}" for n in moving]
        names += ["dz", *(f"vector.{k}" for k in range(len(plan.vectors)))]
        names += [f"sum.{k}" for k in range(len(plan.sums))]
        names += [f"{kind}.{k}" for k in range(len(spans(plan))) for kind in ("matrix", "bias")]
    smallest = CallShape(1, 1, 1, False, dict.fromkeys(graph.letters, 1), 1)
    return Frame(names, work_sizes(plan, direction, smallest, 1))


def loop_of(plan: KernelPlan, direction: Pass) -> StepLoop:
    """The step that the pass repeats."""
    return plan.forward if direction == "forward" else plan.backward


def right_factors(plan: KernelPlan) -> list[Value]:
    """The vectors of the matrices' gradients, each once."""
    return list(dict.fromkeys(g.vector for g in plan.gradients))


def padded(numbers: int) -> int:
    """The leading dimension of rows of working memory."""
    return -(-numbers // PAD) * PAD + PAD


def column_offsets(plan: KernelPlan, shape: CallShape) -> list[int]:
    """The offset of each left factor in a row of `dz`; the last item is the row's leading dimension."""
    offsets = [0]
    for d in plan.columns:
        offsets.append(offsets[-1] + -(-shape.number(d.size) // PAD) * PAD)
    return [*offsets[:-1], offsets[-1] + PAD]


def most_panels(slots: int) -> int:
    """The most panels computed side by side in a stage with this many products."""
    return {1: BLOCK_VECTORS, 2: BLOCK_VECTORS // 2}.get(slots, 1)


def work_sizes(plan: KernelPlan, direction: Pass, shape: CallShape, scratch: int) -> dict[str, int]:
    """Elements of each working array; `scratch` is for one thread's gradients of matrices."""
    loop = loop_of(plan, direction)
    B, threads = max(shape.B, 1), shape.threads
    found = {f"carry.{s.name}": 2 * threads * B * padded(shape.number(s.size)) for s in plan.graph.states}
    for home in loop.homes.values():
        if home.where in ("row", "private"):
            copies = threads if home.where == "private" else 1
            found[f"{home.where}.{home.name}"] = copies * B * padded(shape.number(home.size))
    together = max(shape.chunk, 1) * B
    for k, value in enumerate(loop.gathered):
        found[f"gather.{k}"] = threads * together * padded(shape.number(value.size))
    for s, stage in enumerate(loop.stages):
        for c, call in enumerate(stage.calls):
            found[f"packed.{s}.{c}"] = _packed(stage, len(call.matrices), shape, shape.number(call.vector.size))
    found |= {f"early.{s}": _early(stage, shape) for s, stage in enumerate(loop.stages) if early_calls(stage, loop)}
    widest = max((len(s.linears) * most_panels(len(s.linears)) for s in loop.stages if s.linears), default=1)
    late = together if direction == "backward" else B
    found["products"] = threads * max(late, 2 * BLOCK_VECTORS) * widest * shape.lanes
    found["pointers"] = _as_numbers(threads * together)
    if direction == "backward":
        found["columns"] = _as_numbers(shape.T * shape.B)
        found |= {f"factors.{k}": _as_numbers(shape.T * shape.B) for k in range(len(right_factors(plan)))}
        found["scratch"] = threads * scratch
    return found


def early_calls(stage: Stage, loop: StepLoop) -> list[MatrixCall]:
    """The leading products of a stage that multiply inputs, so they can be computed before the recurrence."""
    if stage.only_for is not None:
        return []
    gathered = set(loop.gathered)
    return [c for c in stage.calls if c.fresh and c.vector in gathered and loop.homes[c.vector].where == "input"]


def _early(stage: Stage, shape: CallShape) -> int:
    """Elements that all threads need for a stage's products of a chunk of inputs."""
    panels = -(-shape.number(stage.size) // shape.lanes)
    side = _most_side_by_side(panels, shape.threads if shape.hidden else 1, len(stage.linears))
    side *= 1 if shape.hidden else shape.threads
    return side * len(stage.linears) * shape.lanes * shape.chunk * max(shape.B, 1)


def _most_side_by_side(panels: int, parts: int, slots: int) -> int:
    """The most panels in all blocks of all parts: the actual team may be smaller than requested."""
    cuts = [(part, *blocking(panels, part, slots)) for part in range(1, parts + 1)]
    return max(part * side * blocks for part, side, blocks in cuts)


def _as_numbers(integers: int) -> int:
    """How many numbers hold so many 64-bit integers: a number may be half as wide."""
    return 2 * max(integers, 1)


def _packed(stage: Stage, matrices: int, shape: CallShape, depth: int) -> int:
    panels = -(-shape.number(stage.size) // shape.lanes)
    parts = shape.threads if shape.hidden else 1
    return _most_side_by_side(panels, parts, len(stage.linears)) * depth * matrices * shape.lanes


def blocking(panels: int, parts: int, slots: int) -> tuple[int, int]:
    """Panels side by side in a block, and the most blocks in each part of the panels."""
    mine = -(-panels // parts)
    blocks = -(-mine // most_panels(slots))
    return -(-mine // max(blocks, 1)), blocks
