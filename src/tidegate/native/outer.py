"""Kernels for a vector over weights that grows by an outer product after each step of a cell.

`STEPS` runs a cell's own kernel step by step. After each step the vector would become w / keep + once * rows read',
where `keep` is what the cell has just put out; its size is what the cell reads next. The additions of a GROUP of steps
are known before. So their products with the vector and with each other give its size at each of these steps, and it is
moved once for all of them: it goes through the caches twice a group instead of once a step.

`SQUARES` gives the square of the size of each addition. `BACK` says how much of each addition is in the sum over steps
of shares of the vector: c(t) = share(t) + c(t + 1) / keep(t + 1).

The vector comes in blocks of `height` rows, `line` numbers apart: whole vectors, with zeros behind the `width` numbers
of a row. Loads and stores that go over the lines of a cache take twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, combinations_with_replacement
from typing import NamedTuple

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import I64, POINTER, VOID, Builder, Int
from tidegate.native.compile.reductions import added
from tidegate.native.run import threads
from tidegate.native.target import DType, Target

STEPS, SQUARES, BACK = "steps", "squares", "back"
GROUP = 4  # steps
HIGH = 4  # rows of a block at a time, with which a vector that was read is multiplied
BLOCK = (
    *("rows", "rows.step", "rows.part", "read", "read.step", "read.part"),
    *("outer", "parts", "height", "width", "line"),
)
NAMES = {
    STEPS: (
        *("threads", "T", "B", "function", "call", "packed", "moving", "movers"),
        *("keep", "keep.step", "keep.row", "once", "norm", "work", "blocks"),
    ),
    SQUARES: ("threads", "T", "B", "found", "blocks"),
    BACK: ("threads", "T", "B", "keep", "keep.step", "keep.row", "once", "share", "carried", "found"),
}
_POINTERS = {"call", "packed", "moving", "keep", "once", "norm", "work", "share", "carried", "found"}
_POINTERS |= {"rows", "read", "outer"}

# where numbers of a row of the batch stand in working memory: products of the group's additions with the vector, with
# each other, of their rows alone, of what they read alone; what the vector before the group, and each addition, is
# multiplied by now; and the square of the size
_NUMBERS = (GROUP, GROUP**2, GROUP**2, GROUP**2, 1, GROUP, 1)
_WITH, _EACH, _OF_ROWS, _OF_READ, _WHOLE, _FACTORS, _SQUARE, WORK = accumulate(_NUMBERS, initial=0)
_Column = Callable[[ir.Value, ir.Value | None, list[ir.Value]], None]  # at a place, with a mask: the sums go on


class _Additions(NamedTuple):
    """A group's additions to a part of a block: rows and what they read, of each step, and where the part stands."""

    outer: ir.Value
    height: ir.Value
    width: ir.Value
    line: ir.Value
    rows: list[ir.Value]
    read: list[ir.Value]


_ADDITIONS = [POINTER, I64, I64, I64, *[POINTER] * (2 * GROUP)]


def outer_text(target: Target, dtype: DType) -> str:
    """The module of all kernels."""
    k = Builder(f"outer {dtype} {target.name}", target, dtype)
    functions = _products(k), _move(k)
    with k.function(f"{STEPS}.body", [POINTER, I64, I64]) as f:
        _Steps(k, f.args[0], *functions).emit()
    with k.function(f"{SQUARES}.body", [POINTER, I64, I64]) as f:
        _squares(k, f.args[0])
    with k.function(f"{BACK}.body", [POINTER, I64, I64]) as f:
        _back(k, f.args[0])
    for name in NAMES:
        threads.team(k, name, f"{name}.body")
    return str(k.module)


def _named(k: Builder, names: Sequence[str], arguments: ir.Value) -> dict[str, ir.Value]:
    return {n: (k.load_pointer if n in _POINTERS else k.load_int)(arguments, i) for i, n in enumerate(names)}


def _keep(k: Builder, n: Mapping[str, ir.Value], t: ir.Value, b: ir.Value) -> ir.Value:
    return k.scalar(n["keep"], k.mul(t, n["keep.step"]), k.mul(b, n["keep.row"]))


