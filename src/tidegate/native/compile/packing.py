"""Packing of weights into the order in which products read them, at the beginning of a call."""

from contextlib import nullcontext

from tidegate.equations.values import SCALAR
from tidegate.native._llvm import ir
from tidegate.native.compile.addresses import Places
from tidegate.native.compile.builder import I64
from tidegate.native.compile.plan import MatrixCall, Stage


def pack(places: Places) -> None:
    """Pack the matrices of all stages that will run."""
    k = places.k
    with k.when(k.compare("==", places.a["packed"], 0)):
        for s, stage in enumerate(places.loop.stages):
            for c, call in enumerate(stage.calls):
                only = stage.only_for
                with nullcontext() if only is None else k.when(places.given(places.a[f"gradient.{only}"])):
                    _pack_call(places, stage, call, places.a[f"packed.{s}.{c}"])


def _pack_call(places: Places, stage: Stage, call: MatrixCall, into: ir.Value) -> None:
    """Each thread packs a share of the panels; where units are shared, those that it will use."""
    k = places.k
    side, blocks = places.blocking(stage)
    depth = places.width(call.vector.size)
    row_width = k.mul(k.mul(side, k.lanes), len(call.matrices))
    stride = k.mul(depth, row_width)
    first, begin, end = _panels_to_pack(places, stage)
    into = k.at(into, k.mul(k.mul(places.region(stage), blocks), stride))
    for number, (matrix, turned) in enumerate(call.matrices):
        source = places.a[f"weights.{places.fixed(matrix)}"]
        ld = places.width((matrix.size[1],))
        column = k.mul(k.mul(side, k.lanes), number)
        units = k.sub(places.width(stage.size), k.mul(first, k.lanes))
        skip = k.mul(first, k.lanes)
        if turned:
            source = k.at(source, skip)
            places.call("pack_plain", source, ld, depth, units, into, begin, end, side, stride, row_width, column)
        else:
            source = k.at(source, k.mul(skip, ld))
            places.call("pack_transposed", source, ld, units, depth, into, begin, end, side, stride, row_width, column)


def _panels_to_pack(places: Places, stage: Stage) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The part's first panel, and which of its panels, counted from there, this thread packs."""
    k = places.k
    first, count = places.panels(stage.size)
    alone = places.split if stage.size != SCALAR else ir.Constant(places.split.type, 0)
    begin = k.b.select(alone, I64(0), k.div(k.mul(count, places.me), places.team))
    end = k.b.select(alone, count, k.div(k.mul(count, k.add(places.me, 1)), places.team))
    return first, begin, end
