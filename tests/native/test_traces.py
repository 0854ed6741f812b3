"""Kernels of traces: against a loop in numpy in float64, without a stray access, bits that hang on nothing but the
numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest

from native_calls import Array, guarded
from tidegate.errors import ArgumentError
from tidegate.native import _llvm
from tidegate.native.eligibility import kernel as trace_kernel
from tidegate.native.eligibility.arguments import STEPS
from tidegate.native.eligibility.blocks import MIN_BLOCK_STEPS
from tidegate.native.eligibility.form import GRADIENT, TraceForm
from tidegate.native.eligibility.kernel import TraceKernel
from tidegate.native.run.row_order import NEVER_ADDRESS
from tidegate.native.target import TARGETS, DType

FORMS = {
    "one state": TraceForm(1, ((0, 0),), (0,), (0,)),
    "a cell behind its output": TraceForm(2, ((0, 1), (1, 1)), (0, 1), (0,)),
    "all at once": TraceForm(3, ((2, 0), (0, 1), (0, 0), (1, 0), (2, 2)), (2, 0), (1, 2)),
    "each from both": TraceForm(2, ((0, 0), (0, 1), (1, 0), (1, 1)), (0, 1), (0,)),
    "more than registers": TraceForm(7, tuple((s, (s + 1) % 7) for s in range(7)), (0, 6), (3,)),
    "nothing scored": TraceForm(1, ((0, 0),), (0,), ()),
}
BLOCKED = {name: form for name, form in FORMS.items() if form.pays_in_blocks}
GAP = 3  # numbers between rows of coefficients


@lru_cache(maxsize=32)
def kernel(name: str, form: TraceForm, dtype: DType) -> TraceKernel:
    target = TARGETS[name]
    if missing := [f for f in target.needs if f not in _llvm.host_features()]:
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    return TraceKernel(form, dtype, target)


@dataclass(frozen=True)
class Problem:
    """Random numbers; the coefficients are columns of one array, with a gap after them."""

    form: TraceForm
    e: Array
    coefficients: Array  # [T, B, number of them, K] of a wider array
    pieces: Sequence[Array]  # [T * B, width], or a single row for all
    bias: bool
    g: Array
    reset: Array | None

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        T, B, _, K = self.coefficients.shape
        return T, B, K, self.e.shape[3]

    def run(
        self,
        name: str,
        threads: int = 1,
        steps: slice = slice(None),
        *,
        in_place: bool = False,
        forget: bool = False,
    ) -> tuple[Array, Array]:
        """Traces and gradient, of all steps or of some; traces that one may `forget` are not to be looked at."""
        T, B, K, V = self.sizes
        first, last, _ = steps.indices(T)
        item, dtype = self.e.itemsize, str(self.e.dtype)
        end = self.e if in_place else guarded(np.full_like(self.e, np.nan))
        g, work = guarded(self.g), self.coefficients
        given = {"start": self.e.ctypes.data, "end": end.ctypes.data, "g": g.ctypes.data, "bias": int(self.bias)}
        given["forget"] = int(forget)
        flags = None if self.reset is None else guarded(self.reset[steps].astype(np.uint8))
        given |= {"reset": NEVER_ADDRESS if flags is None else flags.ctypes.data, "reset.step": int(flags is not None)}
        for i, coefficient in enumerate(self.form.coefficients):
            given[coefficient] = work[first:, :, i].ctypes.data
            given[f"ld.{coefficient}"] = work.shape[2] * K + GAP
        for i, piece in enumerate(self.pieces):
            row = 0 if len(piece) == 1 else first * B
            given[f"v.{i}"] = piece[row:].ctypes.data
            given |= {f"ld.v.{i}": 0 if len(piece) == 1 else piece.strides[0] // item, f"width.{i}": piece.shape[1]}
        bound = kernel(name, self.form, dtype).bind(last - first, B, K, V, len(self.pieces), threads, given)
        bound()
        return end, g

    def expected(self) -> tuple[Array, Array]:
        """The same by a loop."""
        T, B, *_ = self.sizes
        end, g = self.e.astype(float), self.g.astype(float)
        for t in range(T):
            for b in range(B):
                v = [piece[0 if len(piece) == 1 else t * B + b].astype(float) for piece in self.pieces]
                columns = np.concatenate([*v, np.ones(int(self.bias))])
                at = {name: self.coefficients[t, b, i].astype(float) for i, name in enumerate(self.form.coefficients)}
                old = end[b] * (0.0 if self.reset is not None and self.reset[t, b] else 1.0)
                new = np.zeros_like(old)
                for s, of in self.form.pairs:
                    new[s] += at[f"d.{s}.{of}"][:, None] * old[of]
                for s in self.form.driven:
                    new[s] += np.outer(at[f"u.{s}"], columns)
                for s in self.form.scored:
                    g += at[f"delta.{s}"][:, None] * new[s]
                end[b] = new
        return end, g


def problem(
    form: TraceForm,
    dtype: DType,
    sizes: tuple[int, int, int],
    widths: Sequence[int],
    *,
    bias: bool = True,
    still: int | None = None,
    reset: float = 0.0,
) -> Problem:
    """T, B, K = sizes; the piece with number `still` is the same at all steps; a share `reset` of the flags is set."""
    random = np.random.default_rng(5)

    def some(*shape: int) -> Array:
        return guarded(random.standard_normal(shape).astype(dtype))

    (T, B, K), V, n = sizes, sum(widths) + bias, len(form.coefficients)
    whole = some(T, B, n * K + GAP)
    whole *= 0.6  # so that traces die away
    return Problem(
        form,
        some(B, form.states, K, V),
        whole[:, :, GAP:].reshape(T, B, n, K, copy=False),
        [some(1 if i == still else T * B, w) for i, w in enumerate(widths)],
        bias,
        some(K, V),
        random.random((T, B)) < reset if reset else None,
    )


everywhere = pytest.mark.parametrize("target", TARGETS)
of_each_type = pytest.mark.parametrize("dtype", ["float32", "float64"])


def assert_right(found: Problem, target: str, dtype: DType) -> None:
    tolerance = 1e-13 if dtype == "float64" else 5e-5
    T, B, *_ = found.sizes
    for got, wanted, terms in zip(found.run(target), found.expected(), (1, T * B), strict=True):
        largest = max(1.0, np.abs(wanted).max(initial=0.0) / 8)
        assert np.all(np.abs(got - wanted) <= tolerance * largest * max(1.0, terms**0.5))


@everywhere
@of_each_type
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_against_a_loop(target: str, dtype: DType, form: TraceForm) -> None:
    for sizes, widths in (((5, 2, 37), (17, 20)), ((1, 1, 1), (1,)), ((70, 1, 7), (3, 96, 1)), ((2, 3, 19), (133,))):
        assert_right(problem(form, dtype, sizes, widths), target, dtype)
        assert_right(problem(form, dtype, sizes, widths, bias=False), target, dtype)


@everywhere
@of_each_type
@pytest.mark.parametrize("V", [1, 7, 16, 37, 64, 100, 300])
def test_every_width(target: str, dtype: DType, V: int) -> None:
    for K in (1, 7, 37, 100):
        assert_right(problem(FORMS["one state"], dtype, (3, 1, K), (V,), bias=False), target, dtype)


@everywhere
@of_each_type
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_bias_alone(target: str, dtype: DType, form: TraceForm) -> None:
    for K in (1, 7, 37, 100):
        assert_right(problem(form, dtype, (9, 2, K), (), reset=0.2), target, dtype)


@everywhere
@of_each_type
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_resets(target: str, dtype: DType, share: float) -> None:
    assert_right(problem(FORMS["a cell behind its output"], dtype, (140, 3, 5), (4,), reset=share), target, dtype)


@everywhere
def test_what_a_reset_drops_may_be_anything(target: str) -> None:
    found = problem(FORMS["one state"], "float64", (3, 2, 5), (4,))
    flags = np.array([[True, False], [False, False], [False, False]])
    found = replace(found, reset=flags)
    expected = found.run(target)
    found.e[0] = np.inf
    assert all(np.array_equal(a, b) for a, b in zip(found.run(target), expected, strict=True))


@everywhere
@of_each_type
@pytest.mark.parametrize("still", [0, 1])
def test_a_piece_that_stays(target: str, dtype: DType, still: int) -> None:
    assert_right(problem(FORMS["one state"], dtype, (6, 2, 11), (9, 20), still=still), target, dtype)


@everywhere
@of_each_type
def test_bits_do_not_depend_on_threads(target: str, dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_kernel, "TEAM_ELEMENTS", 0)
    for K, widths in ((1, (5,)), (37, (30, 70)), (50, ())):
        found = problem(FORMS["a cell behind its output"], dtype, (67, 2, K), widths, reset=0.1)
        kernel(target, found.form, dtype)._layout.cache_clear()
        one, *others = (found.run(target, threads) for threads in (1, 2, 5))
        assert all(np.array_equal(a, b) for other in others for a, b in zip(one, other, strict=True))
    kernel(target, found.form, dtype)._layout.cache_clear()


@everywhere
@of_each_type
@pytest.mark.parametrize(
    "T", [MIN_BLOCK_STEPS - 1, MIN_BLOCK_STEPS, STEPS - 1, STEPS, STEPS + 1, STEPS + MIN_BLOCK_STEPS, 2 * STEPS + 1]
)
def test_the_edges_of_blocks(target: str, dtype: DType, T: int) -> None:
    for form in BLOCKED.values():
        for K, widths in ((3, (16,)), (21, (5, 28)), (37, (32, 31))):
            assert_right(problem(form, dtype, (T, 1, K), widths), target, dtype)
        assert_right(problem(form, dtype, (T, 2, 19), (17,), bias=False), target, dtype)


@everywhere
@of_each_type
@pytest.mark.parametrize("form", BLOCKED.values(), ids=BLOCKED)
def test_resets_inside_blocks(target: str, dtype: DType, form: TraceForm) -> None:
    found = problem(form, dtype, (190, 3, 21), (20, 13))
    flags = np.zeros((190, 3), bool)
    flags[[0, 20, 84, 100, 189], 0] = True  # blocks, a short segment, and at the end a single step
    flags[[16, 126], 1] = True
    found = replace(found, reset=flags)
    assert_right(found, target, dtype)
    expected = found.run(target)
    found.e[0] = np.nan
    assert all(np.array_equal(a, b) for a, b in zip(found.run(target), expected, strict=True))


@everywhere
@pytest.mark.parametrize("seed", range(5))
def test_any_form(target: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    states = int(random.integers(1, 5))
    every = [(s, of) for s in range(states) for of in range(states)]
    pairs = tuple(pair for pair in every if random.random() < 0.6)
    driven, scored = (tuple(s for s in range(states) if random.random() < 0.7) for _ in range(2))
    form = TraceForm(states, pairs, driven or (0,), scored)
    assert_right(problem(form, "float64", (90, 2, 13), (9, 26), reset=0.02), target, "float64")
    if (0, 0) in pairs:
        assert_right(problem(form, "float64", (90, 2, 13), (32,)), target, "float64")


@everywhere
@of_each_type
def test_traces_that_are_forgotten_change_no_gradient(target: str, dtype: DType) -> None:
    for form in FORMS.values():
        for T, widths in ((5, (20,)), (40, (33,)), (150, (16, 17)), (70, ())):
            found = problem(form, dtype, (T, 2, 21), widths, reset=0.01)
            assert np.array_equal(found.run(target, forget=True)[1], found.run(target)[1])


@everywhere
def test_a_block_whose_traces_are_forgotten_touches_none(target: str) -> None:
    found = problem(FORMS["a cell behind its output"], "float64", (STEPS, 2, 21), (33,))
    assert np.isnan(found.run(target, forget=True)[0]).all()


@everywhere
@of_each_type
@pytest.mark.parametrize("widths", [(30, 41), ()], ids=["matrix", "vector"])
def test_traces_do_not_depend_on_cuts_between_blocks(target: str, dtype: DType, widths: Sequence[int]) -> None:
    whole = problem(FORMS["a cell behind its output"], dtype, (150, 2, 21), widths)
    flags = np.zeros((150, 2), bool)
    flags[30] = flags[140, 1] = True
    whole = replace(whole, reset=flags)

    def cut(*cuts: int) -> Array:
        part = whole
        for a, b in pairwise(cuts):
            part = replace(part, e=part.run(target, steps=slice(a, b))[0])
        return part.e

    assert np.array_equal(cut(0, 30, 150), cut(0, 150))
    assert np.array_equal(cut(0, 30, 94, 150), cut(0, 150))
    single = cut(*range(151))
    assert np.array_equal(cut(*range(0, 150, MIN_BLOCK_STEPS - 1), 150), single)
    tolerance = 1e-13 if dtype == "float64" else 5e-5
    assert np.abs(cut(0, 150) - single).max() < tolerance
    assert np.abs(cut(0, 77, 150) - single).max() < tolerance


@of_each_type
def test_bits_do_not_depend_on_the_target(dtype: DType) -> None:
    for widths in ((30, 41), ()):
        found = problem(FORMS["all at once"], dtype, (90, 2, 21), widths, reset=0.05)
        one, *others = (found.run(target) for target in TARGETS)
        assert all(np.array_equal(a, b) for other in others for a, b in zip(one, other, strict=True))


@everywhere
def test_traces_may_move_in_place(target: str) -> None:
    found = problem(FORMS["a cell behind its output"], "float64", (130, 2, 21), (30, 41))
    expected = found.run(target)[0]
    found.run(target, in_place=True)
    assert np.array_equal(found.e, expected)


def test_a_form_names_states_that_are_there() -> None:
    with pytest.raises(ArgumentError) as error:
        TraceForm(1, ((0, 1),), (0,), (0,))
    assert str(error.value) == (
        "pairs, driven and scored must number states from 0 to 0 without duplicates, got pairs=((0, 1),), "
        "driven=(0,) and scored=(0,)."
    )
    for form in ((2, ((0, 0), (0, 0)), (0,), (0,)), (2, (), (1, 1), (0,)), (1, (), (-1,), ()), (1, (), (), ())):
        with pytest.raises(ArgumentError):
            TraceForm(*form)


def test_what_reaches_the_end_of_a_block() -> None:
    form = FORMS["a cell behind its output"]
    assert form.taken == (1,)
    assert form.outputs(form.taken) == (GRADIENT, 1)
    assert FORMS["nothing scored"].outputs((0,)) == (0,)
    assert [form.chain(o) for o in (GRADIENT, 0, 1)] == [[0, 1], [0, 1], [1]]
    assert [name for name, form in FORMS.items() if not form.pays_in_blocks] == ["more than registers"]
