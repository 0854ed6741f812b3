"""From a plan to LLVM's language: one emitter for the forward and the backward kernel of any cell.

A kernel is one function that each thread of the team runs: it packs the weights, sets up what is carried, and goes
through the steps. Threads share the rows of the batch, or, where these are few, the panels of units (`hidden`); then
they wait for each other where the plan has barriers. Rows stand in the order in which a call gives them, longest first,
so that those that are not at their end are the first ones of a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from tidegate.equations.values import SCALAR, Rate, Size, Value
from tidegate.native import threads
from tidegate.native.builder import I8, I64, POINTER, VOID, Builder, Int
from tidegate.native.canonical import bias
from tidegate.native.frame import (
    NUMBERS,
    PAD,
    Pass,
    Span,
    early_calls,
    frame_of,
    loop_of,
    most_panels,
    right_factors,
    spans,
)
from tidegate.native.library import symbol
from tidegate.native.mathematics import Mathematics
from tidegate.native.plan import WIDEST, Call, Home, Plan, Stage, Write
from tidegate.native.target import DType, Target

LASTING = ("dz", "kept", "new", "weights")  # what has a place of its own for each step and row, one below the other
BY_PLACE = ("input", "output")
FEW_ROWS = 2  # up to so many, several blocks are multiplied together, for a block alone would wait for its own sums


def lower(plan: Plan, target: Target, dtype: DType) -> str:
    """The text of a module with the functions `forward` and `backward`."""
    k = Builder(plan.graph.name, target, dtype)
    mathematics = Mathematics(k)
    directions: tuple[Pass, ...] = ("forward", "backward")
    for direction in directions:
        with k.function(f"{direction}.thread", [POINTER, I64, I64]) as f:
            _Kernel(k, mathematics, plan, direction, f).emit()
        threads.team(k, direction, f"{direction}.thread")
    return str(k.module)


@dataclass(eq=False)
class _Rows:
    """The rows that a piece of code goes through, and the step that they are in.

    Of a chunk they are those of all its steps, one step's below the other's; `since` counts this step from its chunk's
    first, where it is in one.
    """

    step: ir.Value
    count: ir.Value
    since: Int = 0


class _Kernel:
    def __init__(self, k: Builder, mathematics: Mathematics, plan: Plan, direction: Pass, f: ir.Function) -> None:
        self.k, self.mathematics, self.plan, self.f = k, mathematics, plan, f
        self.backward = direction == "backward"
        self.loop = loop_of(plan, direction)
        self.frame = frame_of(plan, direction)
        arguments, self.me, self.team = f.args
        self.a = {name: self._argument(arguments, name) for name in self.frame.names}
        self.T, self.B = self.a["T"], self.a["B"]
        self.split = k.compare("!=", self.a["hidden"], 0)
        self.parts = k.b.select(self.split, self.team, I64(1))
        self.part = k.b.select(self.split, self.me, I64(0))
        row_parts = k.b.select(self.split, I64(1), self.team)
        row_part = k.b.select(self.split, I64(0), self.me)
        self.first_row = k.div(k.mul(self.B, row_part), row_parts)
        self.rows = k.sub(k.div(k.mul(self.B, k.add(row_part, 1)), row_parts), self.first_row)
        self.number = k.b.alloca(I64)
        k.b.store(I64(0), self.number)
        self.chunk = self._chunk()
        self.one = k.b.alloca(k.real)
        k.b.store(k.number(1.0), self.one)
        late = {s.only_for for s in self.loop.stages if s.only_for is not None}
        hasty = {s.only_for for s in self.loop.stages if not self._can_wait(s)}
        self.waiting = late - hasty

    def _argument(self, arguments: ir.Value, name: str) -> ir.Value:
        index = self.frame.index[name]
        is_number = name in NUMBERS or name.startswith(("size.", "ld."))
        return self.k.load_int(arguments, index) if is_number else self.k.load_pointer(arguments, index)

    def _chunk(self) -> ir.Value:
        """How many steps are taken together: backwards only where their rows lie one below the other, without gaps."""
        k, chunk = self.k, self.a["chunk"]
        if not self.backward:
            return chunk
        dense = k.compare("==", self.a["count"], k.mul(self.T, self.B))
        return k.b.select(k.b.and_(dense, k.compare("==", self.rows, self.B)), chunk, I64(0))

    # sizes and addresses

    def width(self, size: Size) -> ir.Value:
        """A size in numbers."""
        letters = [x for p in size for x in ([p] if isinstance(p, int) else p.split("+"))]
        return self.k.add(*(self._letter(x) for x in letters))

    def _letter(self, letter: str | int) -> Int:
        return 1 if letter in (1, "1") else self.a[f"size.{letter}"]

    def padded(self, size: Size) -> ir.Value:
        """The leading dimension of working memory, as `frame.padded` has it."""
        k = self.k
        return k.add(k.mul(k.ceil(self.width(size), PAD), PAD), PAD)

    def panels(self, size: Size) -> tuple[ir.Value, ir.Value]:
        """The first panel of this thread and how many it has; vectors of one unit are everyone's."""
        k = self.k
        if size == SCALAR:
            return I64(0), I64(1)
        every = k.ceil(self.width(size), k.lanes)
        first = k.div(k.mul(every, self.part), self.parts)
        return first, k.sub(k.div(k.mul(every, k.add(self.part, 1)), self.parts), first)

    def columns(self) -> list[ir.Value]:
        """Where each left factor begins in a row of `dz`, and the row's leading dimension."""
        k = self.k
        offsets: list[ir.Value] = [I64(0)]
        for d in self.plan.columns:
            offsets.append(k.add(offsets[-1], k.mul(k.ceil(self.width(d.size), PAD), PAD)))
        return [*offsets[:-1], k.add(offsets[-1], PAD)]

    def here(self, step: ir.Value, slot: ir.Value) -> ir.Value:
        """The number of a step and row among all steps and rows."""
        return self.k.add(self.k.mul(step, self.B), slot)

    def call(self, function: str, *arguments: Int) -> None:
        """Call a function of the library."""
        self.k.call(symbol(function, self.k.target, self.k.dtype), VOID, *(self.k.int(a) for a in arguments))

    def wait(self) -> None:
        """The barrier of the team."""
        k = self.k
        number = k.add(k.b.load(self.number, typ=I64), 1)
        k.b.store(number, self.number)
        threads.wait(k, self.a["flags"], self.me, self.team, number)

    def given(self, pointer: ir.Value) -> ir.Value:
        """Whether an argument was given."""
        return self.k.b.icmp_unsigned("!=", self.k.b.ptrtoint(pointer, I64), I64(0))

    # where values stand

    def own(self, name: str, copies: ir.Value | None, ld: ir.Value) -> ir.Value:
        """A thread's copy of working memory of B rows."""
        k = self.k
        return k.at(self.a[name], k.mul(self.me if copies is None else copies, k.mul(self.B, ld)))

    def carried(self, name: str, size: Size, parity: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The rows of a carried vector, old or new by the parity, and their leading dimension."""
        k, ld = self.k, self.padded(size)
        copy = self.me if size == SCALAR else I64(0)
        return k.at(self.a[f"carry.{name}"], k.mul(k.add(k.mul(copy, 2), parity), k.mul(self.B, ld))), ld

    def block(self, home: Home, rows: _Rows) -> tuple[ir.Value, ir.Value]:
        """The first of this thread's rows of what stands in rows one below the other, and the leading dimension."""
        k = self.k
        if home.where == "old" and not self.backward:
            base, ld = self.carried(home.name, home.size, k.b.and_(rows.step, I64(1)))
        elif home.where == "adjoint":
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

    def row(self, home: Home, rows: _Rows, row: ir.Value) -> ir.Value:
        """The address of one row of a value, `row` counted from this thread's first."""
        k = self.k
        slot = k.add(self.first_row, row)
        if home.where in ("input", "output"):
            place = k.load_int(self.a["place"], self.here(rows.step, slot))
            name = f"input.{home.name}" if home.where == "input" else "output"
            return k.at(self.a[name], k.mul(place, self.a[f"ld.{name}"]), *map(self._letters, home.before))
        if home.where == "sequence":
            return k.at(self.a[f"input.{home.name}"], k.mul(self.batch_row(slot), self.width(home.size)))
        if home.where == "old" and self.backward:
            return self.before(home, rows.step, slot)
        base, ld = self.block(home, rows)
        return k.at(base, k.mul(row, ld))

    def _letters(self, part: str | int) -> ir.Value:
        return self.width((part,))

    def batch_row(self, slot: ir.Value) -> ir.Value:
        """Which row of the batch stands in a slot."""
        return self.k.load_int(self.a["rows"], slot)

    def before(self, home: Home, step: ir.Value, slot: ir.Value) -> ir.Value:
        """The address of a state as a step of the backward pass found it: given, fresh, or the last step's new one."""
        k, width = self.k, self.width(home.size)
        given = k.at(self.a[f"begin.{home.name}"], k.mul(self.batch_row(slot), width))
        last = k.at(self.a[f"history.{home.name}"], k.mul(self.here(k.sub(step, 1), slot), width))
        found = k.b.select(k.compare("==", step, 0), given, last)
        return k.b.select(self.is_fresh(step, slot), self.a[f"start.{home.name}"], found)

    def is_fresh(self, step: Int, slot: ir.Value) -> ir.Value:
        """Whether the row starts afresh at this step."""
        k = self.k
        index = k.mul(self.here(k.int(step), slot), self.a["fresh.step"])
        return k.b.icmp_unsigned("!=", k.b.load(k.b.gep(self.a["fresh"], [index], source_etype=I8), typ=I8), I8(0))

    def index(self, step: ir.Value, slot: ir.Value) -> ir.Value:
        """The index that an input of whole numbers has at a step and row."""
        k, name = self.k, self.loop.homes[self.plan.index].name
        place = k.load_int(self.a["place"], self.here(step, slot))
        return k.load_int(self.a[f"input.{name}"], k.mul(place, self.a[f"ld.input.{name}"]))

    def length(self, slot: ir.Value) -> ir.Value:
        """A row's number of steps."""
        return self.k.load_int(self.a["lens"], slot)

    # the kernel

    def emit(self) -> None:
        """The body of the kernel."""
        self._pack()
        self._begin()
        self._gather(set(self.loop.gathered) - self._moving(), _Rows(I64(0), self.rows))
        self.wait()
        if self.backward:
            self._steps_back()
        else:
            self._steps()
        self._end()
        if self.backward:
            self.wait()
            self._matrices()

    def _steps(self) -> None:
        """From the first step to the last, in chunks; rows leave when they are at their end."""
        k, chunk = self.k, self.chunk
        stride = k.b.select(k.compare("==", chunk, 0), I64(1), chunk)
        with k.carrying(0, self.T, stride, carry=[self.rows]) as (begin, outer):
            some = k.least(stride, k.sub(self.T, begin))
            with k.when(k.compare("!=", chunk, 0)):
                self._early(_Rows(begin, k.mul(some, self.rows)))
            with k.carrying(begin, k.add(begin, some), carry=outer) as (step, state):
                state[0] = self._still(step, state[0])
                self._step(_Rows(step, state[0], k.sub(step, begin)))
            outer[0] = state[0]

    def _steps_back(self) -> None:
        """From the last step to the first; rows join when their own last step comes.

        The inputs' gradients of a chunk are computed after its steps.
        """
        k, chunk = self.k, self.chunk
        stride = k.b.select(k.compare("==", chunk, 0), I64(1), chunk)
        with k.carrying(0, self.T, stride, carry=[I64(0)]) as (begin, outer):
            end = k.least(k.add(begin, stride), self.T)
            with k.carrying(begin, end, carry=outer) as (back, state):
                step = k.sub(k.sub(self.T, 1), back)
                state[0] = self._joined(step, state[0])
                self._step(_Rows(step, state[0]))
            outer[0] = state[0]
            with k.when(k.compare("!=", chunk, 0)):
                self._late(_Rows(k.sub(self.T, end), k.mul(k.sub(end, begin), self.rows)))

    def _early(self, rows: _Rows) -> None:
        """The products of a chunk's inputs."""
        vectors = {c.vector for stage in self.loop.stages for c in early_calls(stage, self.loop)}
        self._gather(vectors, rows)
        for number, stage in enumerate(self.loop.stages):
            if early_calls(stage, self.loop):
                _Panels(self, number, stage, rows).emit_early()

    def _late(self, rows: _Rows) -> None:
        """The stages that can wait until their chunk is through."""
        for number, stage in enumerate(self.loop.stages):
            if stage.only_for in self.waiting:
                with self.k.when(self.given(self.a[f"gradient.{stage.only_for}"])):
                    self._stage(number, stage, rows)

    def _can_wait(self, stage: Stage) -> bool:
        """Whether a stage reads only what has a place of its own for each step."""
        read = {a for v in stage.values if v.op != "linear" for a in v.args} | {w.value for w in stage.writes}
        homes = [self.loop.homes[v].where for v in read if v in self.loop.homes]
        whole = [self.loop.homes[c.vector].where for c in stage.calls]
        lasting = all(where in LASTING for where in whole) and all(w in (*LASTING, *BY_PLACE) for w in homes)
        return stage.across is None and lasting

    def _still(self, step: ir.Value, count: ir.Value) -> ir.Value:
        """How many of the rows have not come to their end."""
        k = self.k
        with self._while(count) as (found, decide):
            last = k.sub(found, 1)
            slot = k.b.select(k.compare(">", found, 0), k.add(self.first_row, last), I64(0))
            decide(k.b.and_(k.compare(">", found, 0), k.compare("<=", self.length(slot), step)), last)
        return found

    def _joined(self, step: ir.Value, count: ir.Value) -> ir.Value:
        k = self.k
        with self._while(count) as (found, decide):
            inside = k.compare("<", found, self.rows)
            slot = k.b.select(inside, k.add(self.first_row, found), I64(0))
            decide(k.b.and_(inside, k.compare(">", self.length(slot), step)), k.add(found, 1))
        return found


    @contextmanager
    def _while(self, start: ir.Value) -> Iterator[tuple[ir.Value, object]]:
        """A number that is changed as long as a condition holds: `decide(condition, next)` ends the block."""
        b = self.k.b
        before, head, after = b.block, b.function.append_basic_block("head"), b.function.append_basic_block("after")
        b.branch(head)
        b.position_at_end(head)
        found = b.phi(I64)
        found.add_incoming(start, before)

        def decide(condition: ir.Value, following: ir.Value) -> None:
            found.add_incoming(following, b.block)
            b.cbranch(condition, head, after)

        yield found, decide
        b.position_at_end(after)

    def _step(self, rows: _Rows) -> None:
        k = self.k
        apart = k.compare("==", self.chunk, 0)
        early = self._only_early()
        self._gather(self._moving() - early, rows)
        if early:
            with k.when(apart):
                self._gather(early, rows)
        for number, stage in enumerate(self.loop.stages):
            if stage.only_for is None:
                self._stage(number, stage, rows)
                continue
            wanted = self.given(self.a[f"gradient.{stage.only_for}"])
            with k.when(k.b.and_(wanted, apart) if stage.only_for in self.waiting else wanted):
                self._stage(number, stage, rows)

    def _moving(self) -> set[Value]:
        """The gathered values that change from step to step."""
        return {v for v in self.loop.gathered if self.loop.homes[v].where != "sequence"}

    def _only_early(self) -> set[Value]:
        """The gathered values that a step does not read itself, if its chunk's products are there."""
        early = {c for s in self.loop.stages for c in early_calls(s, self.loop)}
        used = {c.vector for s in self.loop.stages for c in s.calls if c not in early}
        used |= {a for s in self.loop.stages if s.across is not None for a in s.across.args}
        return self._moving() - used

    def _stage(self, number: int, stage: Stage, rows: _Rows) -> None:
        if stage.barrier:
            with self.k.when(self.split):
                self.wait()
        if stage.across is not None:
            self._across(stage.across, rows)
        else:
            _Panels(self, number, stage, rows).emit()

    def _across(self, value: Value, rows: _Rows) -> None:
        (operand,) = value.args
        source, ld = self.operand(operand, rows)
        into, into_ld = self.block(self.loop.homes[value], rows)
        few, many = self.width(value.size), self.width(operand.size)
        if value.op == "total":
            self.call("total", rows.count, source, ld, many, few, into, into_ld)
        else:
            self.call("spread", rows.count, source, ld, many, few, into, into_ld)

    # operands that are read whole

    def operand(self, value: Value, rows: _Rows) -> tuple[ir.Value, ir.Value]:
        """The rows of a vector that is multiplied or summed, and their leading dimension."""
        for number, gathered in enumerate(self.loop.gathered):
            if gathered is value:
                return self._gathered_rows(number, value)
        return self.block(self.loop.homes[value], rows)

    def _gathered_rows(self, number: int, value: Value) -> tuple[ir.Value, ir.Value]:
        k, ld = self.k, self.padded(value.size)
        return k.at(self.a[f"gather.{number}"], k.mul(k.mul(self.me, self._most_rows()), ld)), ld

    def _most_rows(self) -> ir.Value:
        """The most rows that a thread gathers at once."""
        k, chunk = self.k, self.a["chunk"]
        return k.mul(k.b.select(k.compare("==", chunk, 0), I64(1), chunk), self.B)

    def _gather(self, values: set[Value], rows: _Rows) -> None:
        """Copy values to rows one below the other; of a chunk, one step's rows below the other's."""
        k = self.k
        pointers = k.at_int(self.a["pointers"], k.mul(self.me, self._most_rows()))
        for number, value in enumerate(self.loop.gathered):
            if value not in values:
                continue
            home = self.loop.homes[value]
            with k.loop(0, rows.count) as row:
                step = k.add(rows.step, k.b.udiv(row, self.rows))
                address = self.row(home, _Rows(step, rows.count), k.b.urem(row, self.rows))
                k.b.store(address, k.at_int(pointers, row))
            into, ld = self._gathered_rows(number, value)
            self.call("gather", rows.count, pointers, self.width(value.size), into, ld)

    # weights

    def blocking(self, stage: Stage) -> tuple[ir.Value, ir.Value]:
        """As `frame.blocking` has it: panels side by side, and blocks of a part."""
        k, most = self.k, most_panels(len(stage.linears))
        parts = I64(1) if stage.size == SCALAR else self.parts
        mine = k.b.udiv(k.sub(k.add(k.ceil(self.width(stage.size), k.lanes), parts), 1), parts)
        blocks = k.ceil(mine, most)
        return k.b.udiv(k.sub(k.add(mine, blocks), 1), blocks), blocks

    def _pack(self) -> None:
        k = self.k
        with k.when(k.compare("==", self.a["packed"], 0)):
            for s, stage in enumerate(self.loop.stages):
                for c, call in enumerate(stage.calls):
                    if stage.only_for is not None:
                        with k.when(self.given(self.a[f"gradient.{stage.only_for}"])):
                            self._pack_call(stage, call, self.a[f"packed.{s}.{c}"])
                    else:
                        self._pack_call(stage, call, self.a[f"packed.{s}.{c}"])

    def _pack_call(self, stage: Stage, call: Call, into: ir.Value) -> None:
        """Each thread packs a share of the panels; where units are split, those that it will use."""
        k = self.k
        side, blocks = self.blocking(stage)
        depth = self.width(call.vector.size)
        row_width = k.mul(k.mul(side, k.lanes), len(call.matrices))
        stride = k.mul(depth, row_width)
        first, count, begin, end = self._panels_to_pack(stage)
        into = k.at(into, k.mul(k.mul(self._region(stage), blocks), stride))
        for number, (matrix, turned) in enumerate(call.matrices):
            source = self.a[f"weights.{self._fixed(matrix)}"]
            ld = self.width((matrix.size[1],))
            column = k.mul(k.mul(side, k.lanes), number)
            units = k.sub(self.width(stage.size), k.mul(first, k.lanes))
            skip = k.mul(first, k.lanes)
            if turned:
                source = k.at(source, skip)
                self.call("pack_plain", source, ld, depth, units, into, begin, end, side, stride, row_width, column)
            else:
                source = k.at(source, k.mul(skip, ld))
                self.call("pack_transposed", source, ld, units, depth, into, begin, end, side, stride, row_width, column)

    def _region(self, stage: Stage) -> ir.Value:
        return I64(0) if stage.size == SCALAR else self.part

    def _panels_to_pack(self, stage: Stage) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
        """The part's first panel, how many it has, and which of them, counted from there, this thread packs."""
        k = self.k
        first, count = self.panels(stage.size)
        alone = self.split if stage.size != SCALAR else ir.Constant(self.split.type, 0)
        begin = k.b.select(alone, I64(0), k.div(k.mul(count, self.me), self.team))
        end = k.b.select(alone, count, k.div(k.mul(count, k.add(self.me, 1)), self.team))
        return first, count, begin, end

    def _fixed(self, value: Value) -> int:
        return int(self.loop.homes[value].name)

    # the ends of time

    def _begin(self) -> None:
        """What is carried into the first step of each row."""
        k = self.k
        for state in self.plan.graph.states:
            width = self.width(state.size)
            source = self.a[f"{'end' if self.backward else 'begin'}.{state.name}"]
            start = self.a[f"start.{state.name}"]
            with self._each(state.size) as (slot, row, unit, mask):
                given = k.load(source, k.mul(self.batch_row(slot), width), unit, mask=mask)
                parity = I64(0)
                if self.backward:
                    parity = k.b.and_(self.length(slot), I64(1))
                else:
                    given = k.b.select(self.is_fresh(0, slot), k.load(start, unit, mask=mask), given)
                base, ld = self.carried(state.name, state.size, parity)
                k.store(given, base, k.mul(slot, ld), unit)

    def _end(self) -> None:
        """What each row carries at its own end: its state, or the adjoint of the state that it was given."""
        k = self.k
        for state in self.plan.graph.states:
            width = self.width(state.size)
            into = self.a[f"{'begin_gradient' if self.backward else 'end'}.{state.name}"]
            with self._each(state.size) as (slot, row, unit, mask):
                parity = I64(0) if self.backward else k.b.and_(self.length(slot), I64(1))
                base, ld = self.carried(state.name, state.size, parity)
                value = k.load(base, k.mul(slot, ld), unit)
                k.store(value, into, k.mul(self.batch_row(slot), width), unit, mask=mask)

    @contextmanager
    def _each(self, size: Size) -> Iterator[tuple[ir.Value, ir.Value, ir.Value, ir.Value]]:
        """Each row and panel of this thread: slot, row, first unit and the mask of the panel."""
        k = self.k
        first, count = self.panels(size)
        width = self.width(size)
        with k.loop(first, k.add(first, count)) as panel:
            unit = k.mul(panel, k.lanes)
            mask = k.lanes_below(k.sub(width, unit))
            with k.loop(0, self.rows) as row:
                yield k.add(self.first_row, row), row, unit, mask

    # gradients of matrices

    def _matrices(self) -> None:
        k = self.k
        count = self.a["count"]
        *offsets, ld = self.columns()
        begin = k.div(k.mul(count, self.me), self.team)
        end = k.div(k.mul(count, k.add(self.me, 1)), self.team)
        factors = right_factors(self.plan)
        with k.loop(begin, end) as index:
            place = k.load_int(self.a["valid"], index)
            k.b.store(k.at(self.a["dz"], k.mul(place, ld)), k.at_int(self.a["columns"], index))
            for number, vector in enumerate(factors):
                if vector is self.plan.index:
                    continue
                k.b.store(self._factor(vector, place), k.at_int(self.a[f"factors.{number}"], index))
        self.wait()
        for number, span in enumerate(spans(self.plan)):
            self._span(number, span, offsets, factors)

    def _factor(self, vector: Value, place: ir.Value) -> ir.Value:
        """The address of a right factor at one step and row."""
        k = self.k
        step, slot = k.b.udiv(place, self.B), k.b.urem(place, self.B)
        for number, kept in enumerate(self.plan.vectors):
            if kept is vector:
                return k.at(self.a[f"vector.{number}"], k.mul(place, self.width(vector.size)))
        return self.row(self.loop.homes[vector], _Rows(step, self.rows), k.sub(slot, self.first_row))

    def _span(self, number: int, span: Span, offsets: list[ir.Value], factors: list[Value]) -> None:
        k = self.k
        last = span.columns[-1]
        begin = offsets[span.columns[0]]
        height = k.sub(k.add(offsets[last], self.width(self.plan.columns[last].size)), begin)
        strips = k.ceil(height, PAD)
        first = k.mul(k.div(k.mul(strips, self.me), self.team), PAD)
        stop = k.least(k.mul(k.div(k.mul(strips, k.add(self.me, 1)), self.team), PAD), height)
        width = self.width(span.vector.size)
        bias_into = self.a[f"bias.{number}"]
        moved = k.b.select(self.given(bias_into), k.at(bias_into, first), bias_into)
        if span.vector is self.plan.index:
            self._columns_added(number, k.add(begin, first), k.sub(stop, first), first, height, moved)
            return
        table = next(t for t, v in enumerate(factors) if v is span.vector)
        scratch = k.at(self.a["scratch"], k.mul(self.me, self.a["ld.scratch"]))
        self.call(
            "weight_gradient",
            self.a["count"],
            self.a["columns"],
            k.add(begin, first),
            k.sub(stop, first),
            self.a[f"factors.{table}"],
            width,
            k.at(self.a[f"matrix.{number}"], k.mul(first, width)),
            width,
            moved,
            scratch,
        )


    def _columns_added(
        self, number: int, begin: ir.Value, count: ir.Value, first: ir.Value, height: ir.Value, bias_into: ir.Value
    ) -> None:
        """The gradient of a matrix whose columns were read by an index, transposed: a row for each index."""
        k = self.k
        with k.loop(0, self.a["count"]) as index, k.loop(0, k.ceil(count, k.lanes)) as panel:
            place = k.load_int(self.a["valid"], index)
            unit = k.mul(panel, k.lanes)
            mask = k.lanes_below(k.sub(count, unit))
            column = self.index(k.b.udiv(place, self.B), k.b.urem(place, self.B))
            added = k.load(k.load_pointer(self.a["columns"], index), begin, unit, mask=mask)
            into = k.at(self.a[f"matrix.{number}"], k.mul(column, height), first, unit)
            k.store(k.b.fadd(k.load(into, mask=mask), added), into, mask=mask)
            with k.when(self.given(bias_into)):
                biases = k.at(bias_into, unit)
                k.store(k.b.fadd(k.load(biases, mask=mask), added), biases, mask=mask)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """How a stage's products are cut: panels side by side, the most blocks of a part, this thread's blocks; a slot's and
    a row's width in numbers, and a block's size for one step."""

    side: ir.Value
    most: ir.Value
    count: ir.Value
    slot_width: ir.Value
    row_width: ir.Value
    size: ir.Value


class _Panels:
    """One stage of a step: for each block of panels the products, then for each panel and row the pointwise part."""

    def __init__(self, kernel: _Kernel, number: int, stage: Stage, rows: _Rows) -> None:
        self.kernel, self.k, self.number, self.stage, self.rows = kernel, kernel.k, number, stage, rows
        self.homes = kernel.loop.homes
        self.width = kernel.width(stage.size)
        self.slots = {v: slot for slot, v in enumerate(stage.linears)}

    def emit(self) -> None:
        """The code of the stage."""
        k, stage = self.k, self.stage
        first, count = self.kernel.panels(stage.size)
        if not stage.linears:
            with k.loop(first, k.add(first, count)) as panel:
                self._panel(panel, None)
            return
        early = early_calls(stage, self.kernel.loop)
        blocks = self._blocks(self.rows)
        products, stride = k.at(self.kernel.a["products"], k.mul(self.kernel.me, self.kernel.a["ld.products"])), blocks.size
        apart = k.compare("==", self.kernel.chunk, 0)
        if early:
            since = k.mul(k.mul(self.rows.since, self.kernel.rows), blocks.row_width)
            products = k.b.select(apart, products, k.at(self._early_memory(blocks), since))
            stride = k.b.select(apart, stride, self._chunk_stride(blocks))
        together = k.b.select(k.compare("<=", self.rows.count, FEW_ROWS), I64(WIDEST), I64(1))
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
        """The products of the inputs of a whole chunk, where the steps will find them and go on from there."""
        blocks = self._blocks(self.rows)
        stride = self._chunk_stride(blocks)
        early = early_calls(self.stage, self.kernel.loop)
        self._products(early, blocks, I64(0), blocks.count, self._early_memory(blocks), stride)

    def _blocks(self, rows: _Rows) -> _Blocks:
        k = self.k
        side, most = self.kernel.blocking(self.stage)
        _, panels = self.kernel.panels(self.stage.size)
        slot_width = k.mul(side, k.lanes)
        row_width = k.mul(slot_width, len(self.stage.linears))
        count = k.b.udiv(k.sub(k.add(panels, side), 1), side)
        return _Blocks(side, most, count, slot_width, row_width, k.mul(row_width, rows.count))

    def _chunk_stride(self, blocks: _Blocks) -> ir.Value:
        k, kernel = self.k, self.kernel
        return k.mul(k.mul(kernel.a["chunk"], kernel.rows), blocks.row_width)

    def _early_memory(self, blocks: _Blocks) -> ir.Value:
        k, kernel = self.k, self.kernel
        share = k.mul(k.mul(k.mul(kernel.a["chunk"], kernel.B), blocks.row_width), blocks.most)
        return k.at(kernel.a[f"early.{self.number}"], k.mul(kernel.me, share))

    def _products(
        self, calls: list[Call], blocks: _Blocks, block: ir.Value, some: ir.Value, products: ir.Value, stride: ir.Value
    ) -> None:
        """Products of the next `some` blocks, one block `stride` numbers behind the other."""
        k = self.k
        for number, call in enumerate(self.stage.calls):
            if call not in calls:
                continue
            depth = self.kernel.width(call.vector.size)
            size = k.mul(depth, k.mul(blocks.slot_width, len(call.matrices)))
            region = k.add(k.mul(self.kernel._region(self.stage), blocks.most), block)
            packed = k.at(self.kernel.a[f"packed.{self.number}.{number}"], k.mul(region, size))
            into = k.at(products, k.mul(blocks.slot_width, call.first))
            vectors = k.mul(blocks.side, len(call.matrices))
            widths = [len(call.matrices) * side for side in range(1, most_panels(len(self.stage.linears)) + 1)]
            last = (packed, some, size, into, blocks.row_width, stride, I64(int(call.fresh)))
            if call.vector is self.kernel.plan.index:
                self._columns_read(widths, vectors, last)
            else:
                source, ld = self.kernel.operand(call.vector, self.rows)
                begin, end = self._depth(call, depth, k.mul(block, blocks.side), k.mul(some, blocks.side))
                near = k.at(packed, k.mul(begin, k.mul(vectors, k.lanes)))
                arguments = (self.rows.count, k.sub(end, begin), k.at(source, begin), ld, near, *last[1:])
                _product(k, widths, vectors, arguments)

    def _depth(self, call: Call, depth: ir.Value, panel: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The part of a vector that some panels read: where all matrices are cut into blocks, their blocks' part."""
        k = self.k
        parts = {matrix.attrs.get("blocks") for matrix, _ in call.matrices}
        number = parts.pop()
        if number is None or parts:
            return I64(0), depth
        first, _ = self.kernel.panels(self.stage.size)
        begin = k.mul(k.add(first, panel), k.lanes)
        end = k.least(k.add(begin, k.mul(count, k.lanes)), self.width)
        units, columns = k.div(self.width, number), k.div(depth, number)
        last = k.b.udiv(k.sub(k.add(end, units), 1), units)
        return k.mul(k.b.udiv(begin, units), columns), k.mul(last, columns)

    def _columns_read(self, widths: list[int], vectors: ir.Value, last: tuple[ir.Value, ...]) -> None:
        """For each row the matrices' column of its index, as the product with a one-hot would be."""
        k, kernel = self.k, self.kernel
        packed, some, size, into, row_width, stride, fresh = last
        with k.loop(0, self.rows.count) as row:
            column = k.at(packed, k.mul(kernel.index(self.rows.step, k.add(kernel.first_row, row)), k.mul(vectors, k.lanes)))
            here = k.at(into, k.mul(row, row_width))
            arguments = (I64(1), I64(1), kernel.one, I64(0), column, some, size, here, row_width, stride, fresh)
            _product(k, widths, vectors, arguments)

    def _zero(self, blocks: _Blocks, some: ir.Value, products: ir.Value, stride: ir.Value) -> None:
        """Nothing, in the slots that only some of the products of a run begin with."""
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
        starts = {w.name: self._start(w) for w in self.stage.writes if w.kind == "carry" and not self.kernel.backward}
        with k.loop(0, self.rows.count) as row:
            _Row(self, row, dict(still), starts, products).emit()

    def _start(self, write: Write) -> ir.Value:
        start = self.kernel.a[f"start.{write.name}"]
        return self.k.load(start, self.unit, mask=self.mask)

    def _still_values(self) -> dict[Value, ir.Value]:
        """What does not change from row to row."""
        stage = self.stage
        read = {a for v in stage.values if v.op != "linear" for a in v.args} | {w.value for w in stage.writes}
        read |= {b for v in stage.linears if (b := bias(v)) is not None}
        return {v: self._still(v) for v in sorted(read, key=lambda v: v.order) if v.rate == Rate.WEIGHTS}

    def _still(self, value: Value) -> ir.Value:
        k = self.k
        if value.op == "constant":
            return k.splat_constant(value.attrs["value"])
        if value.op == "count":
            return k.splat(k.b.sitofp(self.kernel.width((value.attrs["of"],)), k.real))
        source = self.kernel.a[f"weights.{self.homes[value].name}"]
        return k.splat(k.scalar(source)) if value.size == SCALAR else k.load(source, self.unit, mask=self.mask)


class _Row:
    """One row of a panel: values from memory, the mathematics, values to memory."""

    def __init__(
        self,
        panels: _Panels,
        row: ir.Value,
        known: dict[Value, ir.Value],
        starts: dict[str, ir.Value],
        products: tuple[ir.Value, ir.Value, ir.Value] | None,
    ) -> None:
        self.panels, self.kernel, self.k, self.row = panels, panels.kernel, panels.k, row
        self.known, self.starts, self.products = known, starts, products
        self.step, self.slot = panels.rows.step, panels.k.add(panels.kernel.first_row, row)
        self.later: list[tuple[ir.Value, ir.Value]] = []

    def emit(self) -> None:
        """The code of the row."""
        k, stage = self.k, self.panels.stage
        for value in stage.values:
            self.known[value] = self._compute(value)
            home = self.panels.homes.get(value)
            if home is not None and home.where in ("row", "private"):
                k.store(self.known[value], self._address(home), self.panels.unit)
        for write in stage.writes:
            self._write(write, self._get(write.value))
        if self.later:
            with k.when(k.compare("!=", self.kernel.a["keeping"], 0)):
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
        return self.kernel.mathematics.apply(value.op, *(self._get(a) for a in value.args))

    def _get(self, value: Value) -> ir.Value:
        if value not in self.known:
            self.known[value] = self._load(value, self.panels.homes[value])
        return self.known[value]

    def _address(self, home: Home) -> ir.Value:
        return self.kernel.row(home, self.panels.rows, self.row)

    def _load(self, value: Value, home: Home) -> ir.Value:
        k, address = self.k, self._address(home)
        if value.size == SCALAR:
            return k.splat(k.scalar(address))
        padded = home.where in ("row", "private", "adjoint", "dz") or (home.where == "old" and not self.kernel.backward)
        return k.load(address, self.panels.unit, mask=None if padded else self.panels.mask)

    def _write(self, write: Write, value: ir.Value) -> None:
        k, kernel, panels = self.k, self.kernel, self.panels
        width = kernel.width(write.size)
        here = kernel.here(self.step, self.slot)
        if write.kind == "carry":
            self._carry(write, value)
        elif write.kind == "output":
            place = k.load_int(kernel.a["place"], here)
            into = k.at(kernel.a["output"], k.mul(place, kernel.a["ld.output"]), *map(kernel._letters, write.before))
            k.store(value, into, panels.unit, mask=panels.mask)
        elif write.kind == "keep":
            self.later.append((value, k.at(kernel.a[f"keep.{write.name}"], k.mul(here, width))))
        elif write.kind == "dz":
            base, ld = kernel.block(Home("dz", write.name, write.size), panels.rows)
            k.store(value, base, k.mul(self.row, ld), panels.unit)
        elif write.kind == "vector":
            k.store(value, kernel.a[f"vector.{write.name}"], k.mul(here, width), panels.unit, mask=panels.mask)
        elif write.kind == "input":
            place = k.load_int(kernel.a["place"], here)
            name = f"gradient.{write.name}"
            into = k.at(kernel.a[name], k.mul(place, kernel.a[f"ld.{name}"]))
            k.store(value, into, panels.unit, mask=panels.mask)
        elif write.kind == "sequence":
            self._add(write, value, kernel.a[f"gradient.{write.name}"], k.mul(kernel.batch_row(self.slot), width))
        else:
            self._add(write, value, kernel.a[f"sum.{write.name}"], k.mul(self.slot, width))

    def _add(self, write: Write, value: ir.Value, base: ir.Value, offset: ir.Value) -> None:
        """Add to what stands there; what every thread computes is added by the first."""
        k, panels = self.k, self.panels
        mask = panels.mask
        if write.size == SCALAR:
            mask = k.b.select(k.compare("==", self.kernel.part, 0), mask, ir.Constant(mask.type, [0] * k.lanes))
        before = k.load(base, offset, panels.unit, mask=mask)
        k.store(k.b.fadd(before, value), base, offset, panels.unit, mask=mask)

    def _carry(self, write: Write, value: ir.Value) -> None:
        """The new state, or where the row starts afresh next, its start; an adjoint ends where its row started afresh."""
        k, kernel = self.k, self.kernel
        width = kernel.width(write.size)
        if kernel.backward:
            fresh = kernel.is_fresh(self.step, self.slot)
            into = kernel.a[f"start_gradient.{write.name}"]
            with k.when(k.b.and_(fresh, kernel.given(into))):
                self._add(write, value, into, k.mul(self.slot, width))
            parity, following = k.b.and_(self.step, I64(1)), k.splat_constant(0.0)
        else:
            fresh = kernel.is_fresh(k.add(self.step, 1), self.slot)
            if write.name in kernel.plan.history:
                self.later.append((value, k.at(kernel.a[f"history.{write.name}"], k.mul(kernel.here(self.step, self.slot), width))))
            parity, following = k.b.and_(k.add(self.step, 1), I64(1)), self.starts[write.name]
        base, ld = kernel.carried(write.name, write.size, parity)
        k.store(k.b.select(fresh, following, value), base, k.mul(self.slot, ld), self.panels.unit)


def _product(k: Builder, widths: list[int], vectors: ir.Value, arguments: tuple[ir.Value, ...]) -> None:
    """The library's product of so many vectors side by side, one of `widths`."""
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
