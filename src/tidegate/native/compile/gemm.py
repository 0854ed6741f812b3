"""Matrix products and packing for all kernels: emitted once into the library.

Every element of `product` is one chain of fused multiply-adds over the depth in ascending order, whatever tile it is
in, so a row's bits depend neither on the other rows nor on threads. A tile hides the latency of its chains by having
many of them: rows times vectors, and with few rows, several blocks of weights side by side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import I32, I64, POINTER, VOID, Builder, Int
from tidegate.native.compile.library import symbol
from tidegate.native.compile.reductions import added
from tidegate.native.target import DType, Target

BLOCKED_DEPTH, BLOCKED_ROWS, DEPTH_BLOCK = 384, 16, 128  # depth and rows from which blocks of the depth stay in L1
L2_WEIGHT_BYTES = 1 << 20  # bytes of weights that stay in L2
L2_ROWS, UNCACHED_ROWS = 48, 256  # rows per pass over a block of weights, if all weights stay in L2 and if not
PREFETCH_ROWS = 3  # rows of a tile from which it prefetches; smaller tiles have no time for it
PREFETCH_TO_L2 = 2  # locality of prefetches; L1 would evict what is in use

GRADIENT_BLOCK = 128  # the most rows that are summed in one chain in `weight_gradient`
STRIP_WIDTH = 8  # width up to which `weight_gradient` has its lanes along the rows of the result


def emit(k: Builder) -> None:
    """Emit products and packing into a library."""
    for vectors in (1, 2, 3, 4):
        _product(k, vectors)
    _narrow(k)
    _turn(k)
    _pack_transposed(k)
    _pack_plain(k)
    _weight_gradient(k)


# products


@dataclass(frozen=True)
class _Tiles:
    """Tiles of up to `rows` rows by `vectors` vectors; used for products of at most `limit` rows."""

    vectors: int
    rows: int
    limit: int = 1 << 30


_TILES: dict[int, tuple[_Tiles, ...]] = {  # by the registers of a target; widest first
    32: (_Tiles(8, 1, 1), _Tiles(6, 2, 2), _Tiles(4, 6), _Tiles(3, 6), _Tiles(2, 8), _Tiles(1, 8)),
    16: (_Tiles(8, 1, 1), _Tiles(6, 2, 2), _Tiles(4, 3), _Tiles(3, 4), _Tiles(2, 6), _Tiles(1, 8)),
}
_Load = Callable[[], ir.Value]
ADDED = 2  # value of `fresh`: the chain starts from 0, and its sum is added to c
# strides of a product: a by rows and depth, c by rows, w by depth; hops to the vectors of w and c; the same of what is
# prefetched, a line for each step of the depth
_SHAPE = ("lda", "step", "ldc", "width", "w1", "w2", "w4", "c1", "c2", "c4", "ahead", "p1", "p2", "first", "most")
_GROUP = [I64, I64, POINTER, POINTER, POINTER, I64, POINTER, POINTER]  # rows, depth, a, w, c, fresh, shape, next


def _form(k: Builder, shape: ir.Value, **values: Int) -> None:
    for i, name in enumerate(_SHAPE):
        k.b.store(k.int(values[name]), k.at_int(shape, i))


def _shape(k: Builder, shape: ir.Value) -> dict[str, ir.Value]:
    return {name: k.load_int(shape, i) for i, name in enumerate(_SHAPE)}


def _hops(k: Builder, vectors: int, hops: Sequence[ir.Value]) -> list[ir.Value]:
    """The offset of each vector: vector j is at the sum of the hops for the bits of j (six: three and three)."""
    numbers = range(vectors) if vectors != 6 else (0, 1, 2, 4, 5, 6)
    return [k.add(0, *(hop for bit, hop in enumerate(hops) if j >> bit & 1)) for j in numbers]


def _product(k: Builder, vectors: int) -> None:
    """product{W}: (rows, depth, a, lda, w, blocks, w_stride, c, ldc, c_stride, fresh)

    For each block n and row r: c[n * c_stride + r * ldc + 0..WV) = (0 if fresh else itself) + sum over the depth k of
    a[r * lda + k] * w[n * w_stride + k * WV + 0..WV).

    A tile's vectors belong to one block or to several side by side, with the given hops between them.
    """
    name = symbol(f"product{vectors}", k.target, k.dtype)
    arguments = [I64, I64, POINTER, I64, POINTER, I64, I64, POINTER, I64, I64, I64]
    group = _group(k)
    with k.function(name, arguments, public=True) as f:
        rows, depth, a, lda, w, blocks, w_stride, c, ldc, c_stride, fresh = f.args
        shape = k.stack_array(I64, len(_SHAPE))
        inside = {1: 0, 2: 1, 3: 2, 4: 2}[vectors]  # hops inside a block; the others lead to the next block
        near = [k.int(k.lanes << bit) for bit in range(inside)]
        w1, w2, w4 = near + [k.mul(w_stride, 1 << bit) for bit in range(3 - inside)]
        c1, c2, c4 = near + [k.mul(c_stride, 1 << bit) for bit in range(3 - inside)]
        width = vectors * k.lanes
        hops = {"w1": w1, "w2": w2, "w4": w4, "c1": c1, "c2": c2, "c4": c4}
        _form(k, shape, lda=lda, step=1, ldc=ldc, width=width, **hops, ahead=width, p1=w1, p2=w2, first=0, most=0)
        numbers = k.mul(k.mul(depth, vectors * k.lanes), blocks)
        most = k.b.select(k.compare("<=", numbers, L2_WEIGHT_BYTES // k.item), k.int(L2_ROWS), k.int(UNCACHED_ROWS))
        height = k.ceil(rows, _at_least_1(k, k.ceil(rows, most)))
        with k.loop(0, rows, _at_least_1(k, height)) as row:
            count = k.least(height, k.sub(rows, row))
            here, there = k.at(a, k.mul(row, lda)), k.at(c, k.mul(row, ldc))
            done = k.int(0)
            for tiles in _TILES[k.target.registers]:
                if tiles.vectors % vectors or (tiles.vectors == 6 and vectors != 3):
                    continue
                side = tiles.vectors // vectors
                _choose(k, shape, *(k.int(value) for value in _kernels(k, tiles.vectors)))
                until = k.add(done, k.mul(k.div(k.sub(blocks, done), side), side))
                if tiles.limit < UNCACHED_ROWS:
                    until = k.b.select(k.compare("<=", rows, tiles.limit), until, done)
                with k.loop(done, until, side) as n:
                    weights, out = k.at(w, k.mul(n, w_stride)), k.at(there, k.mul(n, c_stride))
                    following = k.at(weights, k.mul(w_stride, side))
                    k.b.call(group, [count, depth, here, weights, out, fresh, shape, following])
                done = until


def _at_least_1(k: Builder, value: ir.Value) -> ir.Value:
    return k.b.select(k.compare("<", value, 1), k.int(1), value)


def _kernels(k: Builder, vectors: int) -> tuple[int, int]:
    """The number of the one-row kernel for this many vectors, and the most rows of the others."""
    number = 0
    for tiles in _TILES[k.target.registers]:
        if tiles.vectors == vectors:
            return number, tiles.rows
        number += tiles.rows
    raise ValueError(f"there are no tiles of {vectors} vectors")


def _choose(k: Builder, shape: ir.Value, first: ir.Value, most: ir.Value) -> None:
    for name, value in (("first", first), ("most", most)):
        k.b.store(value, k.at_int(shape, _SHAPE.index(name)))


def _group(k: Builder) -> ir.Function:
    """All rows by some vectors: the depth in blocks that stay in L1, the rows in tiles of nearly equal size."""
    if found := k.defined("group"):
        return found
    kernels = [_tile(k, row + 1, t.vectors) for t in _TILES[k.target.registers] for row in range(t.rows)]
    with k.function("group", _GROUP) as f:
        rows, depth, a, w, c, fresh, shape, following = f.args
        of = _shape(k, shape)
        count = k.ceil(rows, of["most"])
        size = k.div(rows, count)
        larger = k.sub(rows, k.mul(size, count))  # tiles with one more row
        deep = k.b.and_(k.compare(">=", depth, BLOCKED_DEPTH), k.compare(">=", rows, BLOCKED_ROWS))
        step = k.b.select(deep, k.int(DEPTH_BLOCK), _at_least_1(k, depth))
        with k.loop(0, _at_least_1(k, depth), step) as start:
            part = k.least(step, k.sub(depth, start))
            weights = k.at(w, k.mul(start, of["width"]))
            mode = k.b.select(k.compare("==", start, 0), fresh, k.int(0))
            last = k.compare(">=", k.add(start, step), depth)
            ahead = k.b.select(last, following, k.at(weights, k.mul(step, of["width"])))
            with k.carrying(0, count, carry=[k.int(0)]) as (number, state):
                row = state[0]
                high = k.add(size, k.b.zext(k.compare("<", number, larger), I64))
                here = k.at(a, k.mul(row, of["lda"]), k.mul(start, of["step"]))
                there = k.at(c, k.mul(row, of["ldc"]))
                even, low = k.mul(k.div(k.rem(number, 4), 2), of["p2"]), k.mul(k.rem(number, 2), of["p1"])
                arguments = [part, here, weights, there, mode, shape, k.at(ahead, even, low)]
                switch(k, k.add(of["first"], high), kernels, arguments)
                state[0] = k.add(row, high)
    return f


def switch(k: Builder, number: ir.Value, kernels: Sequence[ir.Function], arguments: Sequence[ir.Value]) -> None:
    """Call the kernel of this number, counted from 1."""
    after = k.b.function.append_basic_block("after")
    choice = k.b.switch(number, after)
    for index, kernel in enumerate(kernels, 1):
        block = k.b.function.append_basic_block("case")
        choice.add_case(k.int(index), block)
        k.b.position_at_end(block)
        k.b.call(kernel, arguments)
        k.b.branch(after)
    k.b.position_at_end(after)


def _tile(k: Builder, rows: int, vectors: int) -> ir.Function:
    """tile{R}x{vectors}: (depth, a, w, c, fresh, shape); the sums stay in registers over the whole depth."""
    with k.function(f"tile{rows}x{vectors}", [I64, POINTER, POINTER, POINTER, I64, POINTER, POINTER]) as f:
        depth, a, w, c, fresh, shape, ahead = f.args
        of = _shape(k, shape)
        inputs = [k.at(a, k.mul(of["lda"], r)) for r in range(rows)]
        weights = [k.at(w, hop) for hop in _hops(k, vectors, [of["w1"], of["w2"], of["w4"]])]
        columns = _hops(k, vectors, [of["c1"], of["c2"], of["c4"]])
        places = [k.at(c, k.mul(of["ldc"], r), column) for r in range(rows) for column in columns]
        sums = _either(k, fresh, places)
        with k.carrying(0, depth, 1, [k.int(0), k.int(0), ahead, *sums]) as (_, carried):
            index, offset, ahead, *sums = carried
            if rows >= PREFETCH_ROWS:
                k.call("llvm.prefetch.p0", VOID, ahead, I32(0), I32(PREFETCH_TO_L2), I32(1))
            factors = [lambda p=p: k.splat(k.scalar(p, index)) for p in inputs]
            lines = [lambda p=p: k.load(p, offset) for p in weights]
            _outer(k, factors, lines, sums)
            moved = [k.add(index, of["step"]), k.add(offset, of["width"]), k.at(ahead, of["ahead"])]
            carried[:] = [*moved, *sums]
        with k.b.if_else(k.compare("==", fresh, ADDED)) as (added, written):
            with added:
                for place, total in zip(places, carried[3:], strict=True):
                    k.store(k.b.fadd(k.load(place), total), place)
            with written:
                for place, total in zip(places, carried[3:], strict=True):
                    k.store(total, place)
    return f


def _outer(k: Builder, rows: Sequence[_Load], columns: Sequence[_Load], sums: list[ir.Value]) -> None:
    """Add a column times a row to the sums: the shorter is held in registers, the longer is streamed."""
    width = len(columns)
    if len(rows) < width:
        held = [load() for load in rows]
        for j, load in enumerate(columns):
            y = load()
            for i, x in enumerate(held):
                sums[i * width + j] = k.fma(x, y, sums[i * width + j])
    else:
        held = [load() for load in columns]
        for i, load in enumerate(rows):
            x = load()
            for j, y in enumerate(held):
                sums[i * width + j] = k.fma(x, y, sums[i * width + j])


def _either(k: Builder, fresh: ir.Value, places: Sequence[ir.Value]) -> list[ir.Value]:
    """Zeros if `fresh`, else the values at these addresses."""
    before, function = k.b.block, k.b.function
    loading, after = function.append_basic_block("loading"), function.append_basic_block("begin")
    k.b.cbranch(k.compare("!=", fresh, 0), after, loading)
    k.b.position_at_end(loading)
    found = [k.load(place) for place in places]
    k.b.branch(after)
    k.b.position_at_end(after)
    values = [k.b.phi(k.vector) for _ in places]
    for phi, value in zip(values, found, strict=True):
        phi.add_incoming(k.splat_constant(0.0), before)
        phi.add_incoming(value, loading)
    return values


# packing


def _transposed(k: Builder, vectors: list[ir.Value]) -> list[ir.Value]:
    """The transpose of as many vectors as lanes."""
    V, width = k.lanes, 1
    while width < V:
        low = ir.Constant(ir.VectorType(I32, V), [i if not i & width else i - width + V for i in range(V)])
        high = ir.Constant(ir.VectorType(I32, V), [i + width if not i & width else i + V for i in range(V)])
        turned = list(vectors)
        for i in range(V):
            if not i & width:
                x, y = vectors[i], vectors[i | width]
                turned[i], turned[i | width] = k.b.shuffle_vector(x, y, low), k.b.shuffle_vector(x, y, high)
        vectors, width = turned, 2 * width
    return vectors


def _turn(k: Builder) -> None:
    """turn: (rows, offset, columns, dst, stride): V pointers to rows; dst[c * stride + lane] = rows[lane][offset + c]

    for c below the smaller of `columns` and V.
    """
    V = k.lanes
    with k.function("turn", [POINTER, I64, I64, POINTER, I64]) as f:
        rows, offset, columns, dst, stride = f.args
        with k.b.if_else(k.compare(">=", columns, V)) as (whole, rest):
            with whole:
                vectors = [k.load(k.load_pointer(rows, lane), offset) for lane in range(V)]
                for c, vector in enumerate(_transposed(k, vectors)):
                    k.store(vector, dst, k.mul(stride, c))
            with rest, k.loop(0, V) as lane:
                row = k.at(k.load_pointer(rows, lane), offset)
                with k.loop(0, columns) as c:
                    k.b.store(k.scalar(row, c), k.at(dst, k.mul(stride, c), lane))


def _pack_transposed(k: Builder) -> None:
    """pack_transposed: (src, ld, units, depth, dst, p0, p1, q, block_stride, row_width, column)

    M is [units, depth], row-major, its leading dimension ld. For panels p in [p0, p1), with block = p / q, j = p % q:
    dst[block * block_stride + k * row_width + column + j * V + lane] = M[p * V + lane, k]; beyond `units` the last row.
    """
    arguments = [POINTER, I64, I64, I64, POINTER, I64, I64, I64, I64, I64, I64]
    with k.function(symbol("pack_transposed", k.target, k.dtype), arguments, public=True) as f:
        src, ld, units, depth, dst, p0, p1, q, block_stride, row_width, column = f.args
        rows = k.stack_array(POINTER, k.lanes)
        with k.loop(p0, p1) as panel:
            for lane in range(k.lanes):
                unit = k.least(k.add(k.mul(panel, k.lanes), lane), k.sub(units, 1))
                k.b.store(k.at(src, k.mul(unit, ld)), k.at_int(rows, lane))
            out = _panel(k, dst, panel, q, block_stride, column)
            with k.loop(0, depth, k.lanes) as index:
                there = k.at(out, k.mul(index, row_width))
                k.call("turn", VOID, rows, index, k.sub(depth, index), there, row_width)


def _panel(
    k: Builder, dst: ir.Value, panel: ir.Value, q: ir.Value, block_stride: ir.Value, column: ir.Value
) -> ir.Value:
    block = k.div(panel, q)
    inside = k.mul(k.sub(panel, k.mul(block, q)), k.lanes)
    return k.at(dst, k.mul(block, block_stride), column, inside)


def _pack_plain(k: Builder) -> None:
    """pack_plain: (src, ld, depth, units, dst, p0, p1, q, block_stride, row_width, column)

    As pack_transposed, but M is [depth, units]; beyond `units` zeros.
    """
    arguments = [POINTER, I64, I64, I64, POINTER, I64, I64, I64, I64, I64, I64]
    with k.function(symbol("pack_plain", k.target, k.dtype), arguments, public=True) as f:
        src, ld, depth, units, dst, p0, p1, q, block_stride, row_width, column = f.args
        with k.loop(p0, p1) as panel:
            unit = k.mul(panel, k.lanes)
            mask = k.lanes_below(k.sub(units, unit))
            out = _panel(k, dst, panel, q, block_stride, column)
            with k.loop(0, depth) as index:
                k.store(k.load(src, k.mul(index, ld), unit, mask=mask), out, k.mul(index, row_width))


# few units


def _narrow(k: Builder) -> None:
    """narrow: (rows, depth, a, lda, m, ldm, units, c, ldc, fresh)

    c[r * ldc + j] = (0 if fresh else itself) + sum over the depth k of a[r * lda + k] * m[j * ldm + k]. Lanes run along
    the depth: 256 bytes of partial sums for every target.
    """
    partials = 256 // k.item
    starts = range(0, partials, k.lanes)
    with k.function(
        symbol("narrow", k.target, k.dtype), [I64, I64, POINTER, I64, POINTER, I64, I64, POINTER, I64, I64], public=True
    ) as f:
        rows, depth, a, lda, m, ldm, units, c, ldc, fresh = f.args
        whole = k.b.and_(depth, k.int(-partials))
        masks = [k.lanes_below(k.sub(depth, k.add(whole, start))) for start in starts]
        new = k.compare("!=", fresh, 0)
        with k.loop(0, rows) as row, k.loop(0, units) as unit:
            x, y = k.at(a, k.mul(row, lda)), k.at(m, k.mul(unit, ldm))
            with k.carrying(0, whole, partials, [k.splat_constant(0.0)] * len(starts)) as (index, sums):
                for i, start in enumerate(starts):
                    sums[i] = k.fma(k.load(x, index, start), k.load(y, index, start), sums[i])
            for i, (start, mask) in enumerate(zip(starts, masks, strict=True)):
                sums[i] = k.fma(k.load(x, whole, start, mask=mask), k.load(y, whole, start, mask=mask), sums[i])
            place = k.at(c, k.mul(row, ldc), unit)
            k.b.store(k.b.fadd(added(k, sums), k.b.select(new, k.number(0.0), k.scalar(place))), place)


# gradients of weights


@dataclass(frozen=True)
class _Gradient:
    """Block sizes of a thread: `rows` by `columns` of the result stay in L2, `chunk` by `block` of them in L1."""

    rows: int
    columns: int
    chunk: int
    block: int

    @classmethod
    def of(cls, target: Target, dtype: DType) -> "_Gradient":
        lanes = target.lanes(dtype)
        return cls(512 if dtype == "float32" else 256, 512, lanes, 4 * lanes)


def scratch_numbers(n: int, target: Target, dtype: DType) -> int:
    """Elements of scratch that `weight_gradient` needs for results of n columns."""
    if n <= STRIP_WIDTH:
        return 0
    size, lanes = _Gradient.of(target, dtype), target.lanes(dtype)
    columns = min(size.columns, -(-n // lanes) * lanes)
    return (size.chunk + columns) * GRADIENT_BLOCK + size.chunk * size.block + lanes


def _weight_gradient(k: Builder) -> None:
    """weight_gradient: (count, blocks, d_rows, d_offset, m, v_rows, n, out, ldo, bias, scratch)

    out[i * ldo + j] += sum over the rows t of d_rows[t][d_offset + i] * v_rows[t][j] for i < m, j < n; and where bias
    is not 0, bias[i] += sum of d_rows[t][d_offset + i]. `blocks` has `count` pairs: the first row of a block and its
    number of rows, at most GRADIENT_BLOCK. A block is one chain from 0, and the chains are added in the order of the
    blocks, so bits depend only on the blocks and the rows.
    """
    wide, strips = _wide(k), {columns: _strips(k, columns) for columns in (0, 1, 2, 4)}
    arguments = [I64, POINTER, POINTER, I64, I64, POINTER, I64, POINTER, I64, POINTER, POINTER]
    with k.function(symbol("weight_gradient", k.target, k.dtype), arguments, public=True) as f:
        count, table, d_rows, d_offset, m, v_rows, n, out, ldo, bias, scratch = f.args
        narrow = k.compare("<=", n, STRIP_WIDTH)
        with k.when(k.b.not_(narrow)):
            k.b.call(wide, [count, table, d_rows, d_offset, m, v_rows, n, out, ldo, scratch])
        nothing = ir.Constant(POINTER, None)
        columns = k.b.select(narrow, n, k.int(0))
        summed = k.b.select(k.compare("==", columns, 0), bias, nothing)  # the first columns add the bias
        with k.loop(0, count) as block:
            t, part = _block(k, table, block)
            d, v = k.at_int(d_rows, t), k.at_int(v_rows, t)
            done = k.int(0)
            for width in (4, 2, 1):
                until = k.add(done, k.mul(k.div(k.sub(columns, done), width), width))
                with k.loop(done, until, width) as column:
                    there, sums = k.at(out, column), k.b.select(k.compare("==", column, 0), bias, nothing)
                    k.b.call(strips[width], [part, d, d_offset, m, v, column, there, ldo, sums])
                done = until
            with k.when(k.b.icmp_unsigned("!=", summed, nothing)):
                k.b.call(strips[0], [part, d, d_offset, m, v, k.int(0), out, ldo, summed])


def _block(k: Builder, table: ir.Value, number: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The first row of a block, and its number of rows."""
    place = k.mul(number, 2)
    return k.load_int(table, place), k.load_int(table, k.add(place, 1))