class _Steps:
    def __init__(self, k: Builder, arguments: ir.Value, products: ir.Function, move: ir.Function) -> None:
        self.k, self.arguments, self.products, self.move = k, arguments, products, move
        self.n = _named(k, NAMES[STEPS], arguments)
        self.cell = k.b.inttoptr(self.n["function"], ir.FunctionType(VOID, [POINTER]).as_pointer())

    def emit(self) -> None:
        """All steps, group by group."""
        k, n = self.k, self.n
        with k.loop(0, n["T"], GROUP) as first:
            with k.loop(0, n["B"]) as b:
                work = self._begun(b)
                with self._parts(first, b) as additions:
                    k.b.call(self.products, [*_flat(additions), work])
            with k.loop(first, k.least(k.add(first, GROUP), n["T"])) as t:
                self._step()
                with k.loop(0, n["B"]) as b:
                    self._sized(t, k.sub(t, first), b)
            with k.loop(0, n["B"]) as b:
                work = self._work(b)
                self._put(work, _SQUARE, k.number(0.0))
                with self._parts(first, b) as additions:
                    k.b.call(self.move, [*_flat(additions), work])
                self._said(work, b)

    def _work(self, b: ir.Value) -> ir.Value:
        return self.k.at(self.n["work"], self.k.mul(b, WORK))

    def _put(self, work: ir.Value, place: Int, number: ir.Value) -> None:
        self.k.b.store(number, self.k.at(work, place))

    def _said(self, work: ir.Value, b: ir.Value) -> None:
        """Tell the cell how large the vector is."""
        k = self.k
        self.k.b.store(_intrinsic(k, "sqrt", k.scalar(work, _SQUARE)), k.at(self.n["norm"], b))

    def _begun(self, b: ir.Value) -> ir.Value:
        k, work = self.k, self._work(b)
        with k.loop(0, WORK) as place:
            self._put(work, place, k.number(0.0))
        norm = k.scalar(self.n["norm"], b)
        self._put(work, _SQUARE, k.b.fmul(norm, norm))
        self._put(work, _WHOLE, k.number(1.0))
        return work

    @contextmanager
    def _parts(self, first: ir.Value, b: ir.Value) -> Iterator[_Additions]:
        """Each part of each block; steps behind the last are the last once more, for nothing is done with them."""
        k = self.k
        steps = [k.least(k.add(first, j), k.sub(self.n["T"], 1)) for j in range(GROUP)]
        with k.loop(0, self.n["blocks"]) as block:
            n = _named(k, BLOCK, k.at_int(self.arguments, len(self.n), k.mul(block, len(BLOCK))))
            with k.loop(0, n["parts"]) as i:
                part = k.add(k.mul(b, n["parts"]), i)
                rows, read = (
                    [k.at(n[x], k.mul(t, n[f"{x}.step"]), k.mul(part, n[f"{x}.part"])) for t in steps]
                    for x in ("rows", "read")
                )
                outer = k.at(n["outer"], k.mul(part, k.mul(n["height"], n["line"])))
                yield _Additions(outer, n["height"], n["width"], n["line"], rows, read)

    def _step(self) -> None:
        """A step of the cell, whose arguments then stand at the next one."""
        k, n = self.k, self.n
        k.b.call(self.cell, [n["call"]])
        k.b.store(k.int(1), n["packed"])
        with k.loop(0, n["movers"]) as mover:
            place, stride = k.load_pointer(n["moving"], k.mul(mover, 2)), k.load_int(n["moving"], k.mul(mover, 2), 1)
            k.b.store(k.add(k.load_int(place), stride), place)

    def _sized(self, t: ir.Value, j: ir.Value, b: ir.Value) -> None:
        """The vector's size after step j of a group, and what it is then made of."""
        k, n, work = self.k, self.n, self._work(b)
        shrink = k.b.fdiv(k.number(1.0), _keep(k, n, t, b))
        once, whole = k.scalar(n["once"], k.mul(t, n["B"]), b), k.scalar(work, _WHOLE)
        with k.carrying(0, j, 1, [k.b.fmul(whole, k.scalar(work, j, _WITH))]) as (i, shared):
            factor = k.scalar(work, i, _FACTORS)
            product = k.b.fmul(factor, k.scalar(work, k.mul(i, GROUP), j, _EACH))
            shared[0] = k.b.fadd(shared[0], product)
            self._put(work, k.add(i, _FACTORS), k.b.fmul(factor, shrink))
        self._put(work, _WHOLE, k.b.fmul(whole, shrink))
        self._put(work, k.add(j, _FACTORS), once)
        of_old = k.b.fmul(k.scalar(work, _SQUARE), k.b.fmul(shrink, shrink))
        of_both = k.b.fmul(k.b.fmul(k.number(2.0), once), k.b.fmul(shrink, shared[0]))
        of_new = k.b.fmul(k.b.fmul(once, once), k.scalar(work, k.mul(j, GROUP + 1), _EACH))
        square = k.b.fadd(k.b.fadd(of_old, of_both), of_new)
        self._put(work, _SQUARE, _intrinsic(k, "maxnum", square, k.number(0.0)))
        self._said(work, b)


