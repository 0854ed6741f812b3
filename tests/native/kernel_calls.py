"""Kernels called by hand: each array in memory of its own, between pages that nobody may touch.

What a kernel is given lies in pages that can only be read. What it fills, and each piece of its working memory, holds
NaN before, as do the rest of its pages, which must be found as they were.
"""

import ctypes
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from catalogue import HARD
from native_calls import LIBC
from tidegate.cells import CELLS
from tidegate.equations import Cell, Graph
from tidegate.equations.values import Rate
from tidegate.native import _llvm
from tidegate.native.compile.arguments import CallShape, Pass, work_sizes
from tidegate.native.run.gradient_layout import backward_arrays, gradient_layout, saved_arrays
from tidegate.native.run.kernel import FLAG_BYTES, Kernel
from tidegate.native.run.row_order import fresh_starts, ragged, whole
from tidegate.native.target import TARGETS, DType
from tidegate.reference import bound, weight_shape
from tidegate.reference.unroll import ReferenceUnroll, UnrollArguments
from tidegate.runtime.kernel_inputs import KernelInputs

Array = np.ndarray
Side = Literal["begin", "end"]
READ, BYTE = 1, 0xFF  # NaN in floating point, -1 in whole numbers
TOUCHED = 3.25  # in what is written only in part, before
LETTERS = {"H": 7, "I": 3, "P": 5, "N": 6, "S": 9, "R": 2, "G": 1}
TELLING: dict[str, Cell] = {  # each needs something that the others do not
    "lstm": CELLS["lstm"],
    "gru": CELLS["gru"],  # two stages with a barrier between
    "gru_reset_after": CELLS["gru_reset_after"],
    "elman": CELLS["elman"],
    "projection": CELLS["lstm_projection"](peepholes=True),  # states of two sizes, a stage for each
    "layer_norm": CELLS["lstm_layer_norm"],  # sums over units
    "slstm": CELLS["slstm"],  # blocks, a start that is not zero
    "qrnn": HARD["qrnn"](delay=2),  # a delay line of states
    "lru": CELLS["lru"],  # nothing but two diagonals, and an output of its own
    "scrn": HARD["scrn"],  # an output of two sizes side by side
    "phased": HARD["lstm_phased"],  # scalars
    "gru_d": HARD["gru_d"],  # three inputs, a state as wide as one
    "gated_feedback": HARD["gated_feedback"],  # gates of one unit
    "recurrent_highway": HARD["recurrent_highway"],  # five stages
}


# memory


