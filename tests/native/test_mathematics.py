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
from tidegate.native.builder import I32, POINTER, VOID, Builder
from tidegate.native.mathematics import Mathematics
from tidegate.native.target import TARGETS, DType
from tidegate.reference import numpy_ops

Array = np.ndarray
WIDE = np.longdouble
FLUSH = 0x8040  # denormal numbers are zero, as in the kernels
DTYPES: list[DType] = ["float32", "float64"]

# The largest errors in units of the last place. Of float32: over every number, as measured for avx512 and avx2.
EVERY = {
    "exp": (1.0, 1.0),
    "expm1": (1.5, 1.5),
    "log": (1.0, 1.0),
    "log1p": (1.0, 1.0),
    "sqrt": (0.5, 0.5),
    "sin": (2.0, 2.0),
    "cos": (2.0, 2.0),
    "tanh": (4.0, 4.0),
    "sigmoid": (4.0, 4.0),
    "softplus": (2.0, 2.0),
    "log_sigmoid": (2.0, 2.0),
}
DOUBLE = {
    "exp": 1.0,
    "expm1": 2.0,
    "log": 1.0,
    "log1p": 1.0,
    "sqrt": 0.5,
    "sin": 2.5,
    "cos": 2.5,
    "tanh": 3.0,
    "sigmoid": 3.0,
    "softplus": 2.0,
    "log_sigmoid": 2.0,
}


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
        padded = [np.ascontiguousarray(np.pad(a, (0, -size % 16), mode="edge")) for a in arrays]
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
    size = np.where(normal, np.abs(exact), 1)
    place = np.ldexp(np.ones_like(size), np.frexp(size)[1] - 1 - info.nmant)
    return np.where(normal, np.abs(found - exact) / place, 0)


def wrong(found: Array, exact: Array) -> Array:
    """Where a result that is not normal is not as it should be: NaN, infinite, or nearly nothing."""
    info = np.finfo(found.dtype)
    normal = (np.abs(exact) >= info.tiny) & (np.abs(exact) <= info.max)
    small = (np.abs(exact) < info.tiny) & (np.abs(found) <= info.tiny)
    great = (np.abs(exact) > info.max) & (np.abs(found) >= info.max) & (np.sign(found) == np.sign(exact))
    return ~(normal | small | great | (np.isnan(exact) & np.isnan(found)))


def corners(dtype: DType) -> Array:
    info = np.finfo(dtype)
    edge = np.array([np.log(info.max), np.log(info.tiny), info.tiny, info.max, np.inf, 0, 1, 2, 3, 0.5, 1.5, 2.0**60])
    near = [np.nextafter(edge.astype(dtype), np.dtype(dtype).type(to)) for to in (-np.inf, np.inf)]
    found = np.unique(np.concatenate([edge.astype(dtype), *near]))
    found = found[(np.abs(found) >= info.tiny) | (found == 0)]
    return np.concatenate([found, -found, [np.nan]]).astype(dtype)


def some(dtype: DType, size: int = 1_000_000) -> Array:
    """Numbers of ordinary sizes, and of every size."""
    random, info = np.random.default_rng(11), np.finfo(dtype)
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


def bound(op: str, target: str, dtype: DType) -> float:
    return DOUBLE[op] if dtype == "float64" else EVERY[op][list(TARGETS).index(target)]


@everywhere
@pytest.mark.parametrize("op", ONE)
def test_functions(op: str, target: str, dtype: DType) -> None:
    a, exact = exactly(op, dtype)
    found = kernel(op, target, dtype)(a)
    assert not np.any(wrong(found, exact)), a[wrong(found, exact)][:5]
    assert units(found, exact).max() <= bound(op, target, dtype)


@everywhere
@pytest.mark.parametrize("op", [*ONE, *EXACT_ONE])
def test_corners_whatever_the_mode(op: str, target: str, dtype: DType) -> None:
    a = np.concatenate([corners(dtype), [np.finfo(dtype).smallest_subnormal * 5]]).astype(dtype)
    exact = {**ONE, **EXACT_ONE}[op](a.astype(WIDE))
    for mode in (0, FLUSH):
        found = kernel(op, target, dtype)(a, mode=mode)
        if op != "log" and op != "sign":
            assert not np.any(wrong(found, exact)), (mode, a[wrong(found, exact)])
        assert np.array_equal(np.isnan(found), np.isnan(exact))


@everywhere
@pytest.mark.parametrize("op", EXACT_ONE)
def test_exact_functions(op: str, target: str, dtype: DType) -> None:
    a = np.concatenate([corners(dtype), some(dtype, 10_000)])
    assert np.array_equal(kernel(op, target, dtype)(a), EXACT_ONE[op](a), equal_nan=True)


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
    assert units(found, exact).max() <= (2.5 if dtype == "float64" else 0.501)
    signed = np.isinf(exact) | (exact == 0)
    assert np.array_equal(np.signbit(found[signed]), np.signbit(exact[signed])) or np.any(np.isnan(exact[signed]))


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
    kernels = [kernel(op, target, "float32") for target in TARGETS]
    worst, tiny, step = [0.0 for _ in kernels], np.finfo("float32").tiny, 2**17
    for start in range(0, 2**32, step):
        a = np.arange(start, start + step, dtype=np.uint32).view(np.float32)
        if np.abs(a[-1]) < tiny:
            continue
        exact = ONE[op](a.astype(np.float64))
        size = np.abs(exact)
        usual = (size >= tiny) & (size <= np.finfo("float32").max)
        place = ((size.view(np.int64) & (0x7FF << 52)) - (23 << 52)).view(np.float64)
        for i, function in enumerate(kernels):
            found = function(a)
            if not usual.all():
                assert not np.any(wrong(found, exact)), a[wrong(found, exact)][:5]
            error = np.abs(found - exact) / place
            worst[i] = max(worst[i], error.max() if usual.all() else np.max(error, where=usual, initial=0))
    assert np.all(worst <= np.array(EVERY[op])), worst
