"""Kernels called by hand, in memory that ends where it must: values, gradients and bits, however a call is divided."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from catalogue import ALL
from graphs import SIZES, cells
from native.kernel_calls import TELLING, Found, Problem, Run, Way, kernel, problem, reference, run
from tidegate.cells import CELLS
from tidegate.equations import Cell
from tidegate.native.compile.arguments import PAST_CACHES
from tidegate.native.run import threads
from tidegate.native.run.kernel import Kernel
from tidegate.native.target import TARGETS, DType

FEW = settings(max_examples=8, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=150, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
LOST = {  # by which a cell's numbers are further off
    "lstm_phased": 5,  # a phase is what remains of time: most digits go
    "lstm_layer_norm": 10,  # of a single unit, what rounding leaves of 0 is divided by the square root of 1e-5
    "gru_layer_norm": 30,  # the same
}
WAYS = [
    Way(1),
    Way(2),
    Way(3),
    Way(1, chunk=3),
    Way(2, chunk=9),  # more than there are steps
    Way(2, hidden=True),
    Way(3, hidden=True, chunk=3),
    Way(2, hidden=True, chunk=9),
]
FORMS = {
    "few": {"T": 5, "B": 3, "lengths": True, "reset": True},
    "backwards": {"T": 4, "B": 5, "lengths": True, "reset": True, "backwards": True},
    "one of each": {"T": 3, "B": 1, "H": 1, "I": 1},  # fewer rows and panels than threads
    "one step": {"T": 1, "B": 2, "H": 16, "I": 1, "reset": True, "alike": True},
    "wide": {"T": 3, "B": 17, "H": 37, "I": 5, "lengths": True},
    "wider": {"T": 2, "B": 3, "H": 100, "alike": True},
}
MACHINES = [(target, dtype) for target in TARGETS for dtype in ("float32", "float64")]
OTHERWISE = ("lstm", "layer_norm", "phased", "gru_d")  # quick tests have these on every machine, others on two
KEEP_SCALARS = ("layer_norm", "phased", "gated_feedback")
every_cell = pytest.mark.parametrize("name", TELLING)
every_machine = pytest.mark.parametrize(("target", "dtype"), MACHINES, ids=map("-".join, MACHINES))


def agree(made: Kernel, p: Problem, ways: list[Way] = WAYS) -> None:
    """Kernels compute what the equations say, and the same bits in every way and at any place in memory."""
    first = run(made, p, ways[0])
    assert first.far(reference(p), tolerance(p)) == {}
    for number, way in enumerate(ways[1:]):
        found = run(made, p, way, "end" if number % 2 else "begin", gap=number % 3)
        assert found.differing(first) == [], way


def tolerance(p: Problem) -> float:
    return TOLERANCE[p.dtype] * LOST.get(p.graph.name, 1)


# values, gradients, bits


@pytest.mark.parametrize(
    ("name", "target", "dtype"),
    [
        pytest.param(n, t, d, id=f"{n}-{t}-{d}")
        for n in TELLING
        for t, d in MACHINES
        if n in OTHERWISE or (t, d) in (("avx512", "float32"), ("avx2", "float64"))
    ],
)
def test_every_way(name: str, target: str, dtype: DType) -> None:
    """Each form in some of the ways, others with each form: all of them would be slow."""
    graph, number = TELLING[name].graph, list(TELLING).index(name)
    for first, form in enumerate(FORMS.values(), start=number):
        ways = [WAYS[1:][(first + k) % (len(WAYS) - 1)] for k in (0, 2, 5)]
        agree(kernel(graph, target, dtype), problem(graph, dtype=dtype, **form), [WAYS[0], *ways])


@pytest.mark.slow
@every_machine
@pytest.mark.parametrize("name", ALL)
def test_every_cell_in_every_way(name: str, target: str, dtype: DType) -> None:
    graph = ALL[name].graph
    for number, form in enumerate(FORMS.values()):
        p = problem(graph, dtype=dtype, seed=number, **form)
        agree(
            kernel(graph, target, dtype),
            p,
            [Way(1), *(Way(n, h, c) for n in (1, 2, 3, 5) for h in (False, True) for c in (0, 1, 2, 9))],
        )


def random_case(made: Cell, data: st.DataObject) -> None:
    """A random cell in a random way, and with one thread."""
    T, B, seed = data.draw(st.integers(1, 6)), data.draw(st.sampled_from([1, 2, 3, 9])), data.draw(st.integers(0, 99))
    sizes = data.draw(st.sampled_from([SIZES, {"I": 1, "H": 2, "G": 2, "K": 1}, {"I": 5, "H": 36, "G": 18, "K": 3}]))
    flags = {word: data.draw(st.booleans()) for word in ("lengths", "reset", "backwards", "alike")}
    p = problem(made.graph, T, B, sizes=sizes, seed=seed, **flags)
    way = Way(data.draw(st.integers(1, 3)), data.draw(st.booleans()), data.draw(st.sampled_from([0, 1, 3, 9])))
    agree(kernel(made.graph, data.draw(st.sampled_from(list(TARGETS))), "float64"), p, [Way(1), way])


@FEW
@given(cells(), st.data())
def test_random_cells(made: Cell, data: st.DataObject) -> None:
    random_case(made, data)


@pytest.mark.slow
@MANY
@given(cells(), st.data())
def test_many_random_cells(made: Cell, data: st.DataObject) -> None:
    random_case(made, data)


# who is in the batch


@every_cell
@pytest.mark.parametrize("hidden", [False, True])
def test_a_row_does_not_depend_on_its_company(name: str, hidden: bool) -> None:
    made = kernel(TELLING[name].graph, "avx512", "float32")
    p = problem(TELLING[name].graph, 4, 17, H=20, dtype="float32", lengths=True, reset=True)
    together = run(made, p, Way(2, hidden))
    for chosen in ([5], [16, 0, 9]):
        alone = run(made, p.rows(chosen), Way(1, chunk=3))
        own = alone.of_rows(p, list(range(len(chosen))))
        assert own.differing(together.of_rows(p, chosen)) == []


@every_cell
@pytest.mark.parametrize("way", [Way(2), Way(2, hidden=True, chunk=3)], ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_stays_in_its_row(name: str, way: Way, bad: float) -> None:
    made = kernel(TELLING[name].graph, "avx512", "float32")
    p = problem(TELLING[name].graph, 4, 5, dtype="float32")
    others = [0, 1, 3, 4]
    clean = run(made, p, way).of_rows(p, others)
    for n in p.moving:
        p.inputs[n][1, 2] = bad
    found = run(made, p, way)
    assert found.of_rows(p, others).differing(clean) == []
    for n, expected in reference(p).values.items():
        assert torch.equal(found.values[n].isnan(), expected.isnan()), n


# what a call may leave out, and teams


@every_cell
def test_nothing_is_kept_where_nothing_is_wanted(name: str) -> None:
    made = kernel(TELLING[name].graph, "avx512", "float32")
    p = problem(TELLING[name].graph, 5, 3, dtype="float32", lengths=True, reset=True)
    for way in (Way(2), Way(2, hidden=True, chunk=2)):
        keeping, without = Run(made, p, way), Run(made, p, way)
        assert without.forward(keeping=0).differing(keeping.forward()) == []
        assert all(np.isnan(array).all() for array in without.kept.values())


@pytest.mark.parametrize("name", [n for n in TELLING if n not in KEEP_SCALARS])
def test_what_is_kept_may_go_past_the_caches(name: str) -> None:
    """As it may where each row is made of whole vectors."""
    made = kernel(TELLING[name].graph, "avx512", "float32")
    sizes = dict.fromkeys("HIPNSRG", 32)
    p = problem(TELLING[name].graph, 4, 5, sizes=sizes, dtype="float32", lengths=True, reset=True)
    for way in (Way(2), Way(2, hidden=True, chunk=2)):
        usual, past = Run(made, p, way), Run(made, p, way)
        assert all(array.shape[-1] % made.lanes == 0 for array in past.kept.values())
        assert past.forward(keeping=PAST_CACHES).differing(usual.forward()) == []
        assert all(array.tobytes() == past.kept[n].tobytes() for n, array in usual.kept.items())
        assert past.backward().differing(usual.backward()) == []


@every_cell
@pytest.mark.parametrize("way", [Way(1), Way(2), Way(3, hidden=True, chunk=2)], ids=str)
def test_packed_weights_are_used_again(name: str, way: Way) -> None:
    made = kernel(TELLING[name].graph, "avx512", "float32")
    again = Run(made, problem(TELLING[name].graph, 5, 3, dtype="float32", reset=True), way)
    expected = again.forward()
    for k, value in enumerate(again.fixed):
        if value.dim() == 2:
            again.given[f"weights.{k}"] = np.full(value.shape, np.nan, np.float32)
    assert again.forward(packed=again.work).differing(expected) == []


@every_cell
@pytest.mark.parametrize("way", [Way(1, chunk=3), Way(2), Way(3, hidden=True)], ids=str)
def test_gradients_of_inputs_can_be_left_out(name: str, way: Way) -> None:
    made = kernel(TELLING[name].graph, "avx512", "float32")
    p = problem(TELLING[name].graph, 4, 3, dtype="float32")
    every = run(made, p, way)
    names = sorted({stage.only_for for stage in made.plan.backward.stages if stage.only_for is not None})
    for without in (some for n in range(1, len(names) + 1) for some in combinations(names, n)):
        both = Run(made, p, way)
        both.forward()
        found = both.backward(without)
        dropped = {f"input {n}" for n in without}
        assert found.gradients.keys() == every.gradients.keys() - dropped
        rest = {n: g for n, g in every.gradients.items() if n not in dropped}
        assert found.differing(Found({}, rest)) == []


@contextmanager
def teams_of_one() -> Iterator[None]:
    """Inside, OpenMP gives fewer threads than it is asked for."""
    threads.publish()
    openmp = ctypes.CDLL(str(threads.library()))
    levels = openmp.omp_get_max_active_levels()
    openmp.omp_set_max_active_levels(0)
    try:
        yield
    finally:
        openmp.omp_set_max_active_levels(levels)


@every_cell
@pytest.mark.parametrize("hidden", [False, True])
def test_a_smaller_team_than_wanted(name: str, hidden: bool) -> None:
    made = kernel(TELLING[name].graph, "avx512", "float32")
    p = problem(TELLING[name].graph, 4, 7, H=100, dtype="float32", lengths=True)
    whole, alone = (Run(made, p, Way(3, hidden, chunk=2)) for _ in range(2))
    expected = [whole.forward(), whole.backward()]
    assert whole.team == 3
    with teams_of_one():
        found = [alone.forward(), alone.backward()]
    assert alone.team == 1
    assert [a.differing(b) for a, b in zip(found, expected, strict=True)] == [[], []]


# indices


@pytest.mark.parametrize("name", ["lstm", "gru", "gru_reset_after", "elman"])
@every_machine
def test_indices_of_one_hots(name: str, target: str, dtype: DType) -> None:
    graph = CELLS[name].graph
    made = kernel(graph, target, dtype, indices=True)
    for form in ({"T": 5, "B": 3, "reset": True}, {"T": 4, "B": 5, "H": 37, "lengths": True, "backwards": True}):
        agree(made, problem(graph, I=11, dtype=dtype, indices=True, **form))