def _strips(k: Builder, columns: int) -> ir.Function:
    """strips{columns}: (count, d_rows, d_offset, m, v_rows, v_offset, out, ldo, bias); bias may be 0.

    Up to 4 columns and the bias, with lanes along the rows of the result.
    """
    V, vectors = k.lanes, k.target.registers // 4 // max(1, columns)
    with k.function(f"strips{columns}", [I64, POINTER, I64, I64, POINTER, I64, POINTER, I64, POINTER]) as f:
        count, d_rows, d_offset, m, v_rows, v_offset, out, ldo, bias = f.args
        found = k.stack_array(k.real, vectors * V * (columns + 1))
        with k.loop(0, m, vectors * V) as i:
            masks = [k.lanes_below(k.sub(m, k.add(i, s * V))) for s in range(vectors)]
            with k.carrying(0, count, 1, [k.splat_constant(0.0)] * (vectors * (columns + 1))) as (t, sums):
                d = k.at(k.load_pointer(d_rows, t), d_offset, i)
                v = k.at(k.load_pointer(v_rows, t), v_offset) if columns else v_rows
                factors = [k.splat(k.scalar(v, j)) for j in range(columns)]
                for s, mask in enumerate(masks):
                    line = k.load(d, s * V, mask=mask)
                    for j, factor in enumerate(factors):
                        sums[j * vectors + s] = k.fma(factor, line, sums[j * vectors + s])
                    sums[columns * vectors + s] = k.b.fadd(sums[columns * vectors + s], line)
            for index, total in enumerate(sums):
                k.store(total, found, index * V)
            high = k.least(vectors * V, k.sub(m, i))
            with k.loop(0, columns) as j:
                _add_each(k, high, k.at(found, k.mul(j, vectors * V)), k.at(out, k.mul(i, ldo), j), ldo)
            with k.when(k.b.icmp_unsigned("!=", bias, ir.Constant(POINTER, None))):
                _add_each(k, high, k.at(found, columns * vectors * V), k.at(bias, i), 1)
    return f


