"""Plans of kernels as plain data: the stages of a cell's step, forward and backward.

A *stage* runs over panels of units: first its products, each a chain of terms into a small buffer, then the pointwise
mathematics. A value that a later stage reads is stored in a row buffer; there is a *barrier* before a stage that reads
what other threads have written. The backward step has the same form: it carries gradients where the forward step
carries states, and reads what that step saved.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, permutations
from types import MappingProxyType
from typing import Literal

from tidegate.calculus import saved_values, vjp
from tidegate.equations.formats.text import expression
from tidegate.equations.graph import Graph
from tidegate.equations.values import SCALAR, Rate, Size, Value, products, show_size
from tidegate.errors import NativeError
from tidegate.native.compile.canonical import bias, canonical, canonical_graph

Where = Literal["input", "sequence", "old", "new", "kept", "output", "gradient", "weights", "row", "private", "dz"]
Kind = Literal["carry", "end", "output", "keep", "input", "sequence", "dz", "vector", "sum"]
ACROSS = ("total", "spread", "part")  # operations that read other units
RECOMPUTED = frozenset({"add", "sub", "mul", "neg", "stop", "clip_gradient", "spread"})  # as fast as reading the result
BLOCK_VECTORS = 4  # vectors of a block, as the products have them
MAX_PERMUTED = 6  # slots up to which all orders are tried


@dataclass(frozen=True, eq=False)
class Home:
    """Where a value is stored: the kind of array, and its `name`."""

    where: Where
    name: str
    size: Size
    before: tuple[str | int, ...] = ()


@dataclass(frozen=True, eq=False)
class MatrixCall:
    """One vector times the matrices of adjacent slots; a matrix may be read transposed."""

    vector: Value
    matrices: tuple[tuple[Value, bool], ...]
    first: int
    fresh: bool


@dataclass(frozen=True, eq=False)
class Write:
    """A value to be written: a new state, the output from unit `before` on, or a saved array."""

    kind: Kind
    name: str
    value: Value
    size: Size
    before: tuple[str | int, ...] = ()


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage, computed panel by panel; with `across`, one value that reads across units, computed row by row."""

    level: int
    size: Size
    linears: tuple[Value, ...] = ()
    calls: tuple[MatrixCall, ...] = ()
    zeroed: tuple[int, ...] = ()
    values: tuple[Value, ...] = ()
    writes: tuple[Write, ...] = ()
    across: Value | None = None
    barrier: bool = False
    only_for: str | None = None


@dataclass(frozen=True, eq=False)
class StepLoop:
    """A step that is repeated over time. `gathered` leaves are copied to contiguous rows before each step."""

    stages: tuple[Stage, ...]
    homes: Mapping[Value, Home]
    gathered: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Gradient:
    """The gradient of a matrix: the sum over rows and steps of `d` times `vector`, transposed."""

    matrix: Value
    d: Value
    vector: Value


@dataclass(frozen=True, eq=False)
class KernelPlan:
    """The plan of a cell's kernels.

    `prologue` are the values of weights that the step reads, whose gradients are returned; `fixed` are all values of
    weights given to the kernels. The forward step saves `stored` values; the backward step writes `columns` (the left
    factors of the matrices' gradients) and `vectors` (right factors not stored elsewhere). `biases` and `sums` are
    gradients of vectors and scalars: those that are columns too, and the others. `index` is an input given as integers
    instead of one-hots: columns of matrices are read instead of products.
    """

    graph: Graph
    prologue: tuple[Value, ...]
    fixed: tuple[Value, ...]
    forward: StepLoop
    backward: StepLoop
    stored: tuple[Value, ...]
    columns: tuple[Value, ...]
    vectors: tuple[Value, ...]
    gradients: tuple[Gradient, ...]
    biases: tuple[tuple[Value, Value], ...]
    sums: tuple[tuple[Value, Value], ...]
    history: tuple[str, ...]
    index: Value | None = None

    def __str__(self) -> str:
        return print_plan(self)


def peeled(matrix: Value, known: Iterable[Value]) -> tuple[Value, bool]:
    """The given matrix that this one is read from, and whether it is transposed."""
    given, turned = set(known), False
    while matrix not in given and matrix.op == "transpose":
        matrix, turned = matrix.args[0], not turned
    return matrix, turned


# values to stages