def _flat(additions: _Additions) -> list[ir.Value]:
    *sizes, rows, read = additions
    return [*sizes, *rows, *read]


def _additions(arguments: Sequence[ir.Value]) -> _Additions:
    outer, height, width, line, *vectors = arguments[: len(_ADDITIONS)]
    return _Additions(outer, height, width, line, vectors[:GROUP], vectors[GROUP:])


def _intrinsic(k: Builder, name: str, *numbers: ir.Value) -> ir.Value:
    return k.call(f"llvm.{name}.f{8 * k.item}", k.real, *numbers)


def _products(k: Builder) -> ir.Function:
    """products(additions, work): to what is there are added products of additions with the vector and each other."""
    pairs = list(combinations_with_replacement(range(GROUP), 2))
    with k.function("products", [*_ADDITIONS, POINTER]) as f:
        at, work = _additions(f.args), f.args[-1]
        _between(k, pairs, at.rows, at.height, k.at(work, _OF_ROWS))
        _between(k, pairs, at.read, at.width, k.at(work, _OF_READ))
        for i, j in pairs:
            place = i * GROUP + j
            both = k.b.fmul(k.scalar(work, _OF_ROWS + place), k.scalar(work, _OF_READ + place))
            _add(k, work, _EACH + place, both)
        sums = [k.splat_constant(0.0)] * GROUP
        for first, last, high in _panels(k, at.height):
            with k.carrying(first, last, high, sums) as (row, sums):
                held = _columns(k, at.width, high * GROUP, _with_vector(k, at, row, high))
                for i in range(high):
                    for j, rows in enumerate(at.rows):
                        sums[j] = k.fma(k.splat(k.scalar(rows, row, i)), held[i * GROUP + j], sums[j])
        for j, total in enumerate(sums):
            _add(k, work, _WITH + j, added(k, [total]))
    return f


def _with_vector(k: Builder, at: _Additions, row: ir.Value, high: int) -> _Column:
    """What the additions read times rows of the vector, row by row and step by step."""
    lines = [k.at(at.outer, k.mul(k.add(row, i), at.line)) for i in range(high)]

    def column(where: ir.Value, mask: ir.Value | None, held: list[ir.Value]) -> None:
        old = [k.load(line, where) for line in lines]
        for j, read in enumerate(at.read):
            v = k.load(read, where, mask=mask)
            for i in range(high):
                held[i * GROUP + j] = k.fma(old[i], v, held[i * GROUP + j])

    return column


def _between(
    k: Builder, pairs: Sequence[tuple[int, int]], vectors: Sequence[ir.Value], count: ir.Value, out: ir.Value
) -> None:
    """The products of pairs of vectors."""

    def column(where: ir.Value, mask: ir.Value | None, held: list[ir.Value]) -> None:
        loaded = [k.load(v, where, mask=mask) for v in vectors]
        held[:] = [k.fma(loaded[i], loaded[j], h) for (i, j), h in zip(pairs, held, strict=True)]

    for (i, j), total in zip(pairs, _columns(k, count, len(pairs), column), strict=True):
        k.b.store(added(k, [total]), k.at(out, i * GROUP + j))


def _move(k: Builder) -> ir.Function:
    """move(additions, work): a part of the vector after a group, and its square added to what is there."""
    with k.function("move", [*_ADDITIONS, POINTER]) as f:
        at, work = _additions(f.args), f.args[-1]
        of_old, of_new = k.scalar(work, _WHOLE), [k.scalar(work, _FACTORS + j) for j in range(GROUP)]
        sums = [k.splat_constant(0.0)]
        for first, last, high in _panels(k, at.height):
            with k.carrying(first, last, high, sums) as (row, sums):
                held = _columns(k, at.width, high, _moved(k, at, row, high, of_old, of_new))
                for square in held:
                    sums[0] = k.b.fadd(sums[0], square)
        _add(k, work, _SQUARE, added(k, sums))
    return f


