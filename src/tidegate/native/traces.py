"""Kernels of eligibility traces: threads, rows of the batch and blocks of steps around the inner loop.

Each row of a linear is one thread's, whose sum it adds up over rows of the batch and blocks of steps in ascending
order: nothing depends on the number of threads. Traces do not depend on how steps are cut into calls either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tidegate.native import threads
from tidegate.native._llvm import ir
from tidegate.native.builder import I8, I64, POINTER, Builder
from tidegate.native.products import switch
from tidegate.native.target import DType, Target
from tidegate.native.trace_form import TraceForm
from tidegate.native.trace_tiles import Strip, advanced, begun, ended, strip, widest
from tidegate.native.units import strips

STEPS = 64  # of a block: what it reads stays in L1; a constant, for sums are cut there
MATRIX, VECTOR = "matrix", "vector"  # kernels for columns that are read, and for a bias alone
_NUMBERS = ("threads", "T", "B", "K", "V", "bias", "reset", "reset.step", "start", "end", "g", "work", "ld.work")


def frame_names(form: TraceForm, pieces: int) -> tuple[str, ...]:
    """The arguments of kernels in their order; those of the pieces of v come last, so that their number may vary."""
    coefficients = (f"{kind}{name}" for name in form.coefficients for kind in ("", "ld."))
    columns = (f"{kind}.{i}" for i in range(pieces) for kind in ("v", "ld.v", "width"))
    return (*_NUMBERS, "pieces", *coefficients, *columns)


def line_numbers(V: int, lanes: int) -> int:
    """The leading dimension of gathered v: an odd number of vectors, which spreads over all sets of a cache."""
    return (-(-V // lanes) | 1) * lanes


def work_numbers(form: TraceForm, T: int, V: int, lanes: int) -> int:
    """How many numbers of working memory a thread needs."""
    return min(T, STEPS) * (line_numbers(V, lanes) + len(form.coefficients) * lanes)


def traces_text(form: TraceForm, target: Target, dtype: DType) -> str:
    """The module of both kernels."""
    k = Builder(f"traces {dtype} {target.name}", target, dtype)
    tiles = [strip(k, form, n + 1) for n in range(widest(form, target.registers))]
    with k.function(f"{MATRIX}.body", [POINTER, I64, I64]) as body:
        _Body(k, form, *body.args).matrix(tiles)
    with k.function(f"{VECTOR}.body", [POINTER, I64, I64]) as body:
        _Body(k, form, *body.args).vector()
    for name in (MATRIX, VECTOR):
        threads.team(k, name, f"{name}.body")
    return str(k.module)


class _Segment(NamedTuple):
    """Steps t to stop of row b of the batch; with `fresh`, traces begin with zero."""

    b: ir.Value
    t: ir.Value
    stop: ir.Value
    fresh: ir.Value


class _Body:
    """A thread's part of a call: some rows of the linear."""

    def __init__(self, k: Builder, form: TraceForm, arguments: ir.Value, me: ir.Value, size: ir.Value) -> None:
        self.k, self.form, self.arguments, self.me = k, form, arguments, me
        pointers = {"reset", "start", "end", "g", "work", *form.coefficients}
        self.n = {
            name: (k.load_pointer if name in pointers else k.load_int)(arguments, i)
            for i, name in enumerate(frame_names(form, 0))
        }
        self.first = k.div(k.mul(self.n["K"], me), size)
        self.last = k.div(k.mul(self.n["K"], k.add(me, 1)), size)

    def matrix(self, tiles: Sequence[ir.Function]) -> None:
        """Columns in lanes: v and the coefficients of a panel of rows are gathered, then strips go over them."""
        k, n = self.k, self.n
        ldv = k.mul(k.b.or_(k.ceil(n["V"], k.lanes), k.int(1)), k.lanes)
        v = k.at(n["work"], k.mul(self.me, n["ld.work"]))
        c = k.at(v, k.mul(ldv, k.least(n["T"], STEPS)))
        self._clear(v, ldv)
        with self._segments() as segment:
            self._gather(segment, v, ldv)
            with k.loop(self.first, self.last, k.lanes) as row:
                rows = k.least(k.sub(self.last, row), k.lanes)
                self._coefficients(segment, row, rows, c)
                start, end = self._traces(segment, row)
                fixed = {"rows": rows, "steps": k.sub(segment.stop, segment.t), "ldv": ldv, "c": c}
                fixed |= {"width": n["V"], "plane": k.mul(n["K"], n["V"]), "fresh": segment.fresh}
                for_g = k.at(n["g"], k.mul(row, n["V"]))
                with self._blocks(len(tiles)) as (column, vectors):
                    left = k.least(k.sub(n["V"], k.add(column, k.mul(k.sub(vectors, 1), k.lanes))), k.lanes)
                    moving = {"v": v, "start": start, "end": end, "g": for_g}
                    here = {name: k.at(pointer, column) for name, pointer in moving.items()}
                    switch(k, vectors, tiles, Strip(**fixed, **here, left=left))

    def _clear(self, v: ir.Value, ldv: ir.Value) -> None:
        """Zeros beyond the columns, and the 1 of a bias, which stay there for all steps."""
        k, n = self.k, self.n
        with k.loop(0, k.least(n["T"], STEPS)) as step:
            last = k.add(k.mul(ldv, step), k.mul(k.div(k.sub(n["V"], 1), k.lanes), k.lanes))
            k.store(k.splat_constant(0.0), v, last)
            with k.when(k.compare("!=", n["bias"], 0)):
                k.b.store(k.number(1.0), k.at(v, k.mul(ldv, step), k.sub(n["V"], 1)))

    @contextmanager
    def _segments(self) -> Iterator[_Segment]:
        """For each row of the batch, blocks of steps; a flag of `reset` begins a new one."""
        k, n = self.k, self.n
        with k.loop(0, n["B"]) as b:
            before, function = k.b.block, k.b.function
            head, body, after = (function.append_basic_block(name) for name in ("head", "body", "after"))
            k.b.branch(head)
            k.b.position_at_end(head)
            t = k.b.phi(I64)
            k.b.cbranch(k.compare("<", t, n["T"]), body, after)
            k.b.position_at_end(body)
            end = k.least(k.add(t, STEPS), n["T"])
            with k.carrying(k.add(t, 1), end, 1, [end]) as (later, found):
                found[0] = k.b.select(self._reset(later, b), k.least(later, found[0]), found[0])
            yield _Segment(b, t, found[0], self._reset(t, b))
            t.add_incoming(k.int(0), before)
            t.add_incoming(found[0], k.b.block)
            k.b.branch(head)
            k.b.position_at_end(after)

    def _row(self, t: ir.Value, b: ir.Value) -> ir.Value:
        return self.k.add(self.k.mul(t, self.n["B"]), b)

    def _reset(self, t: ir.Value, b: ir.Value) -> ir.Value:
        k = self.k
        where = k.b.gep(self.n["reset"], [k.mul(self._row(t, b), self.n["reset.step"])], source_etype=I8)
        return k.b.icmp_unsigned("!=", k.b.load(where, typ=I8), I8(0))

    def _gather(self, segment: _Segment, v: ir.Value, ldv: ir.Value) -> None:
        """The pieces of v side by side, for each step of a segment."""
        k, first = self.k, len(self.n)
        with k.loop(segment.t, segment.stop) as t:
            line = k.at(v, k.mul(ldv, k.sub(t, segment.t)))
            with k.carrying(0, self.n["pieces"], 1, [k.int(0)]) as (piece, column):
                at = k.add(k.mul(piece, 3), first)
                ld, width = k.load_int(self.arguments, at, 1), k.load_int(self.arguments, at, 2)
                here = k.at(k.load_pointer(self.arguments, at), k.mul(self._row(t, segment.b), ld))
                out = k.at(line, column[0])
                strips(k, width, lambda i, mask: k.store(k.load(here, i, mask=mask), out, i, mask=mask))
                column[0] = k.add(column[0], width)

    def _coefficients(self, segment: _Segment, row: ir.Value, rows: ir.Value, c: ir.Value) -> None:
        """A vector of each coefficient, a lane a row, for each step of a segment."""
        k, mask = self.k, self.k.lanes_below(rows)
        with k.loop(segment.t, segment.stop) as t:
            out = k.at(c, k.mul(k.sub(t, segment.t), len(self.form.coefficients) * k.lanes))
            for i, vector in enumerate(self._vectors(segment, t, row, mask)):
                k.store(vector, out, i * k.lanes)

    def _vectors(self, segment: _Segment, t: ir.Value, row: ir.Value, mask: ir.Value) -> list[ir.Value]:
        k, n, where = self.k, self.n, self._row(t, segment.b)
        return [k.load(n[x], k.mul(where, n[f"ld.{x}"]), row, mask=mask) for x in self.form.coefficients]

    def _traces(self, segment: _Segment, row: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Where the traces of a panel stand before and after a segment."""
        k, n = self.k, self.n
        before = k.b.select(k.compare("==", segment.t, 0), n["start"], n["end"])
        offset = k.mul(k.add(k.mul(k.mul(segment.b, self.form.states), n["K"]), row), n["V"])
        return k.at(before, offset), k.at(n["end"], offset)

    @contextmanager
    def _blocks(self, most: int) -> Iterator[tuple[ir.Value, ir.Value]]:
        """Blocks of nearly as many vectors each, `most` at most: the first column, and how many vectors."""
        k = self.k
        vectors = k.ceil(self.n["V"], k.lanes)
        count = k.ceil(vectors, most)
        size = k.div(vectors, count)
        larger = k.rem(vectors, count)
        with k.carrying(0, count, 1, [k.int(0)]) as (block, done):
            here = k.add(size, k.b.zext(k.compare("<", block, larger), I64))
            yield k.mul(done[0], k.lanes), here
            done[0] = k.add(done[0], here)

    def vector(self) -> None:
        """Rows in lanes: of a bias alone, whose v is 1."""
        k, form = self.k, self.form
        places = [k.mul(self.n["K"], s) for s in range(form.states)]
        with self._segments() as segment, k.loop(self.first, self.last, k.lanes) as row:
            mask = k.lanes_below(k.sub(self.last, row))
            start, end = self._traces(segment, row)
            held = begun(k, start, segment.fresh, mask, places)
            with k.carrying(segment.t, segment.stop, 1, held) as (t, carried):
                vectors = self._vectors(segment, t, row, mask)
                carried[:] = advanced(k, form, dict(zip(form.coefficients, vectors, strict=True)), None, carried)
            ended(k, form, carried, end, mask, places, k.at(self.n["g"], row))
