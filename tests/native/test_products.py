"""Products and packing: against numpy in float64, without a stray access, bits that hang on nothing but the numbers."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from native_calls import Array, Calls, calls, everywhere, guarded, rows_of
from tidegate.native.compile.gemm import GRADIENT_BLOCK, STRIP_WIDTH, scratch_numbers

VECTORS = [1, 2, 3, 4]


@pytest.fixture
def call(request: pytest.FixtureRequest) -> Calls:
    return calls(*request.param)


class Product:
    """A product of random numbers: rows of a with a gap between them, blocks of w and of c likewise."""

    def __init__(self, call: Calls, vectors: int, rows: int, depth: int, blocks: int, gap: int = 3) -> None:
        self.call, self.vectors, self.rows, self.depth, self.blocks = call, vectors, rows, depth, blocks
        self.width = vectors * call.lanes
        self.a = call.some(max(1, rows), depth + gap)[:, gap:]
        self.w_stride = depth * self.width + gap
        self.w = call.some(max(1, blocks * self.w_stride - gap))
        self.c = call.some(max(1, rows), blocks * (self.width + gap) + 1)

    def weights(self, block: int) -> Array:
        start = block * self.w_stride
        return self.w[start : start + self.depth * self.width].reshape(self.depth, self.width)

    def run(self, fresh: bool, row: int = 0, rows: int | None = None) -> Array:
        """The result, of all rows or of some; what is not to be written is found as it was."""
        c = guarded(self.c)
        lda, ldc = self.a.strides[0] // self.a.itemsize, c.shape[1]
        self.call(
            f"product{self.vectors}",
            *(self.rows if rows is None else rows, self.depth, self.a[row:], lda, self.w, self.blocks, self.w_stride),
            *(c[row:], ldc, c.shape[1] // max(1, self.blocks), int(fresh)),
        )
        return c

    def expected(self, fresh: bool) -> Array:
        c = self.c.astype(float)
        for n in range(self.blocks if self.rows else 0):
            own = c[:, n * (c.shape[1] // self.blocks) :][:, : self.width]
            own[:] = (0.0 if fresh else own) + self.a.astype(float) @ self.weights(n).astype(float)
        return c


@everywhere
@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("depth", [0, 1, 7, 37, 100])
def test_product(call: Calls, vectors: int, depth: int) -> None:
    for rows in (0, 1, 2, 3, 7, 8, 17, 37):
        for blocks in (0, 1, 2, 3, 4, 7, 9):
            product = Product(call, vectors, rows, depth, blocks)
            for fresh in (False, True):
                assert call.close(product.run(fresh), product.expected(fresh), depth), (rows, blocks, fresh)


@everywhere
@pytest.mark.parametrize("vectors", VECTORS)
def test_product_of_many_rows_and_much_depth(call: Calls, vectors: int) -> None:
    for rows, depth, blocks in ((16, 400, 2), (67, 513, 3), (300, 40, 5)):
        product = Product(call, vectors, rows, depth, blocks)
        for fresh in (False, True):
            assert call.close(product.run(fresh), product.expected(fresh), 4 * depth)


@everywhere
@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize(("rows", "depth", "blocks"), [(7, 37, 9), (37, 100, 3), (41, 400, 5), (300, 7, 2)])
def test_a_row_alone_has_the_bits_it_has_in_company(
    call: Calls, vectors: int, rows: int, depth: int, blocks: int
) -> None:
    product = Product(call, vectors, rows, depth, blocks)
    for fresh in (False, True):
        together = product.run(fresh)
        for row in {0, rows // 2, rows - 1}:
            assert np.array_equal(product.run(fresh, row, 1)[row], together[row])
        pair = product.run(fresh, 1, 2)
        assert np.array_equal(pair[1:3], together[1:3])


@everywhere
@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("rows", [1, 2, 5, 16])
def test_a_product_is_one_chain_in_ascending_order(call: Calls, vectors: int, rows: int) -> None:
    """Cut anywhere and continued, it has the same bits."""
    whole = Product(call, vectors, rows, 400, 4, gap=0)
    expected = whole.run(True)
    c = guarded(whole.c)
    for start, stop in ((0, 1), (1, 130), (130, 400)):
        a, w, width = whole.a[:, start:], whole.w[start * whole.width :], whole.width
        call(f"product{vectors}", rows, stop - start, a, 400, w, 4, 400 * width, c, c.shape[1], width, int(start == 0))
    assert np.array_equal(c, expected)


def test_a_chain_rounds_once_a_step() -> None:
    """1 + 2^-30 comes out of a product that a separate rounding would have made 1."""
    call = calls("avx2", "float32")
    a, w = np.array([[1.0, 1 + 2.0**-15]], np.float32), np.zeros((2, 8), np.float32)
    w[0], w[1] = -1 - 2.0**-14, 1 + 2.0**-15
    c = np.zeros((1, 8), np.float32)
    call("product1", 1, 2, a, 2, w, 1, 0, c, 8, 0, 1)
    assert np.all(c == 2.0**-30)


# packing


def unpacked(call: Calls, dst: Array, panels: int, depth: int, q: int, stride: int, width: int, column: int) -> Array:
    """[depth, panels * lanes] out of the blocks."""
    found = np.zeros((depth, panels * call.lanes), call.dtype)
    for panel in range(panels):
        for k in range(depth):
            start = panel // q * stride + k * width + column + panel % q * call.lanes
            found[k, panel * call.lanes :][: call.lanes] = dst[start : start + call.lanes]
    return found


@everywhere
@pytest.mark.parametrize("units", [1, 7, 37, 100])
@pytest.mark.parametrize("depth", [0, 1, 7, 37, 100])
@pytest.mark.parametrize("turned", [True, False])
def test_packing(call: Calls, units: int, depth: int, turned: bool) -> None:
    panels = -(-units // call.lanes)
    for q in (1, 2, 3):
        column, width = call.lanes // 2, q * call.lanes + call.lanes // 2
        stride = depth * width + 5
        size = max(1, (panels - 1) // q * stride + depth * width)
        matrix = call.some(units, depth) if turned else call.some(depth, units)
        dst = guarded(np.full(size, np.nan, call.dtype))
        function, inner, outer = ("pack_transposed", depth, units) if turned else ("pack_plain", units, depth)
        half = panels // 2
        for p0, p1 in ((half, panels), (0, half)):
            call(function, matrix, inner, outer, inner, dst, p0, p1, q, stride, width, column)
        found = unpacked(call, dst, panels, depth, q, stride, width, column)
        assert np.array_equal(found[:, :units], matrix.T if turned else matrix)
        assert np.isfinite(found).all()
        assert np.isfinite(dst).sum() == panels * depth * call.lanes


# few units


@everywhere
@pytest.mark.parametrize("units", [1, 2, 4])
@pytest.mark.parametrize("depth", [0, 1, 7, 37, 100, 600])
def test_narrow(call: Calls, units: int, depth: int) -> None:
    a, m, c = call.some(5, depth), call.some(units, depth), call.some(5, units + 2)
    for fresh in (False, True):
        found = guarded(c)
        call("narrow", 5, depth, a, depth, m, depth, units, found, units + 2, int(fresh))
        expected = c.astype(float)
        expected[:, :units] = (0.0 if fresh else expected[:, :units]) + a.astype(float) @ m.astype(float).T
        assert call.close(found, expected, depth)
        alone = guarded(c)
        call("narrow", 1, depth, a[3:], depth, m, depth, units, alone[3:], units + 2, int(fresh))
        assert np.array_equal(alone[3], found[3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_narrow_has_the_same_bits_on_every_target(dtype: str) -> None:
    a = np.random.default_rng(3).standard_normal((2, 333)).astype(dtype)
    found = []
    for name in ("avx512", "avx2"):
        c = np.zeros((2, 1), dtype)
        calls(name, dtype)("narrow", 2, 333, a, 333, a, 333, 1, c, 1, 1)
        found.append(c)
    assert np.array_equal(*found)


# gradients of weights


def blocks_of(count: int) -> Array:
    """The first row of each block and how many it has, the last block first; one is shorter."""
    starts = range(0, count, GRADIENT_BLOCK)
    return np.array([(t, min(GRADIENT_BLOCK, count - t)) for t in reversed(starts)], np.int64).reshape(-1, 2)


class Gradient:
    """Random rows d and v, of which d is wider than what is asked for, and a result that is added to."""

    def __init__(self, call: Calls, count: int, m: int, n: int) -> None:
        self.call, self.count, self.m, self.n = call, count, m, n
        self.d, self.v = call.some(count, m + 3), call.some(count, n)
        self.d_rows, self.v_rows, self.blocks = rows_of(self.d), rows_of(self.v), blocks_of(count)
        self.out, self.bias = call.some(m, n + 2), call.some(m)

    def run(self, *cuts: int, bias: bool = True, blocks: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """The result, its rows cut at `cuts` as among threads, the summed rows after so many `blocks`."""
        out, sums = guarded(self.out), guarded(self.bias)
        with ThreadPoolExecutor(2) as pool:
            for t0, t1 in zip((0, *blocks), (*blocks, len(self.blocks)), strict=True):
                borders = zip((0, *cuts), (*cuts, self.m), strict=True)
                list(pool.map(lambda ij, t0=t0, t1=t1: self._part(out, sums if bias else None, t0, t1, *ij), borders))
        return out, sums

    def _part(self, out: Array, bias: Array | None, t0: int, t1: int, i: int, j: int) -> None:
        scratch = self.call.some(max(1, scratch_numbers(self.n, self.call.target, self.call.dtype)))
        sums = 0 if bias is None else bias[i:].ctypes.data
        table, (here, ldo) = self.blocks[t0:t1], (out[i:].ctypes.data, self.n + 2)
        given = (t1 - t0, table, self.d_rows, 3 + i, j - i, self.v_rows, self.n, here, ldo, sums, scratch)
        self.call("weight_gradient", *given)

    def expected(self) -> tuple[Array, Array]:
        out, d = self.out.astype(float), self.d[:, 3:].astype(float)
        out[:, : self.n] += d.T @ self.v.astype(float)
        return out, self.bias.astype(float) + d.sum(0)


@everywhere
@pytest.mark.parametrize("n", [1, 3, 4, 5, STRIP_WIDTH, STRIP_WIDTH + 1, 37, 100])
def test_weight_gradient(call: Calls, n: int) -> None:
    for count in (0, 1, 7, GRADIENT_BLOCK, 300):
        for m in (1, 7, 37, 100):
            gradient = Gradient(call, count, m, n)
            for found, expected in zip(gradient.run(), gradient.expected(), strict=True):
                assert call.close(found, expected, 4 * count), (count, m)


@everywhere
@pytest.mark.parametrize(("count", "m", "n"), [(140, 600, 9), (140, 20, 600), (20, 550, 550), (10, 600, 1)])
def test_weight_gradient_of_large_matrices(call: Calls, count: int, m: int, n: int) -> None:
    gradient = Gradient(call, count, m, n)
    for found, expected in zip(gradient.run(), gradient.expected(), strict=True):
        assert call.close(found, expected, 4 * count)


@everywhere
@pytest.mark.parametrize("n", [1, 7, 37, 100])
def test_bits_of_a_weight_gradient_do_not_hang_on_how_it_is_cut(call: Calls, n: int) -> None:
    gradient = Gradient(call, 3 * GRADIENT_BLOCK + 5, 100, n)
    whole = gradient.run()
    for cuts in ((50,), (1, 64, 99), (37,)):
        for one, other in zip(whole, gradient.run(*cuts), strict=True):
            assert np.array_equal(one, other)
    for one, other in zip(whole, gradient.run(50, blocks=(1, 3)), strict=True):
        assert np.array_equal(one, other)


@everywhere
@pytest.mark.parametrize("n", [1, 37])
def test_a_weight_gradient_without_bias(call: Calls, n: int) -> None:
    gradient = Gradient(call, 50, 20, n)
    out, sums = gradient.run(bias=False)
    assert np.array_equal(out, gradient.run()[0])
    assert np.array_equal(sums, gradient.bias)


@everywhere
def test_sums_of_a_weight_gradient_are_chains_of_a_block(call: Calls) -> None:
    """A chain of ones past 2^24 would stand still in float32; sums of blocks go on."""
    count = 3 * GRADIENT_BLOCK
    d, v = np.ones((count, 1), call.dtype), np.ones((count, 1), call.dtype)
    out, bias = np.full((1, 1), 2.0**24, call.dtype), np.full(1, 2.0**24, call.dtype)
    call("weight_gradient", 3, blocks_of(count), rows_of(d), 0, 1, rows_of(v), 1, out, 1, bias, 0)
    assert out[0, 0] == bias[0] == 2.0**24 + count


def test_scratch_is_bounded() -> None:
    for name in ("avx512", "avx2"):
        for dtype in ("float32", "float64"):
            call = calls(name, dtype)
            size = ctypes.sizeof(ctypes.c_float if dtype == "float32" else ctypes.c_double)
            assert scratch_numbers(1 << 20, call.target, call.dtype) * size <= 4 << 20
            assert scratch_numbers(STRIP_WIDTH, call.target, call.dtype) == 0