def _add_each(k: Builder, count: ir.Value, terms: ir.Value, out: ir.Value, stride: Int) -> None:
    with k.loop(0, count) as i:
        place = k.at(out, k.mul(i, stride))
        k.b.store(k.b.fadd(k.scalar(place), k.scalar(terms, i)), place)


def _wide(k: Builder) -> ir.Function:
    """(count, blocks, d_rows, d_offset, m, v_rows, n, out, ldo, scratch): both factors are packed, block by block."""
    size, V = _Gradient.of(k.target, k.dtype), k.lanes
    pack_chunk, pack_blocks, add_part = _pack_lines(k, size.chunk), _pack_lines(k, size.block), _add_part(k)
    group, kernels = _group(k), [_kernels(k, v) for v in (1, 2, 3, 4)]
    with k.function("gradient", [I64, POINTER, POINTER, I64, I64, POINTER, I64, POINTER, I64, POINTER]) as f:
        count, table, d_rows, d_offset, m, v_rows, n, out, ldo, scratch = f.args
        aligned = k.b.and_(k.add(k.b.ptrtoint(scratch, I64), k.target.bytes - 1), k.int(-k.target.bytes))
        part = k.b.inttoptr(aligned, POINTER)
        chunk = k.at(part, size.chunk * size.block)
        blocks = k.at(chunk, size.chunk * GRADIENT_BLOCK)
        shape = k.stack_array(I64, len(_SHAPE))
        with k.loop(0, n, size.columns) as j, k.loop(0, m, size.rows) as i, k.loop(0, count) as number:
            t, depth = _block(k, table, number)
            after = _block(k, table, k.least(k.add(number, 1), k.sub(count, 1)))
            columns, rows = k.least(size.columns, k.sub(n, j)), k.least(size.rows, k.sub(m, i))
            start, d = k.add(d_offset, i), k.at_int(d_rows, t)
            k.b.call(pack_blocks, [depth, k.at_int(v_rows, t), j, columns, blocks])
            with k.loop(0, rows, size.chunk) as row:
                high = k.least(size.chunk, k.sub(rows, row))
                step = k.mul(k.ceil(high, V), V)
                k.b.call(pack_chunk, [depth, d, k.add(start, row), high, chunk])
                more = k.compare("<", k.add(row, size.chunk), rows)
                soonest = (k.b.select(more, now, later) for now, later in zip((t, depth), after, strict=True))
                following, stride = _following(k, d_rows, *soonest)
                following = k.at(following, start, k.b.select(more, k.add(row, size.chunk), k.int(0)))
                with k.loop(0, columns, size.block) as column:
                    left, first = k.sub(columns, column), k.compare("==", column, 0)
                    vectors = k.least(4, k.ceil(left, V))
                    width = k.mul(vectors, V)
                    w = k.at(blocks, k.mul(column, GRADIENT_BLOCK))
                    hops = {"w1": V, "w2": 2 * V, "w4": 0, "c1": V, "c2": 2 * V, "c4": 0, "p1": V, "p2": 2 * V}
                    ahead = k.b.select(first, stride, k.int(0))
                    soon = k.b.select(first, following, w)
                    there = k.at(out, k.mul(k.add(i, row), ldo), k.add(j, column))
                    whole = k.compare("<=", width, left)
                    place, ldc = k.b.select(whole, there, part), k.b.select(whole, ldo, width)
                    mode = k.b.select(whole, k.int(ADDED), k.int(1))
                    _form(k, shape, lda=1, step=step, ldc=ldc, width=width, ahead=ahead, **hops, first=0, most=0)
                    _choose(
                        k, shape, *(_entry(k, numbers, k.sub(vectors, 1)) for numbers in zip(*kernels, strict=True))
                    )
                    k.b.call(group, [high, depth, chunk, w, place, mode, shape, soon])
                    with k.when(k.b.not_(whole)):
                        k.b.call(add_part, [high, left, part, width, there, ldo])
    return f


