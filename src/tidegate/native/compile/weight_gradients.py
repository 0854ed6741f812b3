"""Gradients of matrices after the backward steps: sums of outer products over all rows and steps."""

from tidegate.equations.values import Value
from tidegate.native._llvm import ir
from tidegate.native.compile.addresses import Places, Rows
from tidegate.native.compile.arguments import PAD, Span, right_factors, spans


def matrices(places: Places) -> None:
    """Sum what the backward steps have stored: each thread computes a share of the rows of every result."""
    k = places.k
    count = places.a["count"]
    *offsets, ld = places.columns()
    begin = k.div(k.mul(count, places.me), places.team)
    end = k.div(k.mul(count, k.add(places.me, 1)), places.team)
    factors = right_factors(places.plan)
    with k.loop(begin, end) as index:
        place = k.load_int(places.a["valid"], index)
        k.b.store(k.at(places.a["dz"], k.mul(place, ld)), k.at_int(places.a["columns"], index))
        for number, vector in enumerate(factors):
            if vector is places.plan.index:
                continue
            k.b.store(_factor(places, vector, place), k.at_int(places.a[f"factors.{number}"], index))
    places.wait()
    for number, span in enumerate(spans(places.plan)):
        _span(places, number, span, offsets, factors)


def _factor(places: Places, vector: Value, place: ir.Value) -> ir.Value:
    """The address of a right factor at one step and row."""
    k = places.k
    step, slot = k.b.udiv(place, places.B), k.b.urem(place, places.B)
    for number, stored in enumerate(places.plan.vectors):
        if stored is vector:
            return k.at(places.a[f"vector.{number}"], k.mul(place, places.width(vector.size)))
    return places.row(places.loop.homes[vector], Rows(step, places.rows), k.sub(slot, places.first_row))


def _span(places: Places, number: int, span: Span, offsets: list[ir.Value], factors: list[Value]) -> None:
    k = places.k
    last = span.columns[-1]
    begin = offsets[span.columns[0]]
    height = k.sub(k.add(offsets[last], places.width(places.plan.columns[last].size)), begin)
    strips = k.ceil(height, PAD)
    first = k.mul(k.div(k.mul(strips, places.me), places.team), PAD)
    stop = k.least(k.mul(k.div(k.mul(strips, k.add(places.me, 1)), places.team), PAD), height)
    width = places.width(span.vector.size)
    bias_into = places.a[f"bias.{number}"]
    moved = k.b.select(places.given(bias_into), k.at(bias_into, first), bias_into)
    if span.vector is places.plan.index:
        _columns_added(places, number, k.add(begin, first), k.sub(stop, first), first, height, moved)
        return
    table = next(t for t, v in enumerate(factors) if v is span.vector)
    scratch = k.at(places.a["scratch"], k.mul(places.me, places.a["ld.scratch"]))
    places.call(
        "weight_gradient",
        places.a["block.count"],
        places.a["blocks"],
        places.a["columns"],
        k.add(begin, first),
        k.sub(stop, first),
        places.a[f"factors.{table}"],
        width,
        k.at(places.a[f"matrix.{number}"], k.mul(first, width)),
        width,
        moved,
        scratch,
    )


def _columns_added(
    places: Places,
    number: int,
    begin: ir.Value,
    count: ir.Value,
    first: ir.Value,
    height: ir.Value,
    bias_into: ir.Value,
) -> None:
    """The gradient of a matrix whose columns were read by an index, transposed: one row per index.

    Summed from the last step to the first, like the blocks of other matrices.
    """
    k = places.k
    last = k.sub(places.a["count"], 1)
    with k.loop(0, places.a["count"]) as done, k.loop(0, k.ceil(count, k.lanes)) as panel:
        index = k.sub(last, done)
        place = k.load_int(places.a["valid"], index)
        unit = k.mul(panel, k.lanes)
        mask = k.lanes_below(k.sub(count, unit))
        column = places.index(k.b.udiv(place, places.B), k.b.urem(place, places.B))
        added = k.load(k.load_pointer(places.a["columns"], index), begin, unit, mask=mask)
        into = k.at(places.a[f"matrix.{number}"], k.mul(column, height), first, unit)
        k.store(k.b.fadd(k.load(into, mask=mask), added), into, mask=mask)
        with k.when(places.given(bias_into)):
            biases = k.at(bias_into, unit)
            k.store(k.b.fadd(k.load(biases, mask=mask), added), biases, mask=mask)
