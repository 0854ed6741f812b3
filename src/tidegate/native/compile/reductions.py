"""Sums over units, their reverse, and gathering of rows: emitted once into the library."""

from collections.abc import Callable, Sequence

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import I32, I64, POINTER, Builder
from tidegate.native.compile.library import symbol

PARTIALS = 16  # partial sums, the same for every target so that the bits are the same


def emit(k: Builder) -> None:
    """Emit total, spread and gather into a library."""
    _total(k)
    _spread(k)
    _gather(k)


def _total(k: Builder) -> None:
    """total: (rows, a, lda, units, groups, c, ldc): c[r * ldc + g] = the sum of group g's units / groups neighbours.

    Unit j of a group goes to partial sum j % 16, ascending; the partial sums are added in halves.
    """
    with k.function(symbol("total", k.target, k.dtype), [I64, POINTER, I64, I64, I64, POINTER, I64], public=True) as f:
        rows, a, lda, units, groups, c, ldc = f.args
        size = k.div(units, groups)
        whole = k.b.and_(size, k.int(-PARTIALS))
        starts = range(0, PARTIALS, k.lanes)
        masks = [k.lanes_below(k.sub(size, k.add(whole, start))) for start in starts]
        with k.loop(0, rows) as row, k.loop(0, groups) as group:
            here = k.at(a, k.mul(row, lda), k.mul(group, size))
            with k.carrying(0, whole, PARTIALS, [k.splat_constant(0.0) for _ in starts]) as (index, sums):
                for i, start in enumerate(starts):
                    sums[i] = k.b.fadd(sums[i], k.load(here, index, start))
            for i, start in enumerate(starts):
                sums[i] = k.b.fadd(sums[i], k.load(here, whole, start, mask=masks[i]))
            k.b.store(added(k, sums), k.at(c, k.mul(row, ldc), group))


def added(k: Builder, sums: Sequence[ir.Value]) -> ir.Value:
    """The sum of all lanes of all vectors: halves are added until one is left, in the same order for every target."""
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [k.b.fadd(x, y) for x, y in zip(sums[:half], sums[half:], strict=True)]
    vector, width = sums[0], k.lanes
    while width > 1:
        width //= 2
        order = [(i + width) % k.lanes for i in range(k.lanes)]
        moved = k.b.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, k.lanes), order))
        vector = k.b.fadd(vector, moved)
    return k.b.extract_element(vector, I32(0))


def _spread(k: Builder) -> None:
    """spread: (rows, a, lda, groups, units, c, ldc): each group's value copied units / groups times."""
    with k.function(symbol("spread", k.target, k.dtype), [I64, POINTER, I64, I64, I64, POINTER, I64], public=True) as f:
        rows, a, lda, groups, units, c, ldc = f.args
        size = k.div(units, groups)
        with k.loop(0, rows) as row, k.loop(0, groups) as group:
            value = k.splat(k.scalar(a, k.mul(row, lda), group))
            out = k.at(c, k.mul(row, ldc), k.mul(group, size))
            strips(k, size, lambda index, mask: k.store(value, out, index, mask=mask))


def _gather(k: Builder) -> None:
    """gather: (rows, pointers, width, c, ldc): c[r * ldc + 0..width) = pointers[r][0..width)."""
    with k.function(symbol("gather", k.target, k.dtype), [I64, POINTER, I64, POINTER, I64], public=True) as f:
        rows, pointers, width, c, ldc = f.args
        with k.loop(0, rows) as row:
            here, out = k.load_pointer(pointers, row), k.at(c, k.mul(row, ldc))
            strips(k, width, lambda i, mask: k.store(k.load(here, i, mask=mask), out, i, mask=mask))


def strips(k: Builder, width: ir.Value, body: Callable[[ir.Value, ir.Value | None], None]) -> None:
    """Call body(index, mask) for each vector of a row; full vectors have no mask."""
    whole = k.b.and_(width, k.int(-k.lanes))
    with k.loop(0, whole, k.lanes) as index:
        body(index, None)
    with k.when(k.compare("<", whole, width)):
        body(whole, k.lanes_below(k.sub(width, whole)))