def _is_leaf(value: Value) -> bool:
    return value.is_leaf or value.rate == Rate.WEIGHTS


def _reads_across(value: Value) -> bool:
    return value.op in ACROSS and not (value.op == "spread" and value.args[0].size == SCALAR)


def _crossing(value: Value) -> tuple[Value, ...]:
    """The operands that must be in memory completely before the value is computed."""
    if value.op == "linear":
        return tuple(v for _, v in products(value))
    return value.args if _reads_across(value) else ()


def _needed(roots: Iterable[Value], known: set[Value]) -> list[Value]:
    found: set[Value] = set()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value in found or value in known or _is_leaf(value):
            continue
        found.add(value)
        if value.op == "linear":
            stack.extend(v for _, v in products(value))
        else:
            stack.extend(value.args)
    return sorted(found, key=lambda v: v.order)


def _levels(values: list[Value], done: Mapping[Value, int]) -> dict[Value, int]:
    levels = dict(done)
    for value in values:
        whole = _crossing(value)
        level = max((levels[a] + 1 for a in whole if a in levels), default=0)
        own = () if value.op == "linear" else value.args
        levels[value] = max([level, *(levels[a] for a in own if a in levels and a not in whole)])
    return levels


@dataclass(eq=False)
class _Draft:
    level: int
    size: Size
    values: list[Value]
    writes: list[Write]
    across: Value | None = None
    only_for: str | None = None

    @property
    def made(self) -> set[Value]:
        """Values computed in this stage."""
        return set(self.values)

    @property
    def read(self) -> set[Value]:
        """Values that are read unit by unit, or written, in this stage."""
        own = {a for v in self.values if v.op != "linear" and self.across is None for a in v.args}
        return own | {w.value for w in self.writes}

    @property
    def rank(self) -> tuple[int, int, bool, bool]:
        return (self.only_for is not None, self.level, self.across is None, self.size != SCALAR)


class _Schedule:
    """Schedules values and writes into stages; `known` values are given."""

    def __init__(self, known: Iterable[Value], fixed: tuple[Value, ...]) -> None:
        self.known, self.fixed = set(known), fixed
        self.levels: dict[Value, int] = {}
        self.drafts: list[_Draft] = []

    def add(self, writes: list[Write], only_for: str | None = None) -> None:
        """Schedule these writes and what they need; values made only for an input's gradient are not shared, since they
        may be skipped."""
        values = [v for v in _needed([w.value for w in writes], self.known) if v not in self.levels]
        levels = _levels(values, self.levels)
        for value in values:
            if _reads_across(value):
                self.drafts.append(_Draft(levels[value], value.size, [value], [], value, only_for))
            else:
                self._draft(levels[value], value.size, only_for).values.append(value)
        for write in writes:
            self._draft_of(write, levels.get(write.value, 0), only_for).writes.append(write)
        if only_for is None:
            self.levels = levels

    def _draft(self, level: int, size: Size, only_for: str | None) -> _Draft:
        for draft in self.drafts:
            if (draft.level, draft.size, draft.only_for) == (level, size, only_for) and draft.across is None:
                return draft
        self.drafts.append(_Draft(level, size, [], [], None, only_for))
        return self.drafts[-1]

    def _draft_of(self, write: Write, level: int, only_for: str | None) -> _Draft:
        """The first stage in which the value is available, of the size that is written."""
        fitting = [d for d in self.drafts if d.across is None and d.size == write.size and d.only_for == only_for]
        late = sorted((d for d in fitting if d.level >= level), key=lambda d: d.level)
        return late[0] if late else self._draft(level, write.size, only_for)

    def stages(self) -> tuple[list[Stage], set[Value]]:
        """The stages in order, and the values that later stages read."""
        self.drafts.sort(key=lambda d: d.rank)
        whole = {a for d in self.drafts for v in d.values for a in _crossing(v)}
        whole |= {v for d in self.drafts for v in d.values if _reads_across(v)}
        homed = self._homed(whole)
        for value in sorted(homed - whole, key=lambda v: -v.order):
            if value.op in RECOMPUTED and self._put_off(value, homed):
                homed = self._homed(whole)
        return [_stage(d, self.fixed) for d in self.drafts], homed

    def _homed(self, whole: set[Value]) -> set[Value]:
        """Values that are read in another stage than the one that computes them, or read across units."""
        made = {v for d in self.drafts for v in d.values}
        return (whole & made).union(*((d.read & made) - d.made for d in self.drafts))

    def _put_off(self, value: Value, homed: set[Value]) -> bool:
        """Move a value to the stages that read it, if that needs no more stored values."""
        users = [d for d in self.drafts if value in d.read and value not in d.made]
        own = next(d for d in self.drafts if value in d.made)
        made = {v for d in self.drafts for v in d.values}
        operands = {a for a in value.args if a in made and a not in homed}
        if len(users) != 1 or len(operands) > (0 if value in own.read else 1):
            return False
        users[0].values = sorted([*users[0].values, value], key=lambda v: v.order)
        if value not in own.read:
            own.values = [v for v in own.values if v is not value]
        return True