class Memory:
    """Arrays that lie flush with the end or the beginning of their pages, where memory ends."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.arrays: dict[str, tuple[Array, Array]] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of NaN."""
        page, size = mmap.PAGESIZE, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        pages = max(1, -(-size // page))
        memory = mmap.mmap(-1, (pages + 2) * page)
        for number in (0, pages + 1):
            _protect(np.frombuffer(memory, np.uint8)[number * page :][:page], 0)
        inner = np.frombuffer(memory, np.uint8, pages * page, page)
        inner[:] = BYTE
        begin = len(inner) - size if self.side == "end" else 0
        array, rest = inner[begin : begin + size], inner[:begin] if begin else inner[size:]
        self.arrays[name] = array, rest
        return array.view(dtype).reshape(shape)

    def given(self, name: str, numbers: Array) -> Array:
        """A copy that can only be read."""
        array = self.allocate(name, numbers.shape, numbers.dtype)
        array[...] = numbers
        inner = self.arrays[name][1].base
        _protect(np.asarray(inner), READ)
        return array

    def intact(self) -> bool:
        """Whether nothing beside the arrays was written."""
        return all(np.all(rest == BYTE) for _, rest in self.arrays.values())


def _protect(pages: Array, access: int) -> None:
    start, size = ctypes.c_void_p(pages.ctypes.data), ctypes.c_size_t(pages.nbytes)
    assert LIBC.mprotect(start, size, access) == 0


# problems


@dataclass(frozen=True, eq=False)
class Problem:
    """A cell with numbers: what comes in, and the gradients of what comes out. In the padding lies NaN."""

    graph: Graph
    sizes: Mapping[str, int]
    dtype: DType
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    state: dict[str, Tensor]
    start: dict[str, Tensor]
    output_gradient: Tensor
    end_gradients: dict[str, Tensor]
    lengths: Tensor | None
    reset: Tensor | None
    backwards: bool

    @property
    def moving(self) -> list[str]:
        """The inputs that come anew at each step."""
        return [i.name for i in self.graph.inputs if i.rate == Rate.INPUT]

    @property
    def indices(self) -> bool:
        """Whether the first input comes as indices of one-hots."""
        return not self.inputs[self.graph.inputs[0].name].is_floating_point()

    @property
    def padded(self) -> Array:
        """The steps and rows `[T, B]` after a row's end."""
        T, B = self.output_gradient.shape[:2]
        lengths = torch.full((B,), T) if self.lengths is None else self.lengths
        return (torch.arange(T)[:, None] >= lengths).numpy()

    def rows(self, chosen: list[int]) -> "Problem":
        """The same with some of the rows only."""

        def pick(x: Tensor, dim: int) -> Tensor:
            return x.index_select(dim, torch.tensor(chosen))

        return replace(
            self,
            inputs={n: pick(x, int(n in self.moving)) for n, x in self.inputs.items()},
            state={n: pick(x, 0) for n, x in self.state.items()},
            output_gradient=pick(self.output_gradient, 1),
            end_gradients={n: pick(x, 0) for n, x in self.end_gradients.items()},
            lengths=None if self.lengths is None else pick(self.lengths, 0),
            reset=None if self.reset is None else pick(self.reset, 1),
        )


def problem(
    graph: Graph,
    T: int,
    B: int,
    *,
    H: int = 7,
    I: int = 3,  # noqa: E741
    dtype: DType = "float64",
    sizes: Mapping[str, int] | None = None,
    lengths: bool = False,
    reset: bool = False,
    backwards: bool = False,
    indices: bool = False,
    alike: bool = False,
    seed: int = 0,
) -> Problem:
    """Random numbers for a cell; `lengths` has zeros among them. `alike`: all rows begin and end with the same ones."""
    chance = torch.Generator().manual_seed(seed)
    bind = sizes or {**LETTERS, "H": -(-H // 4) * 4 if graph.name == "slstm" else H, "I": I}
    bind = {letter: bind[letter] for letter in graph.letters}

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=chance, dtype=torch.float64)).to(getattr(torch, dtype))

    weights = {n: normal(*weight_shape(w, bind), scale=1.2 / H**0.5) for n, w in graph.weights.items()}
    inputs = {
        i.name: normal(*((B,) if i.rate == Rate.SEQUENCE else (T, B)), *bound(i.size, bind)) for i in graph.inputs
    }
    rows = 1 if alike else B
    state = {s.name: normal(rows, *bound(s.size, bind)) for s in graph.states}
    start = {s.name: normal(1, *bound(s.size, bind)) for s in graph.states}
    for positive in [weights.get("tau"), *(x for d in (state, start) if graph.name == "slstm" for x in [d["n"]])]:
        if positive is not None:
            positive.abs_().add_(0.5)
    ends = torch.randint(0, T + 1, (B,), generator=chance) if lengths else None
    if ends is not None and B > 2:
        ends[:2] = torch.tensor([0, T])
    flags = (torch.rand(T, B, generator=chance) < 0.3) if reset else None
    made = Problem(
        graph,
        bind,
        dtype,
        weights,
        inputs,
        {n: s.expand(B, -1) for n, s in state.items()},
        start,
        normal(T, B, *bound(graph.output_size, bind)),
        {n: normal(*s.shape).expand(B, -1) for n, s in state.items()},
        ends,
        flags,
        backwards,
    )
    if indices:
        size = bound(graph.inputs[0].size, bind)[0]
        inputs[graph.inputs[0].name] = torch.randint(0, size, (T, B), generator=chance)
    if ends is not None:
        padding = torch.from_numpy(made.padded)
        for x in (*(inputs[n] for n in made.moving), made.output_gradient):
            x[padding] = torch.nan if x.is_floating_point() else -1
    return made


# what comes out


@dataclass(frozen=True, eq=False)
class Found:
    """Values and gradients, under the names of what they are or belong to."""

    values: dict[str, Tensor]
    gradients: dict[str, Tensor] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, Tensor]:
        """Both, gradients as `d x`."""
        return self.values | {f"d {n}": g for n, g in self.gradients.items()}

    def differing(self, other: "Found", names: Iterable[str] | None = None) -> list[str]:
        """Whose bits differ."""
        mine, theirs = self.all, other.all
        assert mine.keys() == theirs.keys()
        return [n for n in (mine if names is None else names) if not _same_bits(mine[n], theirs[n])]

    def far(self, expected: "Found", tolerance: float) -> dict[str, float]:
        """What is not as expected, and how far off it is, relative to the largest number that is expected there.

        Where sums all but cancel that is not asked: then a thousandth of the largest of all numbers takes its place.
        """
        mine, theirs = self.all, expected.all
        assert mine.keys() == theirs.keys()
        least = 1e-3 * max(_largest(x) for x in theirs.values())
        far = {n: _distance(mine[n].double(), theirs[n], least) for n in mine}
        return {n: distance for n, distance in far.items() if not distance <= tolerance}

    def of_rows(self, p: Problem, chosen: list[int]) -> "Found":
        """What belongs to some of the rows."""
        steps = {"output", *(f"input {n}" for n in p.moving)}

        def picked(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
            own = {n: x for n, x in group.items() if n.split()[0] in ("output", "end", "input", "begin")}
            return {n: x[:, chosen] if n in steps else x[chosen] for n, x in own.items()}

        return Found(picked(self.values), picked(self.gradients))


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def _largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def _distance(a: Tensor, b: Tensor, least: float) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max()) / max(_largest(b), least, 1e-30) if a.numel() else 0.0


def reference(p: Problem) -> Found:
    """By torch's own operations, in float64."""
    groups = [p.weights, p.inputs, p.state, p.start]
    weights, inputs, state, start = ({n: x.to(torch.float64, copy=True) for n, x in g.items()} for g in groups)
    first = p.graph.inputs[0].name
    padding = torch.from_numpy(p.padded)
    if p.indices:
        size = bound(p.graph.inputs[0].size, p.sizes)[0]
        inputs[first] = torch.nn.functional.one_hot(p.inputs[first].clamp(min=0), size).double()
    for n in p.moving:
        inputs[n] = inputs[n].masked_fill(padding[..., None], 0.0)
    leaves = [x for group in (weights, inputs, state, start) for x in group.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    lengths = p.lengths
    reset = None if p.reset is None else p.reset & ~padding
    given = UnrollArguments(weights, inputs, state, start, lengths, reset, p.backwards)
    y, ends = ReferenceUnroll(p.graph, p.sizes)(given)
    output_gradient = p.output_gradient.double().masked_fill(padding[..., None], 0.0)
    loss = (y * output_gradient).sum() + sum((ends[n] * p.end_gradients[n].double()).sum() for n in ends)
    if loss.requires_grad:
        loss.backward()

    def gradients(kind: str, group: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{kind} {n}": torch.zeros_like(x) if x.grad is None else x.grad for n, x in group.items()}

    floating = {n: x for n, x in inputs.items() if not (p.indices and n == first)}
    found = gradients("weight", weights) | gradients("input", floating) | gradients("begin", state)
    if p.reset is not None:
        found |= gradients("start", start)
    return Found({"output": y.detach(), **{f"end {n}": e.detach() for n, e in ends.items()}}, found)


# kernels


@dataclass(frozen=True)
class Way:
    """How a call is divided: among threads that share rows or (`hidden`) units, and into chunks of steps."""

    threads: int = 1
    hidden: bool = False
    chunk: int = 0


@lru_cache(maxsize=256)
def kernel(graph: Graph, target: str, dtype: DType, *, indices: bool = False) -> Kernel:
    """A cell's kernels for a target that this processor has; elsewhere the test is skipped."""
    if missing := TARGETS[target].missing(_llvm.host_features()):
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    return Kernel(graph, dtype, TARGETS[target], indices=indices)


class Run:
    """One problem on a kernel: `forward`, then `backward`. `gap` numbers lie between the rows of what moves.

    `team` is the number of threads that there were in the last call.
    """

    def __init__(self, kernel: Kernel, p: Problem, way: Way, side: Side = "end", gap: int = 0) -> None:
        self.kernel, self.p, self.way, self.gap = kernel, p, way, gap
        self.memory = Memory(side)
        self.T, self.B = p.output_gradient.shape[:2]
        self.shape = CallShape(self.T, self.B, way.threads, way.hidden, p.sizes, kernel.lanes, way.chunk)
        self.recipe = KernelInputs(p.graph, p.sizes, indices=p.indices)
        self.weights = {n: w.clone().requires_grad_() for n, w in p.weights.items()}
        self.fixed = self.recipe.fixed(self.weights)
        self.given, self.kept = self._given(), self._kept()

    # arguments

    def _given(self) -> dict[str, Array | int]:
        p, memory = self.p, self.memory
        lengths, reset = (None if x is None else x.numpy() for x in (p.lengths, p.reset))
        self.tables = (
            whole(self.T, self.B, p.backwards) if lengths is None else ragged(lengths, self.shape, p.backwards)
        )
        fresh = np.zeros(1, np.uint8) if reset is None else fresh_starts(reset, self.tables, p.backwards)
        found: dict[str, Array | int] = {
            name: memory.given(name, getattr(self.tables, name))
            for name in ("rows", "lens", "place", "valid", "blocks")
        }
        found |= {"fresh": memory.given("fresh", fresh), "fresh.step": int(reset is not None)}
        found |= {"count": len(self.tables.valid), "block.count": len(self.tables.blocks)}
        for k, w in enumerate(self.fixed):
            found[f"weights.{k}"] = memory.given(f"weights.{k}", w.detach().contiguous().numpy())
        for n, x in p.inputs.items():
            if n in p.moving:
                self._evenly(found, f"input.{n}", x.numpy(), x.shape[2] if x.dim() == 3 else 1, given=True)
            else:
                found[f"input.{n}"] = memory.given(f"input.{n}", x.numpy())
        for kind, group in (("begin", p.state), ("start", p.start)):
            self._each_row(found, kind, group)
        return found

    def _each_row(self, found: dict[str, Any], kind: str, group: Mapping[str, Tensor]) -> None:
        """A row for each row of the batch, or one for all."""
        for n, x in group.items():
            shared = x.stride(0) == 0
            found[f"{kind}.{n}"] = self.memory.given(f"{kind} given {n}", (x[:1] if shared else x).numpy())
            found[f"step.{kind}.{n}"] = int(not shared)

    def _evenly(self, found: dict[str, Any], name: str, numbers: Array, width: int, *, given: bool) -> None:
        """Rows with a gap between them, of NaN; the last one ends where memory ends."""
        rows, ld = self.T * self.B, width + self.gap
        flat = np.full(max(rows * ld - self.gap, 0), np.nan if numbers.dtype.kind == "f" else -1, numbers.dtype)
        evenly(flat, rows, width, ld)[...] = numbers.reshape(rows, width)
        if given:
            found[name] = self.memory.given(name, flat)
        else:
            found[name] = self.memory.allocate(name, flat.shape, flat.dtype)
            found[name][...] = flat
        found[f"ld.{name}"] = ld

    def _kept(self) -> dict[str, Array]:
        arrays, _ = saved_arrays(self.kernel.plan, self.shape)
        widths = {f"history.{s.name}": s.size for s in self.p.graph.states}
        widths |= {f"keep.{k}": v.size for k, v in enumerate(self.kernel.plan.stored)}
        return {n: self._allocate(n, self.T, self.B, self.shape.number(widths[n])) for n, _ in arrays}

    def _allocate(self, name: str, *shape: int) -> Array:
        return self.memory.allocate(name, shape, self.kernel.dtype)

    def _call(self, direction: Pass, given: Mapping[str, Array | int], before: Mapping[str, Array] | None) -> None:
        """Run a kernel in working memory of separate pieces, new ones or those of a call before."""
        frame = self.kernel.frames[direction]
        words = {n: v.ctypes.data if isinstance(v, np.ndarray) else v for n, v in given.items()}
        bound_call = self.kernel.bind(
            direction, self.shape, {n: v for n, v in words.items() if n in frame.index}, own=True
        )
        scratch = bound_call.arguments[frame.index["ld.scratch"]]
        sizes = work_sizes(self.kernel.plan, direction, self.shape, scratch)
        if before is None:
            self.work = {n: self._allocate(f"{direction} {n}", size) for n, size in sizes.items() if n in frame.index}
        flags = self.memory.allocate(f"{direction} flags", (FLAG_BYTES * self.way.threads,), np.uint8)
        flags[:] = 0
        base = bound_call.arguments[frame.index["flags"]] = flags.ctypes.data
        for name, piece in self.work.items():
            bound_call.arguments[frame.index[name]] = piece.ctypes.data - base
        bound_call()
        self.team = max(1, int(flags.reshape(self.way.threads, FLAG_BYTES).any(axis=1).sum()))
        assert self.memory.intact(), f"the {direction} kernel wrote beside its arrays"

    # the passes

    def forward(self, *, keeping: int = 1, packed: Mapping[str, Array] | None = None) -> Found:
        """The output, zero where padded, and each row's state at its end; `packed` is working memory with weights."""
        given = {**self.given, **self.kept, "keeping": keeping, "packed": int(packed is not None)}
        width = self.recipe.width
        self._evenly(given, "output", np.full((self.T, self.B, width), TOUCHED, self.kernel.dtype), width, given=False)
        ends = {f"end.{n}": self._allocate(f"end.{n}", *x.shape) for n, x in self.p.state.items()}
        self._call("forward", given | ends, packed)
        y = self._moved(given["output"], width)
        return Found({"output": y, **{n.replace(".", " "): torch.from_numpy(e.copy()) for n, e in ends.items()}})

    def _moved(self, flat: Any, width: int) -> Tensor:
        """What was written to rows with gaps; the gaps and the padding are as they were."""
        ld, rows = width + self.gap, self.T * self.B
        found = evenly(flat, rows, width, ld).reshape(self.T, self.B, width).copy()
        gaps = np.ones(flat.shape, bool)
        evenly(gaps, rows, width, ld)[...] = False
        assert np.isnan(flat[gaps]).all(), "a gap between rows was written to"
        assert (found[self.p.padded] == TOUCHED).all(), "what lies after a row's end was written to"
        found[self.p.padded] = 0.0
        return torch.from_numpy(found)

    def backward(self, without: Iterable[str] = ()) -> Found:
        """The gradients, but for those of some inputs that are not asked for."""
        plan, shape, p = self.kernel.plan, self.shape, self.p
        given: dict[str, Any] = {**self.given, **self.kept}
        width = self.recipe.width
        self._evenly(given, "output", p.output_gradient.numpy(), width, given=True)
        self._each_row(given, "end", p.end_gradients)
        first = p.graph.inputs[0].name if p.indices else None
        wanted = [n for n in p.inputs if n not in without and n != first]
        for n in wanted:
            self._input_gradient(given, n)
        begins = {f"begin_gradient.{n}": self._allocate(f"begin_gradient.{n}", *x.shape) for n, x in p.state.items()}
        rows = [(f"start_gradient.{n}", x.shape[1]) for n, x in p.state.items() if p.reset is not None]
        laid = gradient_layout(plan, shape)
        sums = {n: self._allocate(n, self.B, size) for n, size in [*rows, *laid.sums]}
        stops = [begin for _, begin in laid.arrays[1:]] + [laid.total]
        flat = {n: self._allocate(n, stop - begin) for (n, begin), stop in zip(laid.arrays, stops, strict=True)}
        for array in (*sums.values(), *flat.values()):
            array[...] = 0
        vectors = {f"vector.{k}": shape.number(v.size) for k, v in enumerate(plan.vectors)}
        arrays, total = backward_arrays(plan, shape)
        row = (total - dict(arrays)["dz"]) // (self.T * self.B)
        passing = {n: self._allocate(n, self.T, self.B, size) for n, size in {**vectors, "dz": row}.items()}
        self._call("backward", given | begins | sums | flat | passing, None)
        slots = slice(None) if self.tables.slots is None else self.tables.slots
        summed = {n: torch.from_numpy(np.add.reduce(a[slots], axis=0)) for n, a in sums.items()}
        found = self._of_weights(np.concatenate([*flat.values(), np.zeros(0, self.kernel.dtype)]), summed)
        for n in wanted:
            array = given[f"gradient.{n}"]
            found[f"input {n}"] = (
                self._moved(array, p.inputs[n].shape[2]) if n in p.moving else torch.from_numpy(array.copy())
            )
        found |= {f"begin {n}": torch.from_numpy(begins[f"begin_gradient.{n}"].copy()) for n in p.state}
        if p.reset is not None:
            found |= {f"start {n}": summed[f"start_gradient.{n}"][None] for n in p.state}
        return Found({}, found)

    def _input_gradient(self, given: dict[str, Any], n: str) -> None:
        x, flowing = self.p.inputs[n], n in {s.only_for for s in self.kernel.plan.backward.stages}
        if n in self.p.moving:
            before = np.full(tuple(x.shape), TOUCHED if flowing else 0.0, self.kernel.dtype)
            before[self.p.padded] = TOUCHED
            self._evenly(given, f"gradient.{n}", before, x.shape[2], given=False)
        else:
            given[f"gradient.{n}"] = self._allocate(f"gradient.{n}", *x.shape)
            given[f"gradient.{n}"][...] = 0

    def _of_weights(self, flat: Array, summed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights' gradients, from those of what the kernel is given of weights."""
        pieces, array = gradient_layout(self.kernel.plan, self.shape).pieces, torch.from_numpy(flat)
        ends, of_ends = [], []
        for value, own in zip(self.fixed, pieces, strict=False):
            for piece in own if value.requires_grad else ():
                part = summed.get(f"sum.{piece.begin}") if piece.kind == "sum" else None
                ends.append(value)
                of_ends.append(array.as_strided(piece.size, piece.strides, piece.begin) if part is None else part)
        leaves = list(self.weights.values())
        found = torch.autograd.grad(ends, leaves, of_ends, allow_unused=True) if ends else [None] * len(leaves)
        return {
            f"weight {n}": torch.zeros_like(w) if g is None else g
            for (n, w), g in zip(self.weights.items(), found, strict=True)
        }


def evenly(flat: Array, rows: int, width: int, ld: int) -> Array:
    """Rows of a flat array, so many numbers apart."""
    return np.lib.stride_tricks.as_strided(flat, (rows, width), (ld * flat.itemsize, flat.itemsize))


def run(kernel: Kernel, p: Problem, way: Way, side: Side = "end", gap: int = 0) -> Found:
    """Values and gradients by the kernels."""
    both = Run(kernel, p, way, side, gap)
    values = both.forward()
    return Found(values.values, both.backward().gradients)
