"""Outer loops of the eligibility-trace kernels: threads, batch rows and segments of steps.

Each row of a linear belongs to one thread, which sums over batch rows and segments in ascending order, so results do
not depend on the number of threads. A segment begins with the call, at a reset, and STEPS steps after the last one
began. Segments of fewer than MIN_BLOCK_STEPS steps run step by step, others as a block: a sequence cut into calls gives
the same bits if calls begin with segments, or if all are that short.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import I8, I64, POINTER, Builder
from tidegate.native.compile.gemm import switch
from tidegate.native.compile.reductions import strips
from tidegate.native.eligibility.arguments import STEPS, read
from tidegate.native.eligibility.block_products import each_width, products
from tidegate.native.eligibility.blocks import MIN_BLOCK_STEPS, TracePanel, block
from tidegate.native.eligibility.form import TraceForm
from tidegate.native.eligibility.tiles import Strip, advanced, begun, ended, strip, widest
from tidegate.native.run import threads
from tidegate.native.target import DType, Target

MATRIX, VECTOR = "matrix", "vector"  # kernels for a linear with columns, and for a bias alone


def traces_text(form: TraceForm, target: Target, dtype: DType) -> str:
    """The text of the module with both kernels."""
    k = Builder(f"traces {dtype} {target.name}", target, dtype)
    tiles = [strip(k, form, n + 1) for n in range(widest(form, target.registers))]
    blocks = _blocks(k, form) if form.pays_in_blocks else []
    with k.function(f"{MATRIX}.body", [POINTER, I64, I64]) as body:
        _Body(k, form, *body.args).matrix(tiles, blocks)
    with k.function(f"{VECTOR}.body", [POINTER, I64, I64]) as body:
        _Body(k, form, *body.args).vector()
    for name in (MATRIX, VECTOR):
        threads.team(k, name, f"{name}.body")
    return str(k.module)


def _blocks(k: Builder, form: TraceForm) -> list[ir.Function]:
    """Block functions for the gradient alone, for the traces that others read, and for all traces if these differ."""
    tiles, every = products(k, form.taken), tuple(range(form.states))
    return [block(k, form, ends, tiles) for ends in dict.fromkeys(((), form.taken, every))]


class _Segment(NamedTuple):
    """Steps t to stop of batch row b; with `fresh`, traces begin at zero."""

    b: ir.Value
    t: ir.Value
    stop: ir.Value
    fresh: ir.Value


class _Body:
    """One thread's part of a call: some rows of the linear."""

    def __init__(self, k: Builder, form: TraceForm, arguments: ir.Value, me: ir.Value, size: ir.Value) -> None:
        self.k, self.form, self.arguments, self.me = k, form, arguments, me
        self.n = read(k, form, arguments)
        self.first = k.div(k.mul(self.n["K"], me), size)
        self.last = k.div(k.mul(self.n["K"], k.add(me, 1)), size)

    def matrix(self, tiles: Sequence[ir.Function], blocks: Sequence[ir.Function]) -> None:
        """Lanes are columns: gather v of a segment, then process panels of rows, as a block where there are many
        steps."""
        k, n = self.k, self.n
        ldv = k.mul(k.b.or_(k.ceil(n["V"], k.lanes), k.int(1)), k.lanes)
        v = k.at(n["work"], k.mul(self.me, n["ld.work"]))
        c = k.at(v, k.mul(ldv, k.least(n["T"], STEPS)))
        self._clear(v, ldv)
        with self._segments() as segment:
            self._gather(segment, v, ldv)
            kind, steps = self._kind(segment, len(blocks)), k.sub(segment.stop, segment.t)
            with k.loop(self.first, self.last, k.lanes) as row:
                start, end = self._traces(segment, row)
                at = {"rows": k.least(k.sub(self.last, row), k.lanes), "steps": steps, "v": v, "ldv": ldv, "c": c}
                at |= {"start": start, "end": end, "g": k.at(n["g"], k.mul(row, n["V"])), "fresh": segment.fresh}
                at |= {"width": n["V"], "plane": k.mul(n["K"], n["V"])}
                with k.when(k.compare("==", kind, 0)):
                    self._coefficients(segment, row, at["rows"], c)
                    self._by_steps(tiles, at)
                if blocks:
                    switch(
                        k, kind, blocks, TracePanel(self.arguments, *self._places(segment, row), bias=n["bias"], **at)
                    )

    def _places(self, segment: _Segment, row: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
        """The line and row where a panel's coefficients begin, and those of the next panel to prefetch."""
        k = self.k
        first, beside = self._row(segment.t, segment.b), k.add(row, k.lanes)
        more = k.compare("<", beside, self.last)
        after = k.b.select(more, first, self._row(segment.stop, segment.b))
        return first, row, after, k.b.select(more, beside, self.first)

    def _kind(self, segment: _Segment, blocks: int) -> ir.Value:
        """0 for step by step, else which block: for the gradient alone, for the traces that continue, or for all."""
        k, n = self.k, self.n
        if not blocks:
            return k.int(0)
        after = k.compare("<", segment.stop, n["T"])
        dropped = self._reset(k.least(segment.stop, k.sub(n["T"], 1)), segment.b)
        over = k.b.select(k.compare("!=", n["forget"], 0), k.int(1), k.int(blocks))
        many = k.b.select(after, k.b.select(dropped, k.int(1), k.int(2)), over)
        return k.b.select(k.compare("<", k.sub(segment.stop, segment.t), MIN_BLOCK_STEPS), k.int(0), many)

    def _by_steps(self, tiles: Sequence[ir.Function], at: Mapping[str, ir.Value]) -> None:
        k = self.k
        with each_width(k, at["width"], len(tiles)) as (column, vectors, left):
            moving = {name: k.at(at[name], column) for name in ("v", "start", "end", "g")}
            switch(k, vectors, tiles, Strip(**{**at, **moving}, left=left))

    def _clear(self, v: ir.Value, ldv: ir.Value) -> None:
        """Write the zeros beyond the columns and the 1 of a bias, which hold for all steps."""
        k, n = self.k, self.n
        with k.loop(0, k.least(n["T"], STEPS)) as step:
            last = k.add(k.mul(ldv, step), k.mul(k.div(k.sub(n["V"], 1), k.lanes), k.lanes))
            k.store(k.splat_constant(0.0), v, last)
            with k.when(k.compare("!=", n["bias"], 0)):
                k.b.store(k.number(1.0), k.at(v, k.mul(ldv, step), k.sub(n["V"], 1)))

    @contextmanager
    def _segments(self) -> Iterator[_Segment]:
        """Iterate over batch rows and their segments; a `reset` flag begins a new one."""
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
        """Copy the pieces of v side by side, for each step of a segment."""
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
        """Copy each coefficient to a vector, one lane per row, for each step of a segment."""
        k, mask = self.k, self.k.lanes_below(rows)
        with k.loop(segment.t, segment.stop) as t:
            out = k.at(c, k.mul(k.sub(t, segment.t), len(self.form.coefficients) * k.lanes))
            for i, vector in enumerate(self._vectors(segment, t, row, mask)):
                k.store(vector, out, i * k.lanes)

    def _vectors(self, segment: _Segment, t: ir.Value, row: ir.Value, mask: ir.Value) -> list[ir.Value]:
        k, n, where = self.k, self.n, self._row(t, segment.b)
        return [k.load(n[x], k.mul(where, n[f"ld.{x}"]), row, mask=mask) for x in self.form.coefficients]

    def _traces(self, segment: _Segment, row: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The addresses of a panel's traces before and after a segment."""
        k, n = self.k, self.n
        before = k.b.select(k.compare("==", segment.t, 0), n["start"], n["end"])
        offset = k.mul(k.add(k.mul(k.mul(segment.b, self.form.states), n["K"]), row), n["V"])
        return k.at(before, offset), k.at(n["end"], offset)

    def vector(self) -> None:
        """Lanes are rows: for a bias alone, whose v is 1."""
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