def _stage(draft: _Draft, fixed: tuple[Value, ...]) -> Stage:
    linears = [v for v in draft.values if v.op == "linear"]
    order, calls, zeroed = _calls(linears, fixed)
    return Stage(
        draft.level,
        draft.size,
        tuple(order),
        tuple(calls),
        tuple(zeroed),
        tuple(v for v in draft.values if draft.across is None),
        tuple(draft.writes),
        draft.across,
        only_for=draft.only_for,
    )


def _calls(linears: list[Value], fixed: tuple[Value, ...]) -> tuple[list[Value], list[MatrixCall], list[int]]:
    """The linears in an order that puts each vector's matrices side by side where possible, and the products."""
    orders = permutations(linears) if len(linears) <= MAX_PERMUTED else [tuple(linears)]
    order = min(orders, key=lambda o: len(_runs(o)), default=())
    calls: list[MatrixCall] = []
    filled: set[int] = set()
    zeroed: set[int] = set()
    for run in _runs(order):
        slots = set(range(run.first, run.first + len(run.matrices)))
        fresh = not filled & slots
        if not fresh:
            zeroed |= slots - filled
        filled |= slots
        calls.append(MatrixCall(run.vector, tuple(peeled(m, fixed) for m in run.matrices), run.first, fresh))
    return list(order), calls, sorted(zeroed)


@dataclass(eq=False)
class _Run:
    vector: Value
    first: int
    matrices: list[Value]


def _runs(order: Iterable[Value]) -> list[_Run]:
    """For each vector, the runs of adjacent slots that it is multiplied for, none wider than a block."""
    slots: dict[tuple[Value, int], list[tuple[int, Value]]] = {}
    for slot, value in enumerate(order):
        seen: dict[Value, int] = {}
        for matrix, vector in products(value):
            number = seen[vector] = seen.get(vector, -1) + 1
            slots.setdefault((vector, number), []).append((slot, matrix))
    found: list[_Run] = []
    for (vector, _), places in slots.items():
        run = None
        for slot, matrix in places:
            if run is None or slot != run.first + len(run.matrices) or len(run.matrices) == BLOCK_VECTORS:
                run = _Run(vector, slot, [])
                found.append(run)
            run.matrices.append(matrix)
    return found


# barriers


def _with_barriers(stages: list[Stage], homes: Mapping[Value, Home], gathered: Iterable[Value]) -> list[Stage]:
    """Add barriers where a stage reads what other threads wrote since the last one, or writes what they may still read.

    Each thread writes its own units. Carried values have two buffers that alternate from step to step, so three steps
    are simulated. The barrier of an optional stage counts only for stages that are skipped with it.
    """
    found = [False] * len(stages)
    own = set(gathered)
    past: list[tuple[set[object], set[object]]] = []  # what each stage so far read and wrote
    begun: dict[str | None, int] = {}
    for step in range(3):
        for k, stage in enumerate(stages):
            reads = {_shared(homes[v], step) for v in _operands(stage) if v not in own} - {None}
            writes = _written(stage, homes, step) - {None}
            since = past[max(begun.get(None, 0), begun.get(stage.only_for, 0)) :]
            conflict = any(reads & written or writes & read for read, written in since)
            if found[k] or conflict:
                found[k], begun[stage.only_for] = True, len(past)
            past.append((reads, writes))
    return [replace(s, barrier=b) for s, b in zip(stages, found, strict=True)]


def _shared(home: Home, step: int) -> object:
    """The key of memory that threads share; None for private or read-only memory."""
    if home.size == SCALAR:
        return None
    number = {"old": step % 2, "gradient": step % 2, "dz": step, "row": 0}.get(home.where)
    kind = "carry" if home.where in ("old", "gradient") else home.where
    return None if number is None else (kind, home.name, number)


