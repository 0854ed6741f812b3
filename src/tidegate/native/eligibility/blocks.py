"""Traces over a block of steps at once: a backward recursion for the coefficients, then matrix products.

Traces after a block, and what the block adds to the gradient, are linear in what drives it and in the traces before:

    e[f] = sum over t of w_t[f] * v_t + sum over s of a[f, s] * e0[s]
    g   += sum over t of c_t * v_t    + sum over s of a[g, s] * e0[s]

Both come out of one recursion backwards over the steps, with units in lanes. For an output o, a trace e[f] or g,

    a_t[o, s] = delta_t[s] (only for g) + sum over s' of d_{t+1}[s', s] * a_{t+1}[o, s']
    c_t[o] = sum over s of u_t[s] * a_t[o, s]

which begins for e[f] with 1 at s = f after the last step. The steps themselves are then a product of matrices, which
takes a multiplication and an addition for each output, however many states there are and take from each other. A bias'
v is 1: its share is the sum of c_t.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import I1, I64, POINTER, Builder
from tidegate.native.compile.gemm import switch
from tidegate.native.compile.reductions import strips
from tidegate.native.eligibility.arguments import read
from tidegate.native.eligibility.block_products import Product, each_width
from tidegate.native.eligibility.form import GRADIENT, TraceForm

MIN_BLOCK_STEPS = 12  # steps from which a block is faster than single steps


class TracePanel(NamedTuple):
    """The arguments of a block: all its steps for `rows` neighbouring rows of the linear from `row` on.

    Its coefficients are those of the kernel's `arguments`, where its first step is line `first`; those of the next
    panel begin at `next_first` and `next_row`. Traces before the block stand at `start`, with `fresh` they count as
    zero; those after it go to `end`. States are `plane` apart. Traces and `g` have `width` columns, the last one
    for the bias if there is one. `c` is working memory for the products' coefficients.
    """

    arguments: ir.Value
    first: ir.Value
    row: ir.Value
    next_first: ir.Value
    next_row: ir.Value
    rows: ir.Value
    steps: ir.Value
    v: ir.Value
    ldv: ir.Value
    c: ir.Value
    start: ir.Value
    end: ir.Value
    g: ir.Value
    width: ir.Value
    plane: ir.Value
    fresh: ir.Value
    bias: ir.Value


_SIZES = [I64] * 6  # from `first` to `steps`
_TYPES = [POINTER, *_SIZES, POINTER, I64, POINTER, POINTER, POINTER, POINTER, I64, I64, I1, I64]
_Held = dict[tuple[int, int], ir.Value]  # by output and state


def block(k: Builder, form: TraceForm, ends: tuple[int, ...], tiles: Sequence[ir.Function]) -> ir.Function:
    """Emit block{ends}(panel): add to the gradient and compute the traces of the states `ends` only."""
    with k.function("block" + "".join(f".{s}" for s in ends), _TYPES) as f:
        if wanted := form.outputs(ends):
            _Block(k, form, wanted, TracePanel(*f.args)).emit(tiles)
    return f


class _Block:
    def __init__(self, k: Builder, form: TraceForm, wanted: tuple[int, ...], at: TracePanel) -> None:
        self.k, self.form, self.wanted, self.at = k, form, wanted, at
        self.n, self.mask = read(k, form, at.arguments), k.lanes_below(at.rows)
        self.ldc = len(wanted) * k.lanes
        self.kept = k.at(at.c, k.mul(at.steps, self.ldc))  # for each output its sum, then the carried values by state
        self.places = {s: at.g if s == GRADIENT else k.at(at.end, k.mul(at.plane, s)) for s in wanted}
        read_on = [s for s in wanted if s in form.taken][:-1]  # while the traces of others are computed
        self.late = {s: self.places[s] for s in read_on}
        for i, s in enumerate(self.late):
            self.places[s] = k.at(self._carried(len(wanted)), k.mul(k.mul(at.width, k.lanes), i))

    def emit(self, tiles: Sequence[ir.Function]) -> None:
        k, at = self.k, self.at
        self._backwards()
        with k.when(k.compare("!=", at.bias, 0)):
            self._add_bias()
        zeros, none = k.stack_array(k.vector, len(tiles)), k.int(0)
        for i in range(len(tiles)):
            k.store(k.splat_constant(0.0), zeros, i * k.lanes)
        plane, ld_old = (k.b.select(at.fresh, none, n) for n in (at.plane, at.width))
        with each_width(k, k.sub(at.width, at.bias), len(tiles)) as (column, vectors, left):
            e = k.b.select(at.fresh, zeros, k.at(at.start, column))
            for i, o in enumerate(self.wanted):
                out = k.at(self.places[o], column)
                sums = (k.at(at.c, i * k.lanes), k.int(self.ldc), k.at(at.v, column), at.ldv, out, at.width)
                base = (out, at.width) if o == GRADIENT else (zeros, none)
                ahead = (*self._ahead(2 * i, column), *self._ahead(2 * i + 1, column))
                before = (*base, e, ld_old, plane, self.k.at(self._carried(self.wanted.index(o)), self.k.lanes))
                switch(k, vectors, tiles, Product(at.rows, at.steps, left, *sums, *before, *ahead))
        for s, place in self.late.items():
            _copy(k, self.places[s], place, k.mul(at.rows, at.width))

    def _ahead(self, number: int, column: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The address and step stride of a coefficient of the next block to prefetch; another one for each group of
        columns, so that each is prefetched once."""
        k, n, at, names = self.k, self.n, self.at, self.form.coefficients
        first, others = names[number % len(names)], names[(number + 2 * len(self.wanted)) % len(names)]
        begun = k.compare("==", column, 0)
        ld = k.b.select(begun, n[f"ld.{first}"], n[f"ld.{others}"])
        base = k.b.select(begun, n[first], n[others])
        return k.at(base, k.mul(at.next_first, ld), at.next_row), k.mul(n["B"], ld)

    def _carried(self, number: int, state: int | None = None) -> ir.Value:
        """The address of an output's sum over the steps, or of the factor of a state's earlier traces."""
        inside = 0 if state is None else 1 + self.form.taken.index(state)
        return self.k.at(self.kept, (number * (1 + len(self.form.taken)) + inside) * self.k.lanes)

    def _backwards(self) -> None:
        k, form = self.k, self.form
        zero, one = k.splat_constant(0.0), k.splat_constant(1.0)
        last = k.sub(self.at.steps, 1)
        chains = [(o, s) for o in self.wanted for s in form.chain(o)]
        begin = {(o, s): one if o == s else zero for o, s in chains}
        begin |= {(GRADIENT, s): self._load(f"delta.{s}", last) for s in form.scored if GRADIENT in self.wanted}
        with k.carrying(0, last, 1, [*begin.values(), *(zero for _ in self.wanted)]) as (i, carried):
            step = k.sub(last, i)
            held, sums = dict(zip(chains, carried, strict=False)), carried[len(chains) :]
            sums = self._factors(step, held, sums)
            carried[:] = [*self._earlier(step, held, scores=True).values(), *sums]
        held, sums = dict(zip(chains, carried, strict=False)), carried[len(chains) :]
        sums = self._factors(k.int(0), held, sums)
        held = self._earlier(k.int(0), held, scores=False)
        for i, (o, total) in enumerate(zip(self.wanted, sums, strict=True)):
            k.store(total, self._carried(i))
            for s in form.taken:
                k.store(held.get((o, s), zero), self._carried(i, s))

    def _load(self, name: str, step: ir.Value) -> ir.Value:
        k, n, at = self.k, self.n, self.at
        where = k.add(at.first, k.mul(step, n["B"]))
        return k.load(n[name], k.mul(where, n[f"ld.{name}"]), at.row, mask=self.mask)

    def _factors(self, step: ir.Value, held: _Held, sums: Sequence[ir.Value]) -> list[ir.Value]:
        """Store each output's factor of a step's v, and add it to the sums."""
        k = self.k
        u = {s: self._load(f"u.{s}", step) for s in self.form.driven}
        out = k.at(self.at.c, k.mul(step, self.ldc))
        found = []
        for i, (o, total) in enumerate(zip(self.wanted, sums, strict=True)):
            terms = [(u[s], held[o, s]) for s in self.form.driven if (o, s) in held]
            c = _chained(k, terms, None)
            k.store(c, out, i * k.lanes)
            found.append(k.b.fadd(total, c))
        return found

    def _earlier(self, step: ir.Value, held: _Held, *, scores: bool) -> _Held:
        """The recursion's values for the step before; `scores` if there is one in the block."""
        k, form = self.k, self.form
        d = {(s, of): self._load(f"d.{s}.{of}", step) for s, of in form.pairs}
        delta = {s: self._load(f"delta.{s}", k.sub(step, 1)) for s in form.scored} if scores else {}
        found = {}
        for o, of in held:
            taking = sorted((s for s, x in form.pairs if x == of and (o, s) in held), key=lambda s: (s == of, s))
            first = delta.get(of) if o == GRADIENT else None
            found[o, of] = _chained(k, [(d[s, of], held[o, s]) for s in taking], first)
        return found

    def _add_bias(self) -> None:
        """The last column, whose v is 1: row by row, since the elements of a column are far apart."""
        k, at, taken = self.k, self.at, self.form.taken
        zero = k.number(0.0)
        with k.loop(0, at.rows) as row:
            place = k.add(k.mul(row, at.width), k.sub(at.width, 1))
            e = {s: k.b.select(at.fresh, zero, k.scalar(at.start, k.mul(at.plane, s), place)) for s in taken}
            for i, o in enumerate(self.wanted):
                out, total = k.at(self.places[o], place), k.scalar(self._carried(i), row)
                for s in taken:
                    total = k.b.fadd(total, k.b.fmul(k.scalar(self._carried(i, s), row), e[s]))
                k.b.store(k.b.fadd(k.scalar(out), total) if o == GRADIENT else total, out)


def _copy(k: Builder, old: ir.Value, new: ir.Value, count: ir.Value) -> None:
    strips(k, count, lambda i, mask: k.store(k.load(old, i, mask=mask), new, i, mask=mask))


def _chained(k: Builder, terms: Sequence[tuple[ir.Value, ir.Value]], first: ir.Value | None) -> ir.Value:
    """The sum of products as one chain, from `first` or from 0."""
    total = first
    for x, y in terms:
        total = k.b.fmul(x, y) if total is None else k.fma(x, y, total)
    return k.splat_constant(0.0) if total is None else total
