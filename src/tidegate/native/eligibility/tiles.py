"""The inner loop of traces: a tile of rows and vectors stays in registers over all steps."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tidegate.native._llvm import ir
from tidegate.native.compile.builder import I1, I64, POINTER, Builder
from tidegate.native.eligibility.form import TraceForm

MAX_TILE_VECTORS = 6  # of a tile


class Strip(NamedTuple):
    """The arguments of a strip: neighbouring rows of traces by a tile's vectors.

    Per step `v` advances by `ldv`, and `c` by one vector for each coefficient, which has one lane per row. A row of
    traces has `width` elements, a state `plane`. With `fresh`, traces start at zero instead of at `start`. The last
    vector has `left` elements.
    """

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
    left: ir.Value


_TYPES = [I64, I64, POINTER, I64, POINTER, POINTER, POINTER, POINTER, I64, I64, I1, I64]


def fits(form: TraceForm, registers: int, rows: int, vectors: int) -> bool:
    """Whether a tile fits into registers with v and a row's coefficients; one of these may be a memory operand, and so
    may v where there is one row."""
    lines = vectors if rows > 1 else 1
    beside = lines + len(form.coefficients) - 1 + form.states
    return rows * vectors * (form.states + 1) + beside <= registers


def widest(form: TraceForm, registers: int) -> int:
    """The most vectors that a tile may have."""
    return max((n for n in range(2, MAX_TILE_VECTORS + 1) if fits(form, registers, 1, n)), default=1)


def tallest(form: TraceForm, registers: int, vectors: int) -> int:
    """The most rows that a tile of this many vectors may have; a power of two, as a panel's."""
    return next((n for n in (8, 4, 2) if fits(form, registers, n, vectors)), 1)


def strip(k: Builder, form: TraceForm, vectors: int) -> ir.Function:
    """Emit strip{vectors}(Strip): all steps of some rows, in tiles of as many as fit, the rest one by one."""
    high = tallest(form, k.target.registers, vectors)
    with k.function(f"strip{vectors}", _TYPES) as f:
        at = Strip(*f.args)
        whole = k.sub(at.rows, k.rem(at.rows, high))
        with k.loop(0, whole, high) as row:
            _tile(k, form, at, row, high, vectors)
        if high > 1:
            with k.loop(whole, at.rows) as row:
                _tile(k, form, at, row, 1, vectors)
    return f


def _tile(k: Builder, form: TraceForm, at: Strip, row: ir.Value, rows: int, vectors: int) -> None:
    masks = [None] * (vectors - 1) + [k.lanes_below(at.left)]
    cells = [(r, j) for r in range(rows) for j in range(vectors)]
    numbers = form.states + 1
    here = k.at(at.c, row)
    inside = [k.add(k.mul(at.width, k.add(row, r)), j * k.lanes) for r, j in cells]
    places = [[k.add(k.mul(at.plane, s), where) for s in range(form.states)] for where in inside]
    begins = [begun(k, at.start, at.fresh, masks[j], p) for (_, j), p in zip(cells, places, strict=True)]
    held = [value for begin in begins for value in begin]
    with k.carrying(0, at.steps, 1, [k.int(0), k.int(0), *held]) as (_, carried):
        line, step, *held = carried
        lines = [k.load(at.v, line, j * k.lanes) for j in range(vectors)]
        for r in range(rows):
            factors = {name: k.splat(k.scalar(here, step, i * k.lanes + r)) for i, name in enumerate(form.coefficients)}
            for j in range(vectors):
                cell = slice((r * vectors + j) * numbers, (r * vectors + j + 1) * numbers)
                held[cell] = advanced(k, form, factors, lines[j], held[cell])
        carried[:] = [k.add(line, at.ldv), k.add(step, len(form.coefficients) * k.lanes), *held]
    for n, (_, j) in enumerate(cells):
        ended(k, form, carried[2 + n * numbers :][:numbers], at.end, masks[j], places[n], k.at(at.g, inside[n]))


def begun(
    k: Builder, start: ir.Value, fresh: ir.Value, mask: ir.Value | None, places: Sequence[ir.Value]
) -> list[ir.Value]:
    """The initial traces of all states, as vectors, and a zero sum."""
    zero = k.splat_constant(0.0)
    return [*(k.b.select(fresh, zero, k.load(start, place, mask=mask)) for place in places), zero]


def advanced(
    k: Builder, form: TraceForm, factors: Mapping[str, ir.Value], v: ir.Value | None, held: Sequence[ir.Value]
) -> list[ir.Value]:
    """The traces of all states after a step, and the updated sum; without `v` it is 1."""
    *old, g = held
    new = [_state(k, form, s, factors, v, old) for s in range(form.states)]
    for s in form.scored:
        g = k.fma(factors[f"delta.{s}"], new[s], g)
    return [*new, g]


def _state(
    k: Builder, form: TraceForm, s: int, factors: Mapping[str, ir.Value], v: ir.Value | None, old: Sequence[ir.Value]
) -> ir.Value:
    total = k.splat_constant(0.0)
    if s in form.driven:
        total = factors[f"u.{s}"] if v is None else k.b.fmul(factors[f"u.{s}"], v)
    for of in form.sources(s):
        total = k.fma(factors[f"d.{s}.{of}"], old[of], total)
    return total


def ended(
    k: Builder,
    form: TraceForm,
    held: Sequence[ir.Value],
    end: ir.Value,
    mask: ir.Value | None,
    places: Sequence[ir.Value],
    g: ir.Value,
) -> None:
    """Store the traces of all states, and add the sum to the gradient in memory."""
    *e, total = held
    for value, place in zip(e, places, strict=True):
        k.store(value, end, place, mask=mask)
    if form.scored:
        k.store(k.b.fadd(k.load(g, mask=mask), total), g, mask=mask)