def _entry(k: Builder, numbers: Sequence[int], index: ir.Value) -> ir.Value:
    """Select the constant of this index."""
    found = k.int(numbers[0])
    for i, number in enumerate(numbers[1:], 1):
        found = k.b.select(k.compare("==", index, i), k.int(number), found)
    return found


def _following(k: Builder, rows: ir.Value, t: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The first row of a block, and the distance to the next: an estimate, for prefetching only."""
    after = k.b.select(k.compare("<", 1, count), k.add(t, 1), t)
    distance = k.sub(k.load_int(rows, after), k.load_int(rows, t))
    return k.load_pointer(rows, t), k.b.sdiv(distance, k.int(k.item))


def _pack_lines(k: Builder, group: int) -> ir.Function:
    """(count, rows, offset, columns, dst): groups of `columns`, the last one rounded up to whole vectors.

    Column c of row t stands at c / group * group * GRADIENT_BLOCK + t * (width of that group) + c % group.
    """
    with k.function(f"pack_lines{group}", [I64, POINTER, I64, I64, POINTER]) as f:
        count, rows, offset, columns, dst = f.args
        with k.loop(0, columns, group) as column:
            left, out = k.sub(columns, column), k.at(dst, k.mul(column, GRADIENT_BLOCK))
            here = k.add(offset, column)
            with k.b.if_else(k.compare(">=", left, group)) as (whole, rest):
                with whole, k.loop(0, count) as t:
                    row = k.at(k.load_pointer(rows, t), here)
                    for index in range(0, group, k.lanes):
                        k.store(k.load(row, index), out, k.mul(t, group), index)
                with rest, k.loop(0, count) as t:
                    row, width = k.at(k.load_pointer(rows, t), here), k.mul(k.ceil(left, k.lanes), k.lanes)
                    with k.loop(0, width, k.lanes) as index:
                        mask = k.lanes_below(k.sub(left, index))
                        k.store(k.load(row, index, mask=mask), out, k.mul(t, width), index)
    return f


def _add_part(k: Builder) -> ir.Function:
    """(rows, columns, part, ldp, out, ldo): out += part."""
    with k.function("add_part", [I64, I64, POINTER, I64, POINTER, I64]) as f:
        rows, columns, part, ldp, out, ldo = f.args
        whole = k.b.and_(columns, k.int(-k.lanes))
        mask = k.lanes_below(k.sub(columns, whole))
        with k.loop(0, rows) as row:
            term, place = k.at(part, k.mul(row, ldp)), k.at(out, k.mul(row, ldo))
            with k.loop(0, whole, k.lanes) as column:
                k.store(k.b.fadd(k.load(place, column), k.load(term, column)), place, column)
            last = k.b.fadd(k.load(place, whole, mask=mask), k.load(term, whole, mask=mask))
            k.store(last, place, whole, mask=mask)
    return f
