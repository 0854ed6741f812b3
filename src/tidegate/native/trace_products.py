"""Products of traces: what some rows of a linear gain over a block of steps, in tiles that stay in registers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tidegate.native._llvm import ir
from tidegate.native.builder import I1, I32, I64, POINTER, VOID, Builder, Int

HEIGHTS = (8, 4, 2, 1)  # rows of tiles; those of a single row do not prefetch
_INTO_L1 = 3
_WIDEST = {32: 3, 16: 3}  # vectors of a tile, by the registers of a target
_TALLEST = {32: 8, 16: 4}


class Product(NamedTuple):
    """out[r * ldo + j] += sum over the steps t of c[t * ldc + r] * v[t * ldv + j]; with `fresh`, = instead of +=.

    The last of the tile's vectors has `left` numbers. A sum is one chain over the steps, from 0. What is read soon is
    fetched meanwhile, a line a step: the first tile of rows begins at `soon` and goes on by `soon_hop`, the others at
    `later`.
    """

    rows: ir.Value
    steps: ir.Value
    c: ir.Value
    ldc: ir.Value
    v: ir.Value
    ldv: ir.Value
    out: ir.Value
    ldo: ir.Value
    fresh: ir.Value
    left: ir.Value
    soon: ir.Value
    soon_hop: ir.Value
    later: ir.Value
    later_hop: ir.Value


_TYPES = [I64, I64, POINTER, I64, POINTER, I64, POINTER, I64, I1, I64, POINTER, I64, POINTER, I64]


def products(k: Builder) -> list[ir.Function]:
    """outer{vectors}(Product), for each number of vectors that a tile may have."""
    return [_product(k, n + 1) for n in range(_WIDEST[k.target.registers])]


def _product(k: Builder, vectors: int) -> ir.Function:
    with k.function(f"outer{vectors}", _TYPES) as f:
        at, done = Product(*f.args), k.int(0)
        for high in (h for h in HEIGHTS if h <= _TALLEST[k.target.registers]):
            until = k.sub(at.rows, k.rem(at.rows, high))
            with k.loop(done, until, high) as row:
                _tile(k, at, row, high, vectors)
            done = until
    return f


def _tile(k: Builder, at: Product, row: ir.Value, rows: int, vectors: int) -> None:
    masks = [None] * (vectors - 1) + [k.lanes_below(at.left)]
    cells = [(r, j) for r in range(rows) for j in range(vectors)]
    first = k.compare("<", row, 1)
    ahead, hop = k.b.select(first, at.soon, at.later), k.b.select(first, at.soon_hop, at.later_hop)
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
        carried[:] = [k.at(ahead, hop), k.at(c, at.ldc), k.at(v, at.ldv), *found]
    for (r, j), total in zip(cells, carried[3:], strict=True):
        place, mask = k.at(at.out, k.mul(at.ldo, k.add(row, r)), j * k.lanes), masks[j]
        before = k.b.select(at.fresh, k.splat_constant(0.0), k.load(place, mask=mask))
        k.store(k.b.fadd(before, total), place, mask=mask)


@contextmanager
def each_width(k: Builder, V: Int, most: int) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
    """Groups of nearly as many vectors each, `most` at most, that cover V columns: the first column, how many vectors,
    and how many numbers the last of them has."""
    vectors = k.ceil(V, k.lanes)
    count = k.ceil(vectors, most)
    size, larger = _shares(k, vectors, count)
    with k.carrying(0, count, 1, [k.int(0)]) as (number, done):
        here = k.add(size, k.b.zext(k.compare("<", number, larger), I64))
        column = k.mul(done[0], k.lanes)
        yield column, here, k.least(k.sub(V, k.add(column, k.mul(k.sub(here, 1), k.lanes))), k.lanes)
        done[0] = k.add(done[0], here)


def _shares(k: Builder, total: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
    """How many of a total each of so many has, and how many have one more; there may be none."""
    some = k.b.select(k.compare("<", count, 1), k.int(1), count)
    return k.div(total, some), k.rem(total, some)
