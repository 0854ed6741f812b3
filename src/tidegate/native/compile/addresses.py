"""Addresses while a kernel is emitted: sizes, each thread's share, and the places of all values."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tidegate.equations.values import SCALAR, Size, Value
from tidegate.native._llvm import ir
from tidegate.native.compile.arguments import NUMBERS, PAD, Pass, frame_of, loop_of, most_panels
from tidegate.native.compile.builder import I8, I64, VOID, Builder, Int
from tidegate.native.compile.library import symbol
from tidegate.native.compile.plan import Home, KernelPlan, Stage
from tidegate.native.run import threads


@dataclass(eq=False)
class Rows:
    """The rows that a piece of code processes, and their step.

    For a chunk these are the rows of all its steps, one step after the other; `since` counts a step from the first of
    its chunk.
    """

    step: ir.Value
    count: ir.Value
    since: Int = 0


class Places:
    """A kernel's arguments, this thread's share of rows and panels, and the addresses of values.

    Rows are counted from this thread's first; a slot is a row's number among those of all threads.
    """

    def __init__(self, k: Builder, plan: KernelPlan, direction: Pass, f: ir.Function) -> None:
        self.k, self.plan = k, plan
        self.backward = direction == "backward"
        self.loop = loop_of(plan, direction)
        self.frame = frame_of(plan, direction)
        arguments, self.me, self.team = f.args
        self.a = {name: self._argument(arguments, name) for name in self.frame.names}
        self.T, self.B = self.a["T"], self.a["B"]
        self.split = k.compare("!=", self.a["hidden"], 0)
        self.parts = k.b.select(self.split, self.team, I64(1))
        self.part = k.b.select(self.split, self.me, I64(0))
        self.shares = k.b.select(self.split, self.team, self.a["threads"])
        self.share_all()
        self.number = k.b.alloca(I64)
        k.b.store(I64(0), self.number)
        self.one = k.b.alloca(k.real)
        k.b.store(k.number(1.0), self.one)

    def share_all(self) -> None:
        """Process all rows."""
        self._set_rows(I64(0), self.B)

    def set_share(self, share: ir.Value) -> None:
        """Process one of `shares` equal shares of the rows, each with its longest rows first.

        Where units are shared, each thread processes all rows.
        """
        k = self.k
        parts = k.b.select(self.split, I64(1), self.shares)
        part = k.b.select(self.split, I64(0), share)
        first = k.div(k.mul(self.B, part), parts)
        self._set_rows(first, k.sub(k.div(k.mul(self.B, k.add(part, 1)), parts), first))

    def _set_rows(self, first: ir.Value, count: ir.Value) -> None:
        self.first_row, self.rows = first, count
        self.chunk = self._chunk()

    def _argument(self, arguments: ir.Value, name: str) -> ir.Value:
        index = self.frame.index[name]
        if name in NUMBERS or name.startswith(("size.", "ld.", "step.")):
            return self.k.load_int(arguments, index)
        if name not in self.frame.working:
            return self.k.load_pointer(arguments, index)
        memory = self.k.load_pointer(arguments, self.frame.index["flags"])
        return self.k.b.gep(memory, [self.k.load_int(arguments, index)], source_etype=I8)

    def _chunk(self) -> ir.Value:
        """Steps per chunk; backwards there are chunks only where the rows of steps are contiguous."""
        k, chunk = self.k, self.a["chunk"]
        if not self.backward:
            return chunk
        dense = k.compare("==", self.a["count"], k.mul(self.T, self.B))
        return k.b.select(k.b.and_(dense, k.compare("==", self.rows, self.B)), chunk, I64(0))

    # sizes and shares

    def width(self, size: Size) -> ir.Value:
        """A size in elements."""
        letters = [x for p in size for x in ([p] if isinstance(p, int) else p.split("+"))]
        return self.k.add(*(self._letter(x) for x in letters))

    def _letter(self, letter: str | int) -> Int:
        return 1 if letter in (1, "1") else self.a[f"size.{letter}"]

    def padded(self, size: Size) -> ir.Value:
        """The leading dimension of working memory, as `arguments.padded` computes it."""
        k = self.k
        return k.add(k.mul(k.ceil(self.width(size), PAD), PAD), PAD)

    def panels(self, size: Size) -> tuple[ir.Value, ir.Value]:
        """This thread's first panel and number of panels; each thread computes vectors of one unit."""
        k = self.k
        if size == SCALAR:
            return I64(0), I64(1)
        every = k.ceil(self.width(size), k.lanes)
        first = k.div(k.mul(every, self.part), self.parts)
        return first, k.sub(k.div(k.mul(every, k.add(self.part, 1)), self.parts), first)

    def blocking(self, stage: Stage) -> tuple[ir.Value, ir.Value]:
        """Panels side by side, and blocks of a part, as `arguments.blocking` computes them."""
        k, most = self.k, most_panels(len(stage.linears))
        parts = I64(1) if stage.size == SCALAR else self.parts
        mine = k.b.udiv(k.sub(k.add(k.ceil(self.width(stage.size), k.lanes), parts), 1), parts)
        blocks = k.ceil(mine, most)
        return k.b.udiv(k.sub(k.add(mine, blocks), 1), blocks), blocks

    def region(self, stage: Stage) -> ir.Value:
        """This thread's part of the packed weights; there is a single part where rows are shared."""
        return I64(0) if stage.size == SCALAR else self.part

    def columns(self) -> list[ir.Value]:
        """The offset of each left factor in a row of `dz`, and the row's leading dimension."""
        k = self.k
        offsets: list[ir.Value] = [I64(0)]
        for d in self.plan.columns:
            offsets.append(k.add(offsets[-1], k.mul(k.ceil(self.width(d.size), PAD), PAD)))
        return [*offsets[:-1], k.add(offsets[-1], PAD)]

    @contextmanager
    def each(self, size: Size) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
        """Iterate over this thread's rows and panels: slot, first unit and mask of the panel."""
        k = self.k
        first, count = self.panels(size)
        width = self.width(size)
        with k.loop(first, k.add(first, count)) as panel:
            unit = k.mul(panel, k.lanes)
            mask = k.lanes_below(k.sub(width, unit))
            with k.loop(0, self.rows) as row:
                yield k.add(self.first_row, row), unit, mask

    # the library and the team

    def call(self, function: str, *arguments: Int) -> None:
        """Call a function of the library."""
        self.k.call(symbol(function, self.k.target, self.k.dtype), VOID, *(self.k.int(a) for a in arguments))

    def wait(self) -> None:
        """Wait at the team's barrier."""
        k = self.k
        number = k.add(k.b.load(self.number, typ=I64), 1)
        k.b.store(number, self.number)
        threads.wait(k, self.a["flags"], self.me, self.team, number)

    def given(self, pointer: ir.Value) -> ir.Value:
        """Whether an optional argument is not null."""
        return self.k.b.icmp_unsigned("!=", self.k.b.ptrtoint(pointer, I64), I64(0))

    # addresses of values

    def here(self, step: ir.Value, slot: ir.Value) -> ir.Value:
        """The index of a step and row among all steps and rows."""
        return self.k.add(self.k.mul(step, self.B), slot)

    def own(self, name: str, copies: ir.Value | None, ld: ir.Value) -> ir.Value:
        """This thread's copy of a working array of B rows."""
        k = self.k
        return k.at(self.a[name], k.mul(self.me if copies is None else copies, k.mul(self.B, ld)))

    def carried(self, name: str, size: Size, parity: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The rows of a carried vector, old or new by parity, and their leading dimension."""
        k, ld = self.k, self.padded(size)
        copy = self.me if size == SCALAR else I64(0)
        return k.at(self.a[f"carry.{name}"], k.mul(k.add(k.mul(copy, 2), parity), k.mul(self.B, ld))), ld

    def block(self, home: Home, rows: Rows) -> tuple[ir.Value, ir.Value]:
        """The address of this thread's first row of a value stored in rows, and the leading dimension."""
        k = self.k
        if home.where == "old" and not self.backward:
            base, ld = self.carried(home.name, home.size, k.b.and_(rows.step, I64(1)))
        elif home.where == "gradient":
            base, ld = self.carried(home.name, home.size, k.b.and_(k.add(rows.step, 1), I64(1)))
        elif home.where in ("row", "private"):
            ld = self.padded(home.size)
            base = self.own(f"{home.where}.{home.name}", None if home.where == "private" else I64(0), ld)
        elif home.where == "dz":
            *offsets, ld = self.columns()
            base = k.at(self.a["dz"], k.mul(k.mul(rows.step, self.B), ld), offsets[int(home.name)])
        else:
            ld = self.width(home.size)
            name = {"new": "history", "kept": "keep"}[home.where] + f".{home.name}"
            base = k.at(self.a[name], k.mul(k.mul(rows.step, self.B), ld))
        return k.at(base, k.mul(self.first_row, ld)), ld

    def row(self, home: Home, rows: Rows, row: ir.Value) -> ir.Value:
        """The address of one row of a value, `row` counted from this thread's first."""
        k = self.k
        slot = k.add(self.first_row, row)
        if home.where in ("input", "output"):
            place = k.load_int(self.a["place"], self.here(rows.step, slot))
            name = f"input.{home.name}" if home.where == "input" else "output"
            return k.at(self.a[name], k.mul(place, self.a[f"ld.{name}"]), *map(self.letters, home.before))
        if home.where == "sequence":
            return k.at(self.a[f"input.{home.name}"], k.mul(self.batch_row(slot), self.width(home.size)))
        if home.where == "old" and self.backward:
            return self.before(home, rows.step, slot)
        base, ld = self.block(home, rows)
        return k.at(base, k.mul(row, ld))

    def letters(self, part: str | int) -> ir.Value:
        """A part of a size in elements."""
        return self.width((part,))

    def batch_row(self, slot: ir.Value) -> ir.Value:
        """The batch row in a slot."""
        return self.k.load_int(self.a["rows"], slot)

    def before(self, home: Home, step: ir.Value, slot: ir.Value) -> ir.Value:
        """The address of a step's old state in the backward pass: initial, reset, or the previous step's new state."""
        k, width = self.k, self.width(home.size)
        own_row = k.mul(self.batch_row(slot), self.a[f"step.begin.{home.name}"])
        given = k.at(self.a[f"begin.{home.name}"], k.mul(own_row, width))
        last = k.at(self.a[f"history.{home.name}"], k.mul(self.here(k.sub(step, 1), slot), width))
        found = k.b.select(k.compare("==", step, 0), given, last)
        return k.b.select(self.is_fresh(step, slot), self.a[f"start.{home.name}"], found)

    def is_fresh(self, step: Int, slot: ir.Value) -> ir.Value:
        """Whether the row's state is reset at this step."""
        k = self.k
        index = k.mul(self.here(k.int(step), slot), self.a["fresh.step"])
        return k.b.icmp_unsigned("!=", k.b.load(k.b.gep(self.a["fresh"], [index], source_etype=I8), typ=I8), I8(0))

    def index(self, step: ir.Value, slot: ir.Value) -> ir.Value:
        """The value of the integer input at a step and row."""
        assert self.plan.index is not None
        k, name = self.k, self.loop.homes[self.plan.index].name
        place = k.load_int(self.a["place"], self.here(step, slot))
        return k.load_int(self.a[f"input.{name}"], k.mul(place, self.a[f"ld.input.{name}"]))

    def length(self, slot: ir.Value) -> ir.Value:
        """A row's number of steps."""
        return self.k.load_int(self.a["lens"], slot)

    def fixed(self, value: Value) -> int:
        """The position of a value of weights among those given to the kernel."""
        return int(self.loop.homes[value].name)

    # operands that are read whole

    def operand(self, value: Value, rows: Rows) -> tuple[ir.Value, ir.Value]:
        """The rows of a vector that is multiplied or summed, and their leading dimension."""
        for number, gathered in enumerate(self.loop.gathered):
            if gathered is value:
                return self.gathered_rows(number, value)
        return self.block(self.loop.homes[value], rows)

    def gathered_rows(self, number: int, value: Value) -> tuple[ir.Value, ir.Value]:
        """This thread's gathered copies of a value, and their leading dimension."""
        k, ld = self.k, self.padded(value.size)
        return k.at(self.a[f"gather.{number}"], k.mul(k.mul(self.me, self.most_rows()), ld)), ld

    def most_rows(self) -> ir.Value:
        """The most rows that a thread gathers at once."""
        k, chunk = self.k, self.a["chunk"]
        return k.mul(k.b.select(k.compare("==", chunk, 0), I64(1), chunk), self.B)