def _moved(
    k: Builder, at: _Additions, row: ir.Value, high: int, of_old: ir.Value, of_new: Sequence[ir.Value]
) -> _Column:
    """Rows of the vector times a number, with the additions times theirs."""
    lines = [k.at(at.outer, k.mul(k.add(row, i), at.line)) for i in range(high)]
    keep = k.splat(of_old)
    factors = [
        [k.splat(k.b.fmul(k.scalar(rows, row, i), once)) for rows, once in zip(at.rows, of_new, strict=True)]
        for i in range(high)
    ]

    def column(where: ir.Value, mask: ir.Value | None, held: list[ir.Value]) -> None:
        loaded = [k.load(read, where, mask=mask) for read in at.read]
        for i, line in enumerate(lines):
            new = k.b.fmul(keep, k.load(line, where))
            for factor, v in zip(factors[i], loaded, strict=True):
                new = k.fma(factor, v, new)
            k.store(new, line, where)
            held[i] = k.fma(new, new, held[i])

    return column


def _panels(k: Builder, height: ir.Value) -> list[tuple[ir.Value, ir.Value, int]]:
    """Rows in panels, then the rest one by one: from where, to where, how many at a time."""
    whole = k.sub(height, k.rem(height, HIGH))
    return [(k.int(0), whole, HIGH), (whole, height, 1)]


def _columns(k: Builder, width: ir.Value, sums: int, column: _Column) -> list[ir.Value]:
    """So many sums over columns: those of whole vectors, then the last one, which has at least one number."""
    whole = k.mul(k.div(k.sub(width, 1), k.lanes), k.lanes)
    with k.carrying(0, whole, k.lanes, [k.splat_constant(0.0)] * sums) as (where, held):
        column(where, None, held)
    column(whole, k.lanes_below(k.sub(width, whole)), held)
    return held


def _add(k: Builder, work: ir.Value, place: int, number: ir.Value) -> None:
    k.b.store(k.b.fadd(k.scalar(work, place), number), k.at(work, place))


def _squares(k: Builder, arguments: ir.Value) -> None:
    n = _named(k, NAMES[SQUARES], arguments)

    def square(vector: ir.Value, count: ir.Value) -> ir.Value:
        def column(where: ir.Value, mask: ir.Value | None, held: list[ir.Value]) -> None:
            loaded = k.load(vector, where, mask=mask)
            held[0] = k.fma(loaded, loaded, held[0])

        return added(k, _columns(k, count, 1, column))

    with k.loop(0, n["T"]) as t, k.loop(0, n["B"]) as b:
        place = k.at(n["found"], k.add(k.mul(t, n["B"]), b))
        k.b.store(k.number(0.0), place)
        with k.loop(0, n["blocks"]) as number:
            block = _named(k, BLOCK, k.at_int(arguments, len(n), k.mul(number, len(BLOCK))))
            with k.loop(0, block["parts"]) as i:
                part = k.add(k.mul(b, block["parts"]), i)
                both = [
                    square(k.at(block[x], k.mul(t, block[f"{x}.step"]), k.mul(part, block[f"{x}.part"])), block[size])
                    for x, size in (("rows", "height"), ("read", "width"))
                ]
                _add(k, place, 0, k.b.fmul(*both))


def _back(k: Builder, arguments: ir.Value) -> None:
    n = _named(k, NAMES[BACK], arguments)
    with k.loop(0, n["B"]) as b:
        with k.carrying(0, n["T"], 1, [k.number(0.0)]) as (index, carried):
            t = k.sub(k.sub(n["T"], 1), index)
            at = k.add(k.mul(t, n["B"]), b)
            here = k.b.fadd(k.scalar(n["share"], at), carried[0])
            k.b.store(k.b.fmul(here, k.scalar(n["once"], at)), k.at(n["found"], at))
            carried[0] = k.b.fdiv(here, _keep(k, n, t, b))
        k.b.store(carried[0], k.at(n["carried"], b))
