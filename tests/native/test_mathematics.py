"""Vector mathematics against numpy's in a wider type: corners, random numbers, and slowly every float32."""

import ctypes
import itertools
import operator
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import pytest

from tidegate.equations.ops import OPS
from tidegate.native import _llvm
from tidegate.native.compile.builder import I32, POINTER, VOID, Builder
from tidegate.native.compile.mathematics import Mathematics
from tidegate.native.target import TARGETS, DType
from tidegate.reference import numpy_ops

Array = np.ndarray
WIDE = np.longdouble
FLUSH = 0x8040  # denormal numbers are zero, as in the kernels
DTYPES: list[DType] = ["float32", "float64"]

# No function may be off by more units of the last place than this, in float32 and in float64. What was measured stands
# in docs/decisions/0007-vector-mathematics.md.
BOUNDS = {
    "exp": (1.0, 1.0),
    "expm1": (1.5, 2.0),
    "log": (1.0, 1.0),
    "log1p": (1.0, 1.0),
    "sqrt": (0.5, 0.5),
    "sin": (2.0, 3.0),
    "cos": (2.0, 3.0),
    "tanh": (4.0, 3.0),
    "sigmoid": (4.0, 3.0),
    "softplus": (2.0, 2.0),
    "log_sigmoid": (2.0, 2.0),
    "pow": (0.501, 2.5),
}
RUNNABLE = [name for name, target in TARGETS.items() if set(target.needs) <= set(_llvm.host_features())]


def softplus(a: Array) -> Array:
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


