"""From a plan to LLVM IR: one emitter for the forward and the backward kernel of any cell.

A kernel is one function that each thread of the team runs: it packs the weights, initialises the carried values, and
iterates over the steps. Threads share the rows of the batch or, with few rows, the panels of units (`hidden`); then
they synchronise at the plan's barriers. Rows come in the order given by the call, longest first, so that the rows that
have not ended are the first ones of a thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tidegate.equations.graph import StateVariable
from tidegate.equations.values import Value
from tidegate.native._llvm import ir
from tidegate.native.compile import packing, weight_gradients
from tidegate.native.compile.addresses import Places, Rows
from tidegate.native.compile.arguments import Pass, early_calls
from tidegate.native.compile.builder import I64, POINTER, Builder
from tidegate.native.compile.mathematics import Mathematics
from tidegate.native.compile.panels import Panels
from tidegate.native.compile.plan import KernelPlan, Stage
from tidegate.native.run import threads
from tidegate.native.target import DType, Target

LASTING = ("dz", "kept", "new", "weights")  # stored separately for each step and row, contiguously
BY_PLACE = ("input", "output")


def lower(plan: KernelPlan, target: Target, dtype: DType) -> str:
    """The LLVM IR of a module with the functions `forward` and `backward`."""
    k = Builder(plan.graph.name, target, dtype)
    mathematics = Mathematics(k)
    directions: tuple[Pass, ...] = ("forward", "backward")
    for direction in directions:
        with k.function(f"{direction}.thread", [POINTER, I64, I64]) as f:
            _Kernel(Places(k, plan, direction, f), mathematics).emit()
        threads.team(k, direction, f"{direction}.thread")
    return str(k.module)


class _Kernel:
    """Emits what each thread of the team runs."""

    def __init__(self, places: Places, mathematics: Mathematics) -> None:
        self.places, self.mathematics = places, mathematics
        self.k, self.loop = places.k, places.loop
        late = {s.only_for for s in self.loop.stages if s.only_for is not None}
        hasty = {s.only_for for s in self.loop.stages if not self._can_wait(s)}
        self.waiting = late - hasty

    def emit(self) -> None:
        """The body of the kernel."""
        packing.pack(self.places)
        with self.k.when(self.k.b.not_(self.places.split)):
            self.places.wait()
        self._shares()
        if self.places.backward:
            self.places.wait()
            weight_gradients.matrices(self.places)

    def _shares(self) -> None:
        """The steps of this thread's share of the rows, and of shares left over in a smaller team than requested."""
        places = self.places
        with self.k.loop(places.me, places.shares, places.team) as share:
            places.set_share(share)
            self._begin()
            self._gather(set(self.loop.gathered) - self._moving(), Rows(I64(0), places.rows))
            with self.k.when(places.split):
                places.wait()
            if places.backward:
                self._steps_back()
            else:
                self._steps()
            self._end()
        places.share_all()

    def _steps(self) -> None:
        """From the first step to the last, in chunks; rows are dropped when they end."""
        k, chunk = self.k, self.places.chunk
        stride = k.b.select(k.compare("==", chunk, 0), I64(1), chunk)
        with k.carrying(0, self.places.T, stride, carry=[self.places.rows]) as (begin, outer):
            some = k.least(stride, k.sub(self.places.T, begin))
            with k.when(k.compare("!=", chunk, 0)):
                self._early(Rows(begin, k.mul(some, self.places.rows)))
            with k.carrying(begin, k.add(begin, some), carry=outer) as (step, state):
                state[0] = self._still(step, state[0])
                self._step(Rows(step, state[0], k.sub(step, begin)))
            outer[0] = state[0]

    def _steps_back(self) -> None:
        """From the last step to the first; rows are added at their own last step.

        The inputs' gradients of a chunk are computed after its steps.
        """
        k, chunk = self.k, self.places.chunk
        stride = k.b.select(k.compare("==", chunk, 0), I64(1), chunk)
        with k.carrying(0, self.places.T, stride, carry=[I64(0)]) as (begin, outer):
            end = k.least(k.add(begin, stride), self.places.T)
            with k.carrying(begin, end, carry=outer) as (back, state):
                step = k.sub(k.sub(self.places.T, 1), back)
                state[0] = self._joined(step, state[0])
                self._step(Rows(step, state[0]))
            outer[0] = state[0]
            with k.when(k.compare("!=", chunk, 0)):
                self._late(Rows(k.sub(self.places.T, end), k.mul(k.sub(end, begin), self.places.rows)))

    def _early(self, rows: Rows) -> None:
        """The products of a chunk's inputs."""
        vectors = {c.vector for stage in self.loop.stages for c in early_calls(stage, self.loop)}
        self._gather(vectors, rows)
        for number, stage in enumerate(self.loop.stages):
            if early_calls(stage, self.loop):
                Panels(self.places, self.mathematics, number, stage, rows).emit_early()

    def _late(self, rows: Rows) -> None:
        """The stages that can wait until the end of their chunk."""
        for number, stage in enumerate(self.loop.stages):
            if stage.only_for in self.waiting:
                with self.k.when(self.places.given(self.places.a[f"gradient.{stage.only_for}"])):
                    self._stage(number, stage, rows)

    def _can_wait(self, stage: Stage) -> bool:
        """Whether a stage reads and writes only values that are stored separately for each step."""
        read = {a for v in stage.values if v.op != "linear" for a in v.args} | {w.value for w in stage.writes}
        homes = [self.loop.homes[v].where for v in read if v in self.loop.homes]
        whole = [self.loop.homes[c.vector].where for c in stage.calls]
        lasting = all(where in LASTING for where in whole) and all(w in (*LASTING, *BY_PLACE) for w in homes)
        summed = any(w.kind == "sequence" for w in stage.writes)
        return stage.across is None and lasting and not summed

    def _still(self, step: ir.Value, count: ir.Value) -> ir.Value:
        """The number of rows that have not ended."""
        k = self.k
        with self._while(count) as (found, decide):
            last = k.sub(found, 1)
            slot = k.b.select(k.compare(">", found, 0), k.add(self.places.first_row, last), I64(0))
            decide(k.b.and_(k.compare(">", found, 0), k.compare("<=", self.places.length(slot), step)), last)
        return found

    def _joined(self, step: ir.Value, count: ir.Value) -> ir.Value:
        k = self.k
        with self._while(count) as (found, decide):
            inside = k.compare("<", found, self.places.rows)
            slot = k.b.select(inside, k.add(self.places.first_row, found), I64(0))
            decide(k.b.and_(inside, k.compare(">", self.places.length(slot), step)), k.add(found, 1))
        return found

    @contextmanager
    def _while(self, start: ir.Value) -> Iterator[tuple[ir.Value, Callable[[ir.Value, ir.Value], None]]]:
        """A loop over a number while a condition holds: `decide(condition, next)` ends the block."""
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

    def _step(self, rows: Rows) -> None:
        k = self.k
        apart = k.compare("==", self.places.chunk, 0)
        early = self._only_early()
        self._gather(self._moving() - early, rows)
        if early:
            with k.when(apart):
                self._gather(early, rows)
        for number, stage in enumerate(self.loop.stages):
            if stage.only_for is None:
                self._stage(number, stage, rows)
                continue
            wanted = self.places.given(self.places.a[f"gradient.{stage.only_for}"])
            with k.when(k.b.and_(wanted, apart) if stage.only_for in self.waiting else wanted):
                self._stage(number, stage, rows)

    def _moving(self) -> set[Value]:
        """The gathered values that change from step to step."""
        return {v for v in self.loop.gathered if self.loop.homes[v].where != "sequence"}

    def _only_early(self) -> set[Value]:
        """The gathered values that a step does not read itself if its chunk's products are precomputed."""
        early = {c for s in self.loop.stages for c in early_calls(s, self.loop)}
        used = {c.vector for s in self.loop.stages for c in s.calls if c not in early}
        used |= {a for s in self.loop.stages if s.across is not None for a in s.across.args}
        return self._moving() - used

    def _stage(self, number: int, stage: Stage, rows: Rows) -> None:
        if stage.barrier:
            with self.k.when(self.places.split):
                self.places.wait()
        if stage.across is not None:
            self._across(stage.across, rows)
        else:
            Panels(self.places, self.mathematics, number, stage, rows).emit()

    def _across(self, value: Value, rows: Rows) -> None:
        (operand,) = value.args
        source, ld = self.places.operand(operand, rows)
        into, into_ld = self.places.block(self.loop.homes[value], rows)
        few, many = self.places.width(value.size), self.places.width(operand.size)
        name = "total" if value.op == "total" else "spread"
        self.places.call(name, rows.count, source, ld, many, few, into, into_ld)

    def _gather(self, values: set[Value], rows: Rows) -> None:
        """Copy values to contiguous rows; for a chunk, one step after the other."""
        k = self.k
        pointers = k.at_int(self.places.a["pointers"], k.mul(self.places.me, self.places.most_rows()))
        for number, value in enumerate(self.loop.gathered):
            if value not in values:
                continue
            home = self.loop.homes[value]
            with k.loop(0, rows.count) as row:
                step = k.add(rows.step, k.b.udiv(row, self.places.rows))
                address = self.places.row(home, Rows(step, rows.count), k.b.urem(row, self.places.rows))
                k.b.store(address, k.at_int(pointers, row))
            into, ld = self.places.gathered_rows(number, value)
            self.places.call("gather", rows.count, pointers, self.places.width(value.size), into, ld)

    # initial and final states

    def _begin(self) -> None:
        """Initialise what each row carries into its first step."""
        k = self.k
        for state in self.places.plan.graph.states:
            width = self.places.width(state.size)
            given_as = f"{'end' if self.places.backward else 'begin'}.{state.name}"
            source, own = self.places.a[given_as], self.places.a[f"step.{given_as}"]
            start = self.places.a[f"start.{state.name}"]
            with self.places.each(state.size) as (slot, unit, mask):
                row = k.at(source, k.mul(k.mul(self.places.batch_row(slot), own), width))
                parity = I64(0)
                if self.places.backward:
                    parity = k.b.and_(self.places.length(slot), I64(1))
                else:
                    row = k.b.select(self.places.is_fresh(0, slot), start, row)
                base, ld = self.places.carried(state.name, state.size, parity)
                k.store(k.load(row, unit, mask=mask), base, k.mul(slot, ld), unit)

    def _end(self) -> None:
        """Store what each row carries at its end: the final state, or the gradient of the initial state."""
        if not self.places.backward:
            for state in self.places.plan.graph.states:
                self._store_carried(state, self.places.a[f"end.{state.name}"])
            self.k.fence()
            return
        for state in self.places.plan.graph.states:
            into = self.places.a[f"begin_gradient.{state.name}"]
            with self.k.when(self.places.given(into)):
                self._store_carried(state, into)

    def _store_carried(self, state: StateVariable, into: ir.Value) -> None:
        k, width = self.k, self.places.width(state.size)
        with self.places.each(state.size) as (slot, unit, mask):
            parity = I64(0) if self.places.backward else k.b.and_(self.places.length(slot), I64(1))
            base, ld = self.places.carried(state.name, state.size, parity)
            value = k.load(base, k.mul(slot, ld), unit)
            k.store(value, into, k.mul(self.places.batch_row(slot), width), unit, mask=mask)