def _written(stage: Stage, homes: Mapping[Value, Home], step: int) -> set[object]:
    rows = {_shared(homes[v], step) for v in stage.values if v in homes and homes[v].where == "row"}
    columns = {_shared(Home("dz", w.name, w.size), step) for w in stage.writes if w.kind == "dz"}
    return rows | columns | {_shared(Home("old", w.name, w.size), step + 1) for w in stage.writes if w.kind == "carry"}


def _operands(stage: Stage) -> list[Value]:
    return [c.vector for c in stage.calls] + (list(stage.across.args) if stage.across is not None else [])


# the two steps


@lru_cache(maxsize=256)
def make_plan(graph: Graph, traced: tuple[str, ...] = (), *, indices: bool = False) -> KernelPlan:
    """Plan the kernels of a cell; `traced` names further values that the forward step saves; with `indices` the first
    input is given as indices of one-hots.

    Raises NativeError for cells that kernels do not support.
    """
    if any(a.op == "concat" for v in graph.values for a in v.args):
        raise NativeError("native kernels support a concatenation only as the output, but an equation reads one")
    back = _backward_of(graph)
    graph = back.graph
    index = graph.input_values[graph.inputs[0].name] if indices else None
    prologue = _of_weights(_needed(graph.roots, set()), graph.roots)
    fixed = tuple(dict.fromkeys([*prologue, *back.of_weights(prologue)]))
    extra = [graph.named[label] for label in traced]
    stored = tuple(dict.fromkeys([*back.stored, *extra]))
    forward = _forward_loop(graph, stored, fixed, index)
    return KernelPlan(
        graph=graph,
        prologue=prologue,
        fixed=fixed,
        forward=forward,
        backward=back.loop(fixed, index),
        stored=stored,
        columns=back.columns,
        vectors=back.vectors,
        gradients=back.gradients,
        biases=back.biases,
        sums=back.sums,
        history=back.history,
        index=index,
    )


def _of_weights(values: Iterable[Value], roots: Iterable[Value]) -> tuple[Value, ...]:
    """The values of weights that these read."""
    read = {a for v in values for a in v.args} | set(roots)
    found = {v for v in read if v.rate == Rate.WEIGHTS and v.op not in ("constant", "count")}
    return tuple(sorted(found, key=lambda v: v.order))


def _forward_loop(graph: Graph, stored: tuple[Value, ...], fixed: tuple[Value, ...], index: Value | None) -> StepLoop:
    writes = [Write("carry", s.name, graph.new[s.name], s.size) for s in graph.states]
    writes += _output_writes(graph)
    writes += [Write("keep", str(k), v, v.size) for k, v in enumerate(stored)]
    given = {v: Home("old", n, _state_size(graph, n)) for n, v in graph.old.items()}
    return _loop(writes, {**given, **_input_homes(graph)}, fixed, {}, index=index)


def _output_writes(graph: Graph) -> list[Write]:
    name, value = graph.output_name, graph.output
    if value.op != "concat":
        return [Write("output", name, value, graph.output_size)]
    sizes = [a.size[0] for a in value.args]
    return [Write("output", name, a, a.size, tuple(sizes[:k])) for k, a in enumerate(value.args)]


def _state_size(graph: Graph, name: str) -> Size:
    return next(s.size for s in graph.states if s.name == name)


def _input_homes(graph: Graph) -> dict[Value, Home]:
    rates = {i.name: i.rate for i in graph.inputs}
    return {
        v: Home("sequence" if rates[n] == Rate.SEQUENCE else "input", n, v.size) for n, v in graph.input_values.items()
    }


