"""Products over a block of steps for some rows of a linear, in tiles that stay in registers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import I32, I64, POINTER, VOID, Builder, Int

HEIGHTS = (8, 4, 2, 1)  # rows of tiles; those of a single row do not prefetch
_INTO_L1 = 3
_TILE_VECTORS = {32: 3, 16: 3}  # vectors of a tile, by the registers of a target
_TILE_ROWS = {32: 8, 16: 4}


class Product(NamedTuple):
    """out[r, j] = base[r, j] + sum over states s of factors[s, r] * old[s, r, j] + sum over t of c[t, r] * v[t, j].

    The last vector has `left` elements; `ld*` are leading dimensions. The states of `old` are `plane` elements apart,
    their factors one vector apart. `out` may be `base`, and one of the states. One cache line per step is prefetched:
    the first tile of rows from `soon`, the others from `later`.
    """

    rows: ir.Value
    steps: ir.Value
    left: ir.Value
    c: ir.Value
    ld_c: ir.Value
    v: ir.Value
    ld_v: ir.Value
    out: ir.Value
    ld_out: ir.Value
    base: ir.Value
    ld_base: ir.Value
    old: ir.Value
    ld_old: ir.Value
    plane: ir.Value
    factors: ir.Value
    soon: ir.Value
    ld_soon: ir.Value
    later: ir.Value
    ld_later: ir.Value


_TYPES = [I64, I64, I64, *[POINTER, I64] * 5, I64, POINTER, *[POINTER, I64] * 2]


def products(k: Builder, states: Sequence[int]) -> list[ir.Function]:
    """Emit outer{vectors}(Product) for each number of vectors that a tile may have, with these states of `old`."""
    return [_product(k, n + 1, states) for n in range(_TILE_VECTORS[k.target.registers])]


def _product(k: Builder, vectors: int, states: Sequence[int]) -> ir.Function:
    with k.function(f"outer{vectors}", _TYPES) as f:
        at, done = Product(*f.args), k.int(0)
        for high in (h for h in HEIGHTS if h <= _TILE_ROWS[k.target.registers]):
            until = k.sub(at.rows, k.rem(at.rows, high))
            with k.loop(done, until, high) as row:
                _tile(k, at, row, high, vectors, states)
            done = until
    return f


def _tile(k: Builder, at: Product, row: ir.Value, rows: int, vectors: int, states: Sequence[int]) -> None:
    cells = [(r, j) for r in range(rows) for j in range(vectors)]
    first = k.compare("<", row, 1)
    ahead, hop = k.b.select(first, at.soon, at.later), k.b.select(first, at.ld_soon, at.ld_later)
    begin: list[ir.Value] = [ahead, k.at(at.c, row), at.v, *(k.splat_constant(0.0) for _ in cells)]
    with k.carrying(0, at.steps, 1, begin) as (_, carried):
        ahead, c, v, *sums = carried
        if rows > 1:
            k.call("llvm.prefetch.p0", VOID, ahead, I32(0), I32(_INTO_L1), I32(1))
        lines = [k.load(v, j * k.lanes) for j in range(vectors)]
        found = []
        for r in range(rows):
            factor = k.splat(k.scalar(c, r))
            found += [k.fma(factor, line, sums[r * vectors + j]) for j, line in enumerate(lines)]
        carried[:] = [k.at(ahead, hop), k.at(c, at.ld_c), k.at(v, at.ld_v), *found]
    _finish(k, at, row, vectors, states, carried[3:])


def _finish(
    k: Builder, at: Product, row: ir.Value, vectors: int, states: Sequence[int], sums: Sequence[ir.Value]
) -> None:
    """All loads come before all stores: a load would wait for a neighbouring masked store."""
    masks = [None] * (vectors - 1) + [k.lanes_below(at.left)]
    totals = []
    for r in range(len(sums) // vectors):
        here = k.add(row, r)
        old = [k.at(at.old, k.mul(at.plane, s), k.mul(at.ld_old, here)) for s in states]
        factors = [k.splat(k.scalar(at.factors, here, i * k.lanes)) for i in range(len(states))]
        for j, mask in enumerate(masks):
            total = sums[r * vectors + j]
            for factor, e in zip(factors, old, strict=True):
                total = k.fma(factor, k.load(e, j * k.lanes, mask=mask), total)
            base = k.load(at.base, k.mul(at.ld_base, here), j * k.lanes, mask=mask)
            totals.append((k.b.fadd(base, total), k.at(at.out, k.mul(at.ld_out, here), j * k.lanes), mask))
    for total, place, mask in totals:
        k.store(total, place, mask=mask)


@contextmanager
def each_width(k: Builder, V: Int, most: int) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
    """Groups of nearly equal numbers of vectors, at most `most`, that cover V columns: the first column, how many
    vectors, and how many numbers the last of them has."""
    vectors = k.ceil(V, k.lanes)
    count = k.ceil(vectors, most)
    size, larger = _shares(k, vectors, count)
    with k.carrying(0, count, 1, [k.int(0)]) as (number, done):
        here = k.add(size, k.b.zext(k.compare("<", number, larger), I64))
        column = k.mul(done[0], k.lanes)
        yield column, here, k.least(k.sub(V, k.add(column, k.mul(k.sub(here, 1), k.lanes))), k.lanes)
        done[0] = k.add(done[0], here)


def _shares(k: Builder, total: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The size of each of `parts` equal shares, and how many have one more."""
    some = k.b.select(k.compare("<", count, 1), k.int(1), count)
    return k.div(total, some), k.rem(total, some)
