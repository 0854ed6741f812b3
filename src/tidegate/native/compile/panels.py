"""Code of a step's stages: for each panel the products, then the pointwise mathematics row by row."""

from dataclasses import dataclass

from tidegate.equations.values import SCALAR, Rate, Value
from tidegate.native._llvm import ir
from tidegate.native.compile.addresses import Places, Rows
from tidegate.native.compile.arguments import PAST_CACHES, early_calls, most_panels
from tidegate.native.compile.builder import I64, VOID, Builder
from tidegate.native.compile.canonical import bias
from tidegate.native.compile.library import symbol
from tidegate.native.compile.mathematics import Mathematics
from tidegate.native.compile.plan import BLOCK_VECTORS, Home, MatrixCall, Stage, Write

MULTI_BLOCK_ROWS = 2  # rows up to which several blocks are multiplied together, to hide the latency of their sums


@dataclass(frozen=True, eq=False)
class _Blocks:
    """How a stage's products are divided: panels side by side, the most blocks of a part, this thread's blocks; a
    slot's and a row's width in elements, and a block's size for one step."""

    side: ir.Value
    most: ir.Value
    count: ir.Value
    slot_width: ir.Value
    row_width: ir.Value
    size: ir.Value


class Panels:
    """Emits a stage of a step: the products of each block of panels, then the pointwise part of each panel and row."""

    def __init__(self, places: Places, mathematics: Mathematics, number: int, stage: Stage, rows: Rows) -> None:
        self.places, self.k, self.number, self.stage, self.rows = places, places.k, number, stage, rows
        self.mathematics = mathematics
        self.homes = places.loop.homes
        self.width = places.width(stage.size)
        self.slots = {v: slot for slot, v in enumerate(stage.linears)}

    def emit(self) -> None:
        """Emit the stage."""
        k, stage = self.k, self.stage
        first, count = self.places.panels(stage.size)
        if not stage.linears:
            with k.loop(first, k.add(first, count)) as panel:
                self._panel(panel, None)
            return
        early = early_calls(stage, self.places.loop)
        blocks = self._blocks(self.rows)
        products = k.at(self.places.a["products"], k.mul(self.places.me, self.places.a["ld.products"]))
        stride = blocks.size
        apart = k.compare("==", self.places.chunk, 0)
        if early:
            since = k.mul(k.mul(self.rows.since, self.places.rows), blocks.row_width)
            products = k.b.select(apart, products, k.at(self._early_memory(blocks), since))
            stride = k.b.select(apart, stride, self._chunk_stride(blocks))
        together = k.b.select(k.compare("<=", self.rows.count, MULTI_BLOCK_ROWS), I64(BLOCK_VECTORS), I64(1))
        with k.loop(0, blocks.count, together) as block:
            some = k.least(together, k.sub(blocks.count, block))
            here = k.at(products, k.b.select(apart, I64(0), k.mul(block, stride))) if early else products
            self._zero(blocks, some, here, stride)
            if early:
                with k.when(apart):
                    self._products(early, blocks, block, some, here, stride)
            self._products([c for c in stage.calls if c not in early], blocks, block, some, here, stride)
            begin = k.mul(block, blocks.side)
            with k.loop(begin, k.least(k.mul(k.add(block, some), blocks.side), count)) as local:
                index = k.sub(local, begin)
                column = k.mul(k.b.urem(index, blocks.side), k.lanes)
                offset = k.add(k.mul(k.b.udiv(index, blocks.side), stride), column)
                self._panel(k.add(first, local), (k.at(here, offset), blocks.row_width, blocks.slot_width))

    def emit_early(self) -> None:
        """Emit the products of a whole chunk's inputs, which its steps then add to."""
        blocks = self._blocks(self.rows)
        stride = self._chunk_stride(blocks)
        early = early_calls(self.stage, self.places.loop)
        self._products(early, blocks, I64(0), blocks.count, self._early_memory(blocks), stride)

    def _blocks(self, rows: Rows) -> _Blocks:
        k = self.k
        side, most = self.places.blocking(self.stage)
        _, panels = self.places.panels(self.stage.size)
        slot_width = k.mul(side, k.lanes)
        row_width = k.mul(slot_width, len(self.stage.linears))
        count = k.b.udiv(k.sub(k.add(panels, side), 1), side)
        return _Blocks(side, most, count, slot_width, row_width, k.mul(row_width, rows.count))

    def _chunk_stride(self, blocks: _Blocks) -> ir.Value:
        k, places = self.k, self.places
        return k.mul(k.mul(places.a["chunk"], places.rows), blocks.row_width)

    def _early_memory(self, blocks: _Blocks) -> ir.Value:
        k, places = self.k, self.places
        share = k.mul(k.mul(k.mul(places.a["chunk"], places.B), blocks.row_width), blocks.most)
        return k.at(places.a[f"early.{self.number}"], k.mul(places.me, share))

    def _products(
        self,
        calls: list[MatrixCall],
        blocks: _Blocks,
        block: ir.Value,
        some: ir.Value,
        products: ir.Value,
        stride: ir.Value,
    ) -> None:
        """Products of the next `some` blocks, `stride` elements apart."""
        k = self.k
        for number, call in enumerate(self.stage.calls):
            if call not in calls:
                continue
            depth = self.places.width(call.vector.size)
            size = k.mul(depth, k.mul(blocks.slot_width, len(call.matrices)))
            region = k.add(k.mul(self.places.region(self.stage), blocks.most), block)
            packed = k.at(self.places.a[f"packed.{self.number}.{number}"], k.mul(region, size))
            into = k.at(products, k.mul(blocks.slot_width, call.first))
            vectors = k.mul(blocks.side, len(call.matrices))
            widths = [len(call.matrices) * side for side in range(1, most_panels(len(self.stage.linears)) + 1)]
            last = (packed, some, size, into, blocks.row_width, stride, I64(int(call.fresh)))
            if call.vector is self.places.plan.index:
                self._columns_read(widths, vectors, last)
            else:
                source, ld = self.places.operand(call.vector, self.rows)
                begin, end = self._depth(call, depth, k.mul(block, blocks.side), k.mul(some, blocks.side))
                near = k.at(packed, k.mul(begin, k.mul(vectors, k.lanes)))
                arguments = (self.rows.count, k.sub(end, begin), k.at(source, begin), ld, near, *last[1:])
                _product(k, widths, vectors, arguments)

    def _depth(self, call: MatrixCall, depth: ir.Value, panel: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The range of a vector that some panels read: for block-diagonal matrices, that of their blocks."""
        k = self.k
        parts = {matrix.attrs.get("blocks") for matrix, _ in call.matrices}
        number = parts.pop()
        if number is None or parts:
            return I64(0), depth
        first, _ = self.places.panels(self.stage.size)
        begin = k.mul(k.add(first, panel), k.lanes)
        end = k.least(k.add(begin, k.mul(count, k.lanes)), self.width)
        units, columns = k.div(self.width, number), k.div(depth, number)
        last = k.b.udiv(k.sub(k.add(end, units), 1), units)
        return k.mul(k.b.udiv(begin, units), columns), k.mul(last, columns)

    def _columns_read(self, widths: list[int], vectors: ir.Value, last: tuple[ir.Value, ...]) -> None:
        """Read the matrices' column of each row's index, which equals the product with a one-hot."""
        k, places = self.k, self.places
        packed, some, size, into, row_width, stride, fresh = last
        with k.loop(0, self.rows.count) as row:
            column = k.at(
                packed, k.mul(places.index(self.rows.step, k.add(places.first_row, row)), k.mul(vectors, k.lanes))
            )
            here = k.at(into, k.mul(row, row_width))
            arguments = (I64(1), I64(1), places.one, I64(0), column, some, size, here, row_width, stride, fresh)
            _product(k, widths, vectors, arguments)

    def _zero(self, blocks: _Blocks, some: ir.Value, products: ir.Value, stride: ir.Value) -> None:
        """Zero the slots that only some products of a run initialise."""
        k = self.k
        for slot in self.stage.zeroed:
            with k.loop(0, some) as n, k.loop(0, self.rows.count) as row, k.loop(0, blocks.side) as j:
                column = k.add(k.mul(blocks.slot_width, slot), k.mul(j, k.lanes))
                k.store(k.splat_constant(0.0), products, k.mul(n, stride), k.mul(row, blocks.row_width), column)

    def _panel(self, panel: ir.Value, products: tuple[ir.Value, ir.Value, ir.Value] | None) -> None:
        k = self.k
        self.unit = k.mul(panel, k.lanes)
        self.mask = k.lanes_below(k.sub(self.width, self.unit))
        still = self._still_values()
        starts = {w.name: self._start(w) for w in self.stage.writes if w.kind == "carry" and not self.places.backward}
        with k.loop(0, self.rows.count) as row:
            _Row(self, row, dict(still), starts, products).emit()

    def _start(self, write: Write) -> ir.Value:
        start = self.places.a[f"start.{write.name}"]
        return self.k.load(start, self.unit, mask=self.mask)

    def _still_values(self) -> dict[Value, ir.Value]:
        """Values that are the same for all rows."""
        stage = self.stage
        read = {a for v in stage.values if v.op != "linear" for a in v.args} | {w.value for w in stage.writes}
        read |= {b for v in stage.linears if (b := bias(v)) is not None}
        return {v: self._still(v) for v in sorted(read, key=lambda v: v.order) if v.rate == Rate.WEIGHTS}

    def _still(self, value: Value) -> ir.Value:
        k = self.k
        if value.op == "constant":
            return k.splat_constant(value.attrs["value"])
        if value.op == "count":
            return k.splat(k.b.sitofp(self.places.width((value.attrs["of"],)), k.real))
        source = self.places.a[f"weights.{self.homes[value].name}"]
        return k.splat(k.scalar(source)) if value.size == SCALAR else k.load(source, self.unit, mask=self.mask)


class _Row:
    """One row of a panel: values from memory, the mathematics, values to memory."""

    def __init__(
        self,
        panels: Panels,
        row: ir.Value,
        known: dict[Value, ir.Value],
        starts: dict[str, ir.Value],
        products: tuple[ir.Value, ir.Value, ir.Value] | None,
    ) -> None:
        self.panels, self.places, self.k, self.row = panels, panels.places, panels.k, row
        self.known, self.starts, self.products = known, starts, products
        self.step, self.slot = panels.rows.step, panels.k.add(panels.places.first_row, row)
        self.later: list[tuple[ir.Value, ir.Value]] = []

    def emit(self) -> None:
        """Emit the row."""
        k, stage = self.k, self.panels.stage
        for value in stage.values:
            self.known[value] = self._compute(value)
            home = self.panels.homes.get(value)
            if home is not None and home.where in ("row", "private"):
                k.store(self.known[value], self._address(home), self.panels.unit)
        for write in stage.writes:
            self._write(write, self._get(write.value))
        if self.later:
            self._keep()

    def _keep(self) -> None:
        k, keeping = self.k, self.places.a["keeping"]
        with k.when(k.compare("!=", keeping, 0)), k.b.if_else(k.compare("==", keeping, PAST_CACHES)) as (past, usual):
            with past:
                for value, address in self.later:
                    k.store_past_caches(value, address, self.panels.unit)
            with usual:
                for value, address in self.later:
                    k.store(value, address, self.panels.unit, mask=self.panels.mask)

    def _compute(self, value: Value) -> ir.Value:
        k = self.k
        if value.op == "linear":
            assert self.products is not None
            source, row_width, slot_width = self.products
            found = k.load(source, k.mul(self.row, row_width), k.mul(slot_width, self.panels.slots[value]))
            added = bias(value)
            return found if added is None else k.b.fadd(found, self._get(added))
        if value.op == "spread":
            return self._get(value.args[0])
        return self.panels.mathematics.apply(value.op, *(self._get(a) for a in value.args))

    def _get(self, value: Value) -> ir.Value:
        if value not in self.known:
            self.known[value] = self._load(value, self.panels.homes[value])
        return self.known[value]

    def _address(self, home: Home) -> ir.Value:
        return self.places.row(home, self.panels.rows, self.row)

    def _load(self, value: Value, home: Home) -> ir.Value:
        k, address = self.k, self._address(home)
        if value.size == SCALAR:
            return k.splat(k.scalar(address))
        padded = home.where in ("row", "private", "gradient", "dz", *(() if self.places.backward else ("old",)))
        return k.load(address, self.panels.unit, mask=None if padded else self.panels.mask)

    def _write(self, write: Write, value: ir.Value) -> None:
        k, places, panels = self.k, self.places, self.panels
        width = places.width(write.size)
        here = places.here(self.step, self.slot)
        if write.kind == "carry":
            self._carry(write, value)
        elif write.kind == "output":
            place = k.load_int(places.a["place"], here)
            into = k.at(places.a["output"], k.mul(place, places.a["ld.output"]), *map(places.letters, write.before))
            k.store(value, into, panels.unit, mask=panels.mask)
        elif write.kind == "keep":
            self.later.append((value, k.at(places.a[f"keep.{write.name}"], k.mul(here, width))))
        elif write.kind == "dz":
            base, ld = places.block(Home("dz", write.name, write.size), panels.rows)
            k.store(value, base, k.mul(self.row, ld), panels.unit)
        elif write.kind == "vector":
            k.store(value, places.a[f"vector.{write.name}"], k.mul(here, width), panels.unit, mask=panels.mask)
        elif write.kind == "input":
            place = k.load_int(places.a["place"], here)
            name = f"gradient.{write.name}"
            into = k.at(places.a[name], k.mul(place, places.a[f"ld.{name}"]))
            k.store(value, into, panels.unit, mask=panels.mask)
        elif write.kind == "sequence":
            self._add(write, value, places.a[f"gradient.{write.name}"], k.mul(places.batch_row(self.slot), width))
        else:
            self._add(write, value, places.a[f"sum.{write.name}"], k.mul(self.slot, width))

    def _add(self, write: Write, value: ir.Value, base: ir.Value, offset: ir.Value) -> None:
        """Add to memory; values that every thread computes are added by the first thread only."""
        k, panels = self.k, self.panels
        mask = panels.mask
        if write.size == SCALAR:
            mask = k.b.select(k.compare("==", self.places.part, 0), mask, ir.Constant(mask.type, [0] * k.lanes))
        before = k.load(base, offset, panels.unit, mask=mask)
        k.store(k.b.fadd(before, value), base, offset, panels.unit, mask=mask)

    def _carry(self, write: Write, value: ir.Value) -> None:
        """Carry the new state, or the initial state before a reset; gradients stop at a reset."""
        k, places = self.k, self.places
        width = places.width(write.size)
        if places.backward:
            fresh = places.is_fresh(self.step, self.slot)
            into = places.a[f"start_gradient.{write.name}"]
            with k.when(k.b.and_(fresh, places.given(into))):
                self._add(write, value, into, k.mul(self.slot, width))
            parity, following = k.b.and_(self.step, I64(1)), k.splat_constant(0.0)
        else:
            fresh = places.is_fresh(k.add(self.step, 1), self.slot)
            if write.name in places.plan.history:
                self.later.append(
                    (value, k.at(places.a[f"history.{write.name}"], k.mul(places.here(self.step, self.slot), width)))
                )
            parity, following = k.b.and_(k.add(self.step, 1), I64(1)), self.starts[write.name]
        base, ld = places.carried(write.name, write.size, parity)
        k.store(k.b.select(fresh, following, value), base, k.mul(self.slot, ld), self.panels.unit)


def _product(k: Builder, widths: list[int], vectors: ir.Value, arguments: tuple[ir.Value, ...]) -> None:
    """Call the library's product for this many vectors side by side, one of `widths`."""
    if len(widths) == 1:
        k.call(symbol(f"product{widths[0]}", k.target, k.dtype), VOID, *arguments)
        return
    after = k.b.function.append_basic_block("after")
    choice = k.b.switch(vectors, after)
    for width in widths:
        block = k.b.function.append_basic_block(f"product{width}")
        choice.add_case(I64(width), block)
        k.b.position_at_end(block)
        k.call(symbol(f"product{width}", k.target, k.dtype), VOID, *arguments)
        k.b.branch(after)
    k.b.position_at_end(after)