class _BackwardPlanner:
    """Plans the backward step of a canonical graph, and what it stores and sums."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        back = vjp(graph)
        self.seeds = back.seeds
        form = canonical(back.roots, fixed=graph.values)
        self.states = {n: form[v] for n, v in back.states.items()}
        self.inputs = {n: form[v] for n, v in back.inputs.items()}
        self.stored = saved_values(graph, back)
        self.new = {v: n for n, v in graph.new.items() if not _is_leaf(v)}
        self.known = {*self.stored, *self.new}
        groups = [(m, tuple(form[c] for c in group)) for m, group in back.weights.items()]
        found = tuple(_gradient(m, c) for m, group in groups if len(m.size) == 2 for c in group)
        self.columns = _columns(found)
        place = {d: k for k, d in enumerate(self.columns)}
        self.gradients = tuple(sorted(found, key=lambda g: place[g.d]))
        plain = [(m, c) for m, group in groups if len(m.size) == 1 for c in group]
        self.biases = tuple((m, c) for m, c in plain if c in place)
        self.sums = tuple((m, c) for m, c in plain if c not in place)
        self.vectors = tuple(
            dict.fromkeys(g.vector for g in found if not _is_leaf(g.vector) and g.vector not in self.known)
        )
        self.roots = [*self.states.values(), *self.inputs.values(), *self.columns, *self.vectors]
        self.roots += [v for _, v in self.sums]
        self.values = _needed(self.roots, self.known)

    @property
    def history(self) -> tuple[str, ...]:
        """The states whose values at all steps the backward pass reads."""
        read = {a for v in self.values for a in v.args} | set(self.roots) | {g.vector for g in self.gradients}
        names = {self.new[v] for v in read if v in self.new} | {v.attrs["name"] for v in read if v.op == "old"}
        return tuple(s.name for s in self.graph.states if s.name in names)

    def of_weights(self, prologue: tuple[Value, ...]) -> tuple[Value, ...]:
        """The values of weights that the backward step reads; matrices as they are given."""
        read = _of_weights(self.values, self.roots)
        return tuple(dict.fromkeys(peeled(v, prologue)[0] if len(v.size) == 2 else v for v in read))

    def loop(self, fixed: tuple[Value, ...], index: Value | None) -> StepLoop:
        """The stages of the backward step: first what is carried, then the inputs' gradients."""
        graph, name = self.graph, self.graph.output_name
        homes = {v: Home("old", n, _state_size(graph, n)) for n, v in graph.old.items()} | _input_homes(graph)
        homes |= {v: Home("new", n, _state_size(graph, n)) for v, n in self.new.items()}
        homes |= {v: Home("kept", str(k), v.size) for k, v in enumerate(self.stored)}
        homes |= {
            s: Home("output" if n.startswith("out.") else "gradient", n[4:], s.size) for n, s in self.seeds.items()
        }
        homes |= {v: Home("output", name, v.size, tuple(v.attrs["before"])) for v in self.values if v.op == "part"}
        zero = Value("constant", value=0.0)
        writes = [Write("carry", s.name, self.states.get(s.name, zero), s.size) for s in graph.states]
        writes += [Write("dz", str(k), v, v.size) for k, v in enumerate(self.columns)]
        writes += [Write("vector", str(k), v, v.size) for k, v in enumerate(self.vectors)]
        writes += [Write("sum", str(k), v, m.size) for k, (m, v) in enumerate(self.sums)]
        rates = {i.name: i.rate for i in graph.inputs}
        late = {
            n: [Write("sequence" if rates[n] == Rate.SEQUENCE else "input", n, v, graph.input_values[n].size)]
            for n, v in self.inputs.items()
            if graph.input_values[n] is not index
        }
        own = {v: Home("dz", str(k), v.size) for k, v in enumerate(self.columns) if v not in homes}
        return _loop(writes, homes, fixed, late, own, index=index)


@lru_cache(maxsize=256)
def _backward_of(graph: Graph) -> _BackwardPlanner:
    return _BackwardPlanner(canonical_graph(graph))


def _gradient(matrix: Value, contribution: Value) -> Gradient:
    if contribution.op != "outer":
        raise NativeError(f"native kernels do not support {contribution.op!r} in the gradient of a matrix")
    return Gradient(matrix, *contribution.args)


def _columns(gradients: tuple[Gradient, ...]) -> tuple[Value, ...]:
    """The left factors, in an order that puts those of one right factor side by side where possible."""
    found = tuple(dict.fromkeys(g.d for g in gradients))
    of = {v: [g.d for g in gradients if g.vector is v] for v in {g.vector for g in gradients}}

    def breaks(order: tuple[Value, ...]) -> int:
        place = {d: k for k, d in enumerate(order)}
        places = [sorted(place[d] for d in ds) for ds in of.values()]
        return sum(b - a != 1 for place in places for a, b in pairwise(place))

    return min(permutations(found), key=breaks) if len(found) <= MAX_PERMUTED else found