ONE: dict[str, Callable[[Array], Array]] = {
    **{name: getattr(np, name) for name in ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh")},
    "sigmoid": numpy_ops.sigmoid,
    "softplus": softplus,
    "log_sigmoid": lambda a: -softplus(-a),
}
EXACT_ONE: dict[str, Callable[[Array], Array]] = {
    "neg": np.negative,
    "abs": np.abs,
    "floor": np.floor,
    "sign": numpy_ops.sign,
    "relu": numpy_ops.relu,
    "stop": lambda a: a,
}
EXACT_TWO: dict[str, Callable[[Array, Array], Array]] = {
    **{name: getattr(np, name) for name in ("maximum", "minimum", "mod")},
    **{name: partial(numpy_ops.compare, getattr(operator, name)) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "clip_gradient": lambda a, limit: a,
}


class Kernel:
    """One operation over arrays whose lengths are multiples of 16, with and without denormal numbers."""

    def __init__(self, op: str, target_name: str, dtype: DType, exponent: float | None = None) -> None:
        target = TARGETS[target_name]
        if missing := [f for f in target.needs if f not in _llvm.host_features()]:
            pytest.skip(f"this processor lacks {', '.join(missing)}")
        self.arity = 1 if exponent is not None else OPS[op].arity or 0
        k = Builder("mathematics", target, dtype)
        with k.function("run", [POINTER], public=True) as f:
            (given,) = f.args
            *sources, to = (k.load_pointer(given, i) for i in range(self.arity + 1))
            mode = k.b.alloca(I32)
            k.call("llvm.x86.sse.stmxcsr", VOID, mode)
            before = k.b.load(mode, typ=I32)
            k.b.store(k.b.or_(before, k.b.trunc(k.load_int(given, self.arity + 2), I32)), mode)
            k.call("llvm.x86.sse.ldmxcsr", VOID, mode)
            mathematics = Mathematics(k)
            with k.loop(0, k.load_int(given, self.arity + 1), k.lanes) as i:
                arguments = [k.load(s, i) for s in sources]
                arguments += [k.splat_constant(exponent)] if exponent is not None else []
                k.store(mathematics.apply(op, *arguments), to, i)
            k.b.store(before, mode)
            k.call("llvm.x86.sse.ldmxcsr", VOID, mode)
        self._code = _llvm.Loaded(_llvm.compile_object(str(k.module), target), target)
        self._run = _llvm.function(self._code.address("run"))

    def __call__(self, *arrays: Array, mode: int = FLUSH) -> Array:
        size = len(arrays[0])
        padded = [np.ascontiguousarray(np.pad(a, (0, -size % 16), mode="edge") if size % 16 else a) for a in arrays]
        found = np.empty_like(padded[0])
        values = [*(a.ctypes.data for a in padded), found.ctypes.data, len(found), mode]
        block = (ctypes.c_int64 * len(values))(*values)
        self._run(ctypes.addressof(block))
        return found[:size]


@cache
def kernel(op: str, target: str, dtype: DType) -> Kernel:
    return Kernel(op, target, dtype)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


everywhere = pytest.mark.parametrize(("target", "dtype"), list(itertools.product(TARGETS, DTYPES)))


def units(found: Array, exact: Array) -> Array:
    """Errors in units of the last place of the exact result; 0 where that is no normal number."""
    info = np.finfo(found.dtype)
    normal = (np.abs(exact) >= info.tiny) & (np.abs(exact) <= info.max)
    error = np.where(normal, found - exact, 0)
    return np.ldexp(np.abs(error), info.nmant + 1 - np.frexp(np.where(normal, exact, 1))[1])


def wrong(found: Array, exact: Array) -> Array:
    """Where a result that is not normal is not as it should be: NaN, infinite, or nothing with its sign."""
    info, same_sign = np.finfo(found.dtype), np.signbit(found) == np.signbit(exact)
    normal = (np.abs(exact) >= info.tiny) & (np.abs(exact) <= info.max)
    small = (np.abs(exact) < info.tiny) & (np.abs(found) <= info.tiny) & same_sign
    great = (np.abs(exact) > info.max) & (np.abs(found) >= info.max) & same_sign
    return ~(normal & np.isfinite(found) | small | great | np.isnan(exact) & np.isnan(found))


class Largest:
    """The largest error among results, none of which may be wrong."""

    def __init__(self, op: str, dtype: DType) -> None:
        self.op, self.bound = op, BOUNDS[op][DTYPES.index(dtype)]
        self.units, self.where = 0.5, "anywhere"  # no rounded result can be better

    def see(self, a: Array, found: Array, exact: Array) -> None:
        bad = wrong(found, exact)
        if self.op in ("tanh", "sigmoid", "sin", "cos"):
            bad |= np.abs(found) > 1
        assert not bad.any(), list(zip(a[bad], found[bad], exact[bad], strict=True))[:5]
        errors = units(found, exact)
        if self.op == "sigmoid":  # near the smallest number vrcp14ps, off by up to 2^-14, may leave nothing
            errors[(found == 0) & (exact < (1 + 2.0**-13) * np.finfo(found.dtype).tiny)] = 0
        at = int(np.argmax(errors))
        if errors[at] > self.units:
            self.units, self.where = float(errors[at]), f"{a[at]:.9g}"
        assert self.units <= self.bound, self

    def __str__(self) -> str:
        return f"{self.op} {self.units:.3f} at {self.where}"


def corners(dtype: DType) -> Array:
    info = np.finfo(dtype)
    edge = np.array([np.log(info.max), np.log(info.tiny), info.tiny, info.max, np.inf, 0, 1, 2, 3, 0.5, 1.5, 2.0**60])
    near = [np.nextafter(edge.astype(dtype), np.dtype(dtype).type(to)) for to in (-np.inf, np.inf)]
    found = np.unique(np.concatenate([edge.astype(dtype), *near]))
    found = found[(np.abs(found) >= info.tiny) | (found == 0)]
    return np.concatenate([found, -found, [np.nan]]).astype(dtype)


def some(dtype: DType, size: int = 300_000, seed: int = 11) -> Array:
    """Numbers of ordinary sizes, and of every size."""
    random, info = np.random.default_rng(seed), np.finfo(dtype)
    parts = [random.normal(size=size // 5) * scale for scale in (0.01, 1, 10, 200)]
    sizes = random.uniform(np.log(float(info.tiny)), np.log(float(info.max)), size // 5)
    return np.concatenate([*parts, np.exp(sizes) * random.choice([-1, 1], size // 5)]).astype(dtype)


def two(dtype: DType) -> tuple[Array, Array]:
    """Pairs of corners, of ordinary numbers, of numbers of every size, and what powers need."""
    special, numbers, info = corners(dtype), some(dtype, 500_000), np.finfo(dtype)
    random, n = np.random.default_rng(12), 100_000
    pairs = np.array(list(itertools.product(special, special)), dtype).T
    near, far = random.uniform(0.6, 1.6, n), random.normal(size=n) * float(np.log(info.max)) * 1.5
    sizes, exponents = np.exp(random.normal(size=n)), random.normal(size=n) * 20
    whole = random.integers(-9, 9, (2, n))
    a = np.concatenate([pairs[0], numbers, near, sizes, whole[0]]).astype(dtype)
    b = np.concatenate([pairs[1], random.permutation(numbers), far, exponents, whole[1]]).astype(dtype)
    return a, b


@cache
def exactly(op: str, dtype: DType) -> tuple[Array, Array]:
    """Numbers, and what a function makes of them."""
    a = np.concatenate([corners(dtype), some(dtype)])
    return a, ONE[op](a.astype(WIDE))


@everywhere
@pytest.mark.parametrize("op", ONE)
def test_functions(op: str, target: str, dtype: DType) -> None:
    a, exact = exactly(op, dtype)
    Largest(op, dtype).see(a, kernel(op, target, dtype)(a), exact)


@everywhere
@pytest.mark.parametrize("op", [*ONE, *EXACT_ONE])
def test_corners_whatever_the_mode(op: str, target: str, dtype: DType) -> None:
    a = np.concatenate([corners(dtype), [np.finfo(dtype).smallest_subnormal * 5]]).astype(dtype)
    exact = {**ONE, **EXACT_ONE}[op](a.astype(WIDE))
    for mode in (0, FLUSH):
        found = kernel(op, target, dtype)(a, mode=mode)
        if op != "log":  # infinite at the smallest numbers, whatever the mode
            assert not np.any(wrong(found, exact)), (mode, a[wrong(found, exact)])
        assert np.array_equal(np.isnan(found), np.isnan(exact))


@everywhere
@pytest.mark.parametrize("op", EXACT_ONE)
def test_exact_functions(op: str, target: str, dtype: DType) -> None:
    a = np.concatenate([corners(dtype), some(dtype, 10_000)])
    found, exact = kernel(op, target, dtype)(a), EXACT_ONE[op](a)
    assert np.array_equal(found, exact, equal_nan=True)
    if op != "relu":  # of -0 and 0 numpy takes either for the larger
        assert not np.any(wrong(found, exact))


@everywhere
@pytest.mark.parametrize("op", EXACT_TWO)
def test_exact_functions_of_two(op: str, target: str, dtype: DType) -> None:
    a, b = two(dtype)
    mode = 0 if op == "mod" else FLUSH  # on its way to a remainder a flushed one may be lost
    found, exact = kernel(op, target, dtype)(a, b, mode=mode), EXACT_TWO[op](a, b)
    nothing = (np.abs(exact) <= np.finfo(dtype).tiny) & (np.abs(found) <= np.finfo(dtype).tiny)
    assert np.all((found == exact) | (np.isnan(found) & np.isnan(exact)) | nothing)


@everywhere
def test_where(target: str, dtype: DType) -> None:
    a, b = two(dtype)
    c = np.tile(np.array([0, -0.0, 1, -3, np.nan, np.inf], dtype), len(a) // 6 + 1)[: len(a)]
    assert np.array_equal(kernel("where", target, dtype)(c, a, b), np.where(c != 0, a, b), equal_nan=True)


@everywhere
def test_powers(target: str, dtype: DType) -> None:
    a, b = two(dtype)
    found, exact = kernel("pow", target, dtype)(a, b), np.power(a.astype(WIDE), b.astype(WIDE))
    assert not np.any(wrong(found, exact)), list(zip(a, b, found, strict=True))[np.argmax(wrong(found, exact))]
    assert units(found, exact).max() <= BOUNDS["pow"][DTYPES.index(dtype)]


@everywhere
@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 0.5, -0.5, -1.0, -2.0])
def test_powers_known_beforehand(exponent: float, target: str, dtype: DType) -> None:
    a = np.concatenate([corners(dtype), some(dtype, 10_000)])
    if exponent % 1:
        a = np.abs(a)
    found, exact = Kernel("pow", target, dtype, exponent)(a), np.power(a.astype(WIDE), exponent)
    within = np.abs(np.log2(np.abs(exact))) < np.finfo(dtype).maxexp - 3
    assert units(found[within], exact[within]).max() <= 1.5
    assert np.array_equal(np.isnan(found), np.isnan(exact))


@everywhere
def test_bounds(target: str, dtype: DType) -> None:
    a = np.concatenate([corners(dtype), some(dtype, 100_000), np.linspace(-40, 40, 100_000)]).astype(dtype)
    a = a[~np.isnan(a)]
    tanh, sigmoid = kernel("tanh", target, dtype), kernel("sigmoid", target, dtype)
    assert np.all(np.abs(tanh(a)) <= 1)
    assert np.array_equal(tanh(-a), -tanh(a))
    assert np.all((sigmoid(a) >= 0) & (sigmoid(a) <= 1))
    ends = np.array([-np.inf, np.inf], dtype)
    assert tanh(ends).tolist() == [-1, 1]
    assert sigmoid(ends).tolist() == [0, 1]
    tail = np.array([-20, -30, -80], dtype)
    assert np.allclose(sigmoid(tail), numpy_ops.sigmoid(tail.astype(float)), rtol=1e-6, atol=0)


@everywhere
def test_every_pointwise_operation_is_there(target: str, dtype: DType) -> None:
    rows = [row for row in OPS.values() if row.kind == "pointwise"]
    assert rows
    for row in rows:
        arguments = [np.array([0.3, 1.7, 2.0, -0.4], dtype)[i : i + 2] for i in range(row.arity or 0)]
        found = kernel(row.name, target, dtype)(*arguments)
        assert row.value is not None
        assert np.allclose(found, row.value(numpy_ops, *arguments), rtol=1e-6, atol=0), row.name


def test_long_functions_stand_once_in_a_module() -> None:
    k = Builder("mathematics", TARGETS["avx512"], "float32")
    with k.function("run", [POINTER], public=True) as f:
        x = k.load(f.args[0])
        for op in ("log", "sin", "cos", "softplus", "log_sigmoid", "tanh"):
            for _ in range(3):
                x = Mathematics(k).apply(op, x)
        for _ in range(3):
            x = Mathematics(k).apply("pow", x, x)
        k.store(x, f.args[0])
    names = [line.split('"')[1] for line in str(k.module).splitlines() if line.startswith("define internal")]
    assert sorted(names) == [
        *("cos_v16f32", "far_reduction", "log_sigmoid_v16f32", "log_v16f32"),
        *("pow_v16f32", "pow_v8f64", "sin_v16f32", "softplus_v16f32"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("op", ONE)
def test_every_float32(op: str) -> None:
    kernels = [(kernel(op, target, "float32"), Largest(op, "float32")) for target in RUNNABLE]
    tiny, step = np.finfo("float32").tiny, 2**15
    for start in range(0, 2**32, step):
        a = np.arange(start, start + step, dtype=np.uint32).view(np.float32)
        if np.abs(a[-1]) < tiny:
            continue
        exact = ONE[op](a.astype(np.float64))
        nearest, nowhere = exact.astype(np.float32).view(np.int32), np.isnan(exact).all()
        for function, largest in kernels:
            found = function(a)
            if nowhere:
                assert np.isnan(found).all(), a
                continue
            others = np.flatnonzero(found.view(np.int32) != nearest)  # the rest are off by half a unit at most
            if others.size:
                largest.see(a[others], found[others], exact[others])
    report("float32", [largest for _, largest in kernels])


@pytest.mark.slow
@pytest.mark.parametrize("op", ONE)
def test_many_float64(op: str) -> None:
    kernels = [(kernel(op, target, "float64"), Largest(op, "float64")) for target in RUNNABLE]
    for seed in range(20):
        a = np.concatenate([some("float64", 200_000, seed), *hard(200_000, seed)])
        a = a[~np.isnan(ONE[op](a))]  # long doubles take 50 times as long for NaN
        exact = ONE[op](a.astype(WIDE))
        for function, largest in kernels:
            largest.see(a, function(a), exact)
    report("float64", [largest for _, largest in kernels])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_powers(dtype: DType) -> None:
    kernels = [(kernel("pow", target, dtype), Largest("pow", dtype)) for target in RUNNABLE]
    end, size = -float(np.log(np.finfo(dtype).tiny)), 200_000
    for seed in range(10):
        random = np.random.default_rng(seed)
        logarithms = [random.normal(size=size) * scale for scale in (1e-9, 1e-4, 0.1, 1)]
        logarithms.append(random.uniform(-end + 1, end, size))
        a = np.exp(np.concatenate(logarithms)).astype(dtype)
        exact_logarithms = np.log(a.astype(WIDE))
        results = random.uniform(-1.1, 1.1, len(a)) * end
        b = (results / np.where(exact_logarithms, exact_logarithms, 1)).astype(dtype)
        exact = np.power(a.astype(WIDE), b.astype(WIDE))
        for function, largest in kernels:
            largest.see(a, function(a, b), exact)
    report(dtype, [largest for _, largest in kernels])


def hard(size: int, seed: int) -> list[Array]:
    """Where functions of float64 lose places: beside zeros of theirs, and towards their ends."""
    random = np.random.default_rng(seed)
    tenths = 10.0 ** random.uniform(-16, 0, size)
    quarters = np.rint(2.0 ** random.uniform(0, 60, size)) * (np.pi / 2)
    return [1 + random.normal(size=size) * tenths, quarters, random.uniform(-746, 711, size), random.normal(size=size)]


def report(dtype: DType, largest: list[Largest]) -> None:
    """What stands in the decision record; `-rP` shows it."""
    for target, one in zip(RUNNABLE, largest, strict=True):
        print(dtype, target, one)  # noqa: T201
