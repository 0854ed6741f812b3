"""Plans: what is printed, and what must hold of the plan of any cell, checked by going through it step by step."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogue import ALL
from graphs import SIZES, cells, random_arrays
from native.kernel_calls import TELLING
from tidegate.cells import CELLS
from tidegate.equations import Cell, cell, floor, linear, mean, tanh, weight
from tidegate.equations.graph import Graph
from tidegate.equations.values import SCALAR, Rate, Value, products
from tidegate.native.compile.arguments import early_calls
from tidegate.native.compile.canonical import bias, canonical_graph
from tidegate.native.compile.plan import BLOCK_VECTORS, RECOMPUTED, KernelPlan, Stage, StepLoop, make_plan, peeled
from tidegate.reference import numpy_ops, step

FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
GIVEN = {"input", "sequence", "old", "new", "kept", "output", "gradient"}  # in memory before a step
every_cell = pytest.mark.parametrize("made", ALL.values(), ids=ALL)


@cell(states="h", inputs="x a:G b:H", source="a test: nothing but an input's gradient reads what all threads wrote")
def loose_inputs(x, a, b, h):
    h = tanh(linear("n", x, a=a) + weight("w") * h + b)
    return h


@cell(states="h", inputs="x:H b:H", source="a test: the inputs' gradients have a part in common")
def common_inputs(x, b, h):
    h = tanh(linear("n", v=x * b, h=h))
    return h


@cell(states="h a:H", inputs="x:H", source="a test: in a step's first stage a state is written that its last one reads")
def early_state(x, h, a):
    new = 0.9 * a + x
    u = tanh(linear("u", x, size="G"))
    h = 0.5 * h + tanh(linear("h", u=u, a=a))
    return h, new


@cell(states="h", output="y", source="a test: backwards, products are of what is carried, as it is")
def plain_adjoint(x, h):
    y = tanh(linear("y", x, h))
    h = linear("h", x, h)
    return y, h


@cell(
    states="h", inputs="x:H", source="a test: a sum over units of the state, and not one matrix or gradient of an input"
)
def sums_only(x, h):
    h = weight("w") * h * mean(tanh(h)) + mean(h) + floor(x)
    return h


TRICKY = {c.graph.name: c for c in (loose_inputs, common_inputs, early_state, plain_adjoint, sums_only)}


def loops(plan: KernelPlan) -> list[StepLoop]:
    return [plan.forward, plan.backward]


# printed


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_printed(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"native/{name}.txt", str(make_plan(CELLS[name].graph)))


def test_printed_with_sums_over_units(golden: Callable[[str, str], None]) -> None:
    golden("native/lstm_layer_norm.txt", str(make_plan(CELLS["lstm_layer_norm"].graph)))


def test_a_plan_is_printed_the_same_each_time() -> None:
    for made in TELLING.values():
        assert str(make_plan(made.graph)) == str(make_plan(Cell.from_json(made.to_json()).graph))


# canonical form


def same_step(graph: Graph, other: Graph, seed: int) -> None:
    arrays = random_arrays(graph, seed, 2, 3)
    y, new = step(graph, *arrays, numpy_ops, SIZES)
    y_other, new_other = step(other, *arrays, numpy_ops, SIZES)
    for a, b in [(y, y_other), *((new[n], new_other[n]) for n in new)]:
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@FEW
@given(cells(), st.integers(0, 10**6))
def test_the_canonical_form_computes_the_same(made: Cell, seed: int) -> None:
    form = canonical_graph(made.graph)
    same_step(made.graph, form, seed)
    for value in form.values:
        if value.rate > Rate.WEIGHTS:
            assert value.op not in ("mean", "product")
        if value.op == "linear":
            assert all(v.rate > Rate.WEIGHTS for _, v in products(value))


def test_added_linears_become_one_chain() -> None:
    @cell(states="h", source="a test")
    def added(x, h):
        h = tanh(linear("a", x) + linear("b", h) + h)
        return h

    (found,) = [v for v in canonical_graph(added.graph).values if v.op == "linear"]
    assert [m.label for m, _ in products(found)] == ["a.x", "b.h"]


# properties


def check(plan: KernelPlan) -> None:
    for loop in loops(plan):
        computed_once(loop)
        slots_cover_terms(plan, loop)
        early_first(loop)
    for wanted in _subsets({s.only_for for s in plan.backward.stages if s.only_for is not None}):
        for loop in loops(plan):
            at_hand(loop, wanted)
        no_races(plan.forward, False, set(), False)
        for late in (False, True):
            no_races(plan.backward, True, wanted, late)


def _subsets(names: set[str]) -> Iterable[set[str]]:
    return map(set, chain.from_iterable(combinations(sorted(names), n) for n in range(len(names) + 1)))


def values_of(stage: Stage) -> tuple[Value, ...]:
    return stage.values if stage.across is None else (stage.across,)


def read_whole(stage: Stage) -> list[Value]:
    return [c.vector for c in stage.calls] + (list(stage.across.args) if stage.across is not None else [])


def computed_once(loop: StepLoop) -> None:
    """No value is computed twice for the step or for one input's gradient, unless that is as fast as reading it.

    What only inputs' gradients need is computed for each of them anew: any of them may be left out.
    """
    for name in {s.only_for for s in loop.stages}:
        found = Counter(v for s in loop.stages if s.only_for in (None, name) for v in values_of(s))
        assert {v.op for v, n in found.items() if n > 1} <= RECOMPUTED


def at_hand(loop: StepLoop, wanted: set[str]) -> None:
    """What a stage reads was given, or computed before it by a stage that is run."""
    homes = loop.homes
    stored = {v for v, h in homes.items() if h.where in GIVEN | {"weights"}}
    for stage in loop.stages:
        if stage.only_for is not None and stage.only_for not in wanted:
            continue
        assert set(read_whole(stage)) <= stored
        matrices = {m for c in stage.calls for m, _ in c.matrices}
        assert all(homes[m].where == "weights" for m in matrices)
        known: set[Value] = set()
        for value in values_of(stage):
            own = [b for b in [bias(value)] if b is not None] if value.op == "linear" else value.args
            assert stage.across is not None or all(_can_read(v, stage, known, stored) for v in own), value
            assert value.size in (stage.size, SCALAR), value
            known.add(value)
        assert all(_can_read(w.value, stage, known, stored) for w in stage.writes)
        assert all(w.size == stage.size for w in stage.writes)
        stored |= {v for v in known if v in homes and homes[v].where in ("row", "private")}
        stored |= {w.value for w in stage.writes if w.kind == "dz"}


def _can_read(value: Value, stage: Stage, known: set[Value], stored: set[Value]) -> bool:
    return value.op in ("constant", "count") or (
        value.size in (stage.size, SCALAR) and (value in known or value in stored)
    )


def slots_cover_terms(plan: KernelPlan, loop: StepLoop) -> None:
    """Each term of each linear is one matrix of one call, and each slot starts from nothing once."""
    for stage in loop.stages:
        assert set(stage.linears) == {v for v in stage.values if v.op == "linear"}
        found = [Counter() for _ in stage.linears]
        begun = set(stage.zeroed)
        for call in _in_order_of_emission(stage, loop):
            slots = range(call.first, call.first + len(call.matrices))
            assert len(call.matrices) <= BLOCK_VECTORS
            assert not begun & set(slots) if call.fresh else begun >= set(slots)
            begun |= set(slots)
            for slot, matrix in zip(slots, call.matrices, strict=True):
                found[slot][matrix, call.vector] += 1
        assert begun == set(range(len(stage.linears)))
        for linear_, terms_found in zip(stage.linears, found, strict=True):
            assert terms_found == Counter((peeled(m, plan.fixed), v) for m, v in products(linear_))


def _in_order_of_emission(stage: Stage, loop: StepLoop) -> list:
    early = early_calls(stage, loop)
    return [*early, *(c for c in stage.calls if c not in early)]


def early_first(loop: StepLoop) -> None:
    """What is multiplied before the recurrence does not come from it."""
    for stage in loop.stages:
        assert all(loop.homes[c.vector].where == "input" for c in early_calls(stage, loop))


# threads that share the units


def no_races(loop: StepLoop, backward: bool, wanted: set[str], late: bool) -> None:
    """Between two barriers no thread writes what another one reads.

    A thread computes its own units of each stage and reads whole vectors for products and sums. `late`: the inputs'
    gradients of two steps are computed after both.
    """
    read: set[object] = set()
    written: set[object] = set()
    for number, stage in _order(loop, backward, wanted, late):
        if stage.barrier:
            read, written = set(), set()
        reads = {_place(v, loop, number, backward) for v in read_whole(stage)} - {None}
        writes = _written(stage, loop, number, backward)
        assert not reads & written, f"{reads & written} are read before all threads have written them"
        assert not writes & (read | reads), f"{writes & (read | reads)} are written while others may read them"
        read |= reads
        written |= writes


def _order(loop: StepLoop, backward: bool, wanted: set[str], late: bool) -> Iterable[tuple[int, Stage]]:
    """Stages as they are run, each with its step."""
    run = [s for s in loop.stages if s.only_for is None or s.only_for in wanted]
    hasty = {s.only_for for s in run if not _can_wait(s, loop)}
    waiting = [s for s in run if late and s.only_for not in hasty]
    steps = list(range(6))[:: -1 if backward else 1]
    for chunk in (steps[:2], steps[2:4], steps[4:]):
        for number in chunk:
            yield from ((number, s) for s in run if s not in waiting)
        yield from ((number, s) for s in waiting for number in chunk)


def _can_wait(stage: Stage, loop: StepLoop) -> bool:
    return (
        stage.only_for is not None
        and stage.across is None
        and all(loop.homes[c.vector].where == "dz" for c in stage.calls)
    )


def _place(value: Value, loop: StepLoop, number: int, backward: bool) -> object:
    """Memory that several threads share, unless it is only read throughout."""
    home = loop.homes[value]
    if home.size == SCALAR:
        return None
    if value in set(loop.gathered):
        assert home.where in {"input", "sequence", "output"} | ({"old"} if backward else set())
        return None
    if home.where == "old":
        return "carry", home.name, number % 2
    if home.where == "gradient":
        return "carry", home.name, (number + 1) % 2
    return {"row": ("row", home.name), "dz": ("dz", home.name, number)}.get(home.where)


def _written(stage: Stage, loop: StepLoop, number: int, backward: bool) -> set[object]:
    rows = (v for v in values_of(stage) if v in loop.homes and loop.homes[v].where == "row")
    found: set[object] = {("row", loop.homes[v].name) for v in rows}
    for write in stage.writes:
        if write.kind == "carry" and write.size != SCALAR:
            found.add(("carry", write.name, (number + (not backward)) % 2))
        elif write.kind == "dz":
            found.add(("dz", write.name, number))
    return found


@every_cell
def test_every_cell(made: Cell) -> None:
    check(make_plan(made.graph))
    if linear_first(made.graph):
        check(make_plan(made.graph, indices=True))


def linear_first(graph: Graph) -> bool:
    """Whether the first input is only multiplied."""
    first = graph.input_values[graph.inputs[0].name]
    users = [v for v in graph.values if first in set(v.args)]
    return all(v.op == "linear" for v in users) and first not in set(graph.roots)


@FEW
@given(cells())
def test_random_cells(made: Cell) -> None:
    check(make_plan(made.graph))


@pytest.mark.parametrize("made", TRICKY.values(), ids=TRICKY)
def test_tricky_cells(made: Cell) -> None:
    check(make_plan(made.graph))


# what is asked of a plan


def test_traced_values_are_kept() -> None:
    plan = make_plan(CELLS["lstm"].graph, ("f.net", "c"))
    assert {"f.net", "c"} <= {v.label for v in plan.stored}
    kept = {w.name: w.value for w in (w for s in plan.forward.stages for w in s.writes) if w.kind == "keep"}
    assert all(kept[str(k)] is v for k, v in enumerate(plan.stored))


def test_indices_are_not_gathered_and_have_no_gradient() -> None:
    plan = make_plan(CELLS["gru"].graph, indices=True)
    assert plan.index is plan.graph.input_values["x"]
    assert plan.index not in set(plan.forward.gathered)
    assert all(s.only_for is None for s in plan.backward.stages)