def _loop(
    writes: list[Write],
    homes: dict[Value, Home],
    fixed: tuple[Value, ...],
    late: Mapping[str, list[Write]],
    own: Mapping[Value, Home] = MappingProxyType({}),
    *,
    index: Value | None,
) -> StepLoop:
    schedule = _Schedule(homes, fixed)
    schedule.add(writes)
    for name, group in late.items():
        schedule.add(group, only_for=name)
    stages, homed = schedule.stages()
    places = dict(homes) | dict(own)
    for k, v in enumerate(sorted(homed - set(own), key=lambda v: v.order)):
        alone = v.size == SCALAR or _reads_across(v)
        places[v] = Home("private" if alone else "row", str(k), v.size)
    places |= {v: Home("weights", str(k), v.size) for k, v in enumerate(fixed)}
    loose = {"input", "sequence", "output"} | ({"old"} if own or late else set())
    operands = dict.fromkeys(v for s in stages for v in _operands(s))
    gathered = tuple(v for v in operands if v in places and places[v].where in loose and v is not index)
    return StepLoop(tuple(_with_barriers(stages, places, gathered)), places, gathered)


# for people


def print_plan(plan: KernelPlan) -> str:
    """The plan as text: what is saved, then the stages of both steps."""
    shown = _Shown(plan)
    lines = [f"plan of {plan.graph.name}"]
    lines.append("given    " + ", ".join(f"{shown.word(v)}: {show_size(v.size)}" for v in plan.fixed))
    lines.append("history  " + (", ".join(plan.history) or "nothing"))
    lines.append("kept     " + (", ".join(map(shown.word, plan.stored)) or "nothing"))
    for title, loop in (("forward", plan.forward), ("backward", plan.backward)):
        lines.append(f"{title} step")
        if loop.gathered:
            lines.append("  gather " + ", ".join(map(shown.word, loop.gathered)))
        for number, stage in enumerate(loop.stages):
            lines += [f"  {line}" for line in shown.stage(number, stage, loop)]
    lines.append("after the backward loop, summed over rows and steps")
    for g in plan.gradients:
        lines.append(f"  d {shown.word(g.matrix)} = outer({shown.word(g.d)}, {shown.word(g.vector)})")
    lines += [f"  d {shown.word(m)} = {shown.word(v)}" for m, v in (*plan.biases, *plan.sums)]
    return "\n".join(lines) + "\n"


class _Shown:
    """Names of values, with numbers for unnamed ones."""

    def __init__(self, plan: KernelPlan) -> None:
        loops = (plan.forward, plan.backward)
        values = [v for loop in loops for stage in loop.stages for v in (*stage.linears, *stage.values, stage.across)]
        nameless = dict.fromkeys(v for v in values if v is not None and v.label is None)
        self.numbers = {v: f"%{k}" for k, v in enumerate(nameless, start=1)}

    def word(self, value: Value) -> str:
        return expression(value, self.numbers)

    def stage(self, number: int, stage: Stage, loop: StepLoop) -> list[str]:
        lines = ["barrier"] if stage.barrier else []
        only = f", only where the gradient of {stage.only_for} is wanted" if stage.only_for else ""
        lines.append(f"stage {number} over {show_size(stage.size)}{only}")
        for call in stage.calls:
            matrices = ", ".join(self.word(m) + (".T" if turned else "") for m, turned in call.matrices)
            slots = f"{call.first}:{call.first + len(call.matrices)}"
            lines.append(f"  slots {slots} {'=' if call.fresh else '+='} [{matrices}] @ {self.word(call.vector)}")
        values = (stage.across,) if stage.across is not None else stage.values
        lines += [f"  {self._line(value, stage)}{self._place(value, loop)}" for value in values]
        return lines + [f"  {w.kind} {w.name} = {self.word(w.value)}" for w in stage.writes]

    def _line(self, value: Value, stage: Stage) -> str:
        name = value.label or self.numbers[value]
        if value.op != "linear":
            return f"{name} = {expression(value, self.numbers, top=True)}"
        added = bias(value)
        slot = next(k for k, v in enumerate(stage.linears) if v is value)
        return f"{name} = slot {slot}" + (f" + {self.word(added)}" if added is not None else "")

    def _place(self, value: Value, loop: StepLoop) -> str:
        home = loop.homes.get(value)
        return f"    -> {home.where} {home.name}" if home else ""
